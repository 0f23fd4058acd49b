"""CXR-CLIP's processed CSVs, in each of their forms."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from downloads import fill_images, load, write_csv, write_images

from cxrcl.data.labels import CHEXPERT
from cxrcl.data.sources import cxr_clip_csv
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.errors import DataError

A, B, C = (f"files/p10/p1000000{k}/s5/{k}.jpg" for k in (1, 2, 3))


def reports(folder: Path) -> Path:
    """mimic_train.csv and mimic_valid.csv."""
    train = [
        {"image": str([A, B]), "view": "['PA', 'LATERAL']", "text": "['Lungs\\nclear.', 'Normal.']"},
        {"image": str([C]), "view": "['LL']", "text": "['One section, [sic].']"},
    ]
    lists = [{"AP": "[]", "PA": str([A]), "Lateral": str([B])}, {"AP": "[]", "PA": "[]", "Lateral": str([C])}]
    backs = [{"text_augment": "['Lungs clear.', 'Normal, again.']"}, {"text_augment": "['One.']"}]
    write_csv(folder / "mimic_train.csv", [{**r, **v, **b} for r, v, b in zip(train, lists, backs)])
    last = {"image": "['files/p10/p10000009/s5/9.jpg']", "view": "['AP']", "text": "[nan, 'Edema.']"}
    write_csv(folder / "mimic_valid.csv", [last])
    return folder


def test_reports(tmp_path: Path) -> None:
    found = cxr_clip_csv.read(reports(tmp_path / "csv"))
    rows = load(found, tmp_path / "out").rows
    assert rows["image"].tolist()[:3] == [f"images/{path}" for path in (A, B, C)]
    assert rows["patient"].tolist() == ["p10000001", "p10000002", "p10000003", "p10000009"]
    assert rows["study"].tolist() == ["train-0", "train-0", "train-1", "valid-0"]
    assert rows["view"].tolist() == ["PA", "Lateral", "Lateral", "AP"]
    assert rows["split"].tolist() == ["train"] * 3 + ["valid"]
    assert rows["findings"].tolist() == ["Lungs\nclear.", "Lungs\nclear.", "", ""]
    assert rows["impression"].tolist() == ["Normal.", "Normal.", "", "Edema."]
    assert rows["text"].tolist() == ["", "", "One section, [sic].", ""]
    assert rows["text_augment"].tolist() == ["Lungs clear. Normal, again."] * 2 + ["One.", ""]
    assert found.labels == () and "text_augment" not in " ".join(found.notes)


@pytest.mark.parametrize(
    ("text", "rewritten", "whole"),
    [
        ("['F.', 'I.']", "['f', 'i']", "f i"),
        ("['F.', 'I.']", "['', 'i']", "F. i"),  # a section without a rewriting stands for itself
        ("['F.', 'I.']", "[nan, nan]", ""),
        ("['F.', 'I.']", "['both']", "both"),
        ("['F.', 'I.']", "", ""),
        ("F.", "f", "f"),
    ],
)
def test_the_rewriting_is_that_of_the_whole_report(tmp_path: Path, text: str, rewritten: str, whole: str) -> None:
    write_csv(tmp_path / "train.csv", [{"image": "a.png", "text": text, "text_augment": rewritten}])
    assert cxr_clip_csv.read(tmp_path).table["text_augment"].tolist() == [whole]


def test_views_from_the_lists_of_each_view(tmp_path: Path) -> None:
    table = reports(tmp_path) / "mimic_train.csv"
    rows = read_table(table, ()).drop(columns="view").to_dict("records")
    write_csv(table, [*rows, {**rows[0], "image": "['x.jpg']"}])
    found = cxr_clip_csv.read(tmp_path, train="mimic_train.csv").table
    assert dict(zip(found["image"], found["view"])) == {A: "PA", B: "Lateral", C: "Lateral", "x.jpg": "unknown"}


@pytest.mark.parametrize(
    "text", ["Plain text of a report.", "[sic] begins it", "['One.']", "['One.', 'Two.', 'Three.']"]
)
def test_a_text_is_never_taken_apart_into_letters(tmp_path: Path, text: str) -> None:
    write_csv(tmp_path / "openi_test.csv", [{"image": "a.png", "text": text}])
    found = cxr_clip_csv.read(tmp_path).table
    assert found["text"].tolist() == [" ".join(ast.literal_eval(text)) if text.startswith("['") else text]
    assert found["split"].tolist() == ["test"] and (found["findings"] + found["impression"]).tolist() == [""]


# ------------------------------------------------------------------------------------------------- labels


def labelled(folder: Path, **lists: list[str]) -> Prepared:
    """CSVs by split; each text is a cell of text_label."""
    for split, cells in lists.items():
        rows = [{"image": f"['{split}/{k}.png']", "text_label": cell} for k, cell in enumerate(cells)]
        write_csv(folder / f"set_{split}.csv", rows)
    return cxr_clip_csv.read(folder)


def test_positive_negative_and_uncertain_labels(tmp_path: Path) -> None:
    train = ["[['Edema'], ['Fracture'], ['Pneumonia']]", "[['No Finding'], [], []]", ""]
    found = labelled(
        tmp_path / "csv", train=train, valid=["[['Edema', 'Fracture'], ['Fracture', 'Pneumonia'], ['Pneumonia']]"]
    )
    data = load(found, tmp_path / "out")
    assert data.labels == ("No Finding", "Edema", "Pneumonia", "Fracture")  # CheXpert's order
    nan = np.nan
    expected = [[nan, 1, -1, 0], [1, nan, nan, nan], [nan] * 4, [nan, 1, -1, 1]]
    np.testing.assert_array_equal(data.values, expected)


def test_lists_of_positives(tmp_path: Path) -> None:
    cells = {"train": ["['Effusion', 'Mass']", "[]"], "valid": ["['No Finding']"]}
    found = labelled(tmp_path, **cells)
    assert found.labels == ("No Finding", "Pleural Effusion", "Mass")
    assert found.table[list(found.labels)].to_numpy().tolist() == [["", "1", "1"], ["", "", ""], ["1", "", ""]]
    zero = cxr_clip_csv.read(tmp_path, not_named="zero").table
    assert zero[list(found.labels)].to_numpy().tolist() == [["0", "1", "1"], ["0", "0", "0"], ["1", "0", "0"]]
    assert "are zero" in " ".join(cxr_clip_csv.read(tmp_path, not_named="zero").notes)


def test_three_lists_say_what_is_absent_whatever_the_option(tmp_path: Path) -> None:
    labelled(tmp_path, train=["[['Edema'], [], []]", "[['Fracture'], [], []]"])
    assert cxr_clip_csv.read(tmp_path, not_named="zero").table["Edema"].tolist() == ["1", ""]


def test_the_hospital_variant(tmp_path: Path) -> None:
    names = ("NG tube in place", "Pigtail malpositon", "Pneumothorax")
    write_csv(tmp_path / "csv" / "train.csv", [{"image": "['a.png', 'b.png']", "text_label": str([names[1]])}])
    row = {"": "1", "image": "['c.png']", "text": "A tube.", "quality": "good"}
    write_csv(tmp_path / "csv" / "test.csv", [{**row, names[0]: "1", names[1]: "0.0", names[2]: "1"}])
    found = cxr_clip_csv.read(tmp_path / "csv")
    data = load(found, tmp_path / "out")
    assert data.labels == ("Pneumothorax", *names[:2])
    np.testing.assert_array_equal(data.values, [[np.nan, np.nan, 1]] * 2 + [[1, 1, 0]])
    assert data.rows["patient"].tolist() == ["train-0", "train-0", "test-0"]
    assert data.rows["text"].tolist() == ["", "", "A tube."]
    assert found.notes[-1] == "columns that were not used: quality"
    assert CHEXPERT.index("Pneumothorax") and "3 of 3 images have none" in " ".join(found.notes)


def test_test_sets_with_classes_are_labelled_in_full(tmp_path: Path) -> None:
    rows = [("a.png", "[0, 1, 1]", "['Pleural effusion', 'Mass']"), ("b.png", "[1, 0, 0]", "['No finding']")]
    write_csv(tmp_path / "vindr" / "vindr_test.csv", [{"image": i, "label": n, "class": c} for i, n, c in rows])
    found = cxr_clip_csv.read(tmp_path / "vindr")
    assert found.labels == ("No Finding", "Pleural Effusion", "Mass")
    assert found.table[list(found.labels)].to_numpy().tolist() == [["0", "1", "1"], ["1", "0", "0"]]
    for name, without in (("Pneumonia", "Normal"), ("Pneumothorax", "No Pneumothorax")):
        folder = tmp_path / name
        pairs = [{"image": "a.png", "label": "1", "class": name}, {"image": "b.png", "label": "0", "class": without}]
        write_csv(folder / "x_test.csv", pairs)
        table = cxr_clip_csv.read(folder)
        assert table.labels == (name,) and table.table[name].tolist() == ["1", "0"]


# ------------------------------------------------------------------------------------------------- files and paths


def test_splits_by_option(tmp_path: Path) -> None:
    for name in ("one.csv", "two.csv", "three_train.csv"):
        write_csv(tmp_path / name, [{"image": f"{name}.png"}])
    found = cxr_clip_csv.read(tmp_path, train="one.csv", valid="two.csv").table
    assert found["split"].tolist() == ["train", "valid"]
    assert cxr_clip_csv.read(tmp_path, test="two.csv").table["split"].tolist() == ["test"]


def test_splits_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name them with --train"):
        cxr_clip_csv.read(tmp_path)
    for name in ("a-train.csv", "val.csv", "TEST.csv.gz", "other.csv"):
        write_csv(tmp_path / name, [{"image": f"{name}.png"}])
    assert cxr_clip_csv.read(tmp_path).table["split"].tolist() == ["train", "valid", "test"]
    write_csv(tmp_path / "b_train.csv", [{"image": "x"}])
    with pytest.raises(DataError, match=r"a-train.csv and b_train.csv are all train"):
        cxr_clip_csv.read(tmp_path)


def test_paths_become_relative_to_the_images(tmp_path: Path) -> None:
    images = tmp_path / "images"
    written = [f"{images}/a.png", "./b.png", "sub\\c.png"]
    write_csv(tmp_path / "train.csv", [{"image": str([path])} for path in written])
    found = cxr_clip_csv.read(tmp_path, images=str(images))
    assert found.images == images and found.table["image"].tolist() == ["a.png", "b.png", "sub/c.png"]
    write_csv(tmp_path / "train.csv", [{"image": "['/mnt/a.png']"}])
    with pytest.raises(DataError, match="1 paths of images are absolute"):
        cxr_clip_csv.read(tmp_path)


@pytest.mark.parametrize(
    ("path", "patient"),
    [
        ("CheXpert-v1.0/train/patient00042/study1/view1_frontal.jpg", "patient00042"),
        ("mimic/files/p10/p10000032/s50414267/a.jpg", "p10000032"),
        ("images_001/00000007_003.png", "00000007"),
        ("a/hash.png", "train-0"),
    ],
)
def test_patients_are_read_from_paths(tmp_path: Path, path: str, patient: str) -> None:
    write_csv(tmp_path / "train.csv", [{"image": str([path])}])
    assert cxr_clip_csv.read(tmp_path).table["patient"].tolist() == [patient]


def test_patients_by_a_pattern_of_ones_own(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [{"image": "['x/ID7_1.png', 'x/ID7_2.png']"}])
    assert cxr_clip_csv.read(tmp_path, patient_pattern=r"(ID\d+)").table["patient"].tolist() == ["ID7"] * 2
    for wrong in ("(", r"ID\d+"):
        with pytest.raises(DataError, match="one group"):
            cxr_clip_csv.read(tmp_path, patient_pattern=wrong)


def test_what_is_dropped_is_counted(tmp_path: Path) -> None:
    cells = ["['a.png', 'a.png']", "[]", "", "[nan, 'b.png']"]
    write_csv(tmp_path / "train.csv", [{"image": cell, "x": "y"} for cell in cells])
    found = cxr_clip_csv.read(tmp_path)
    assert found.table["image"].tolist() == ["a.png", "b.png"]
    assert found.dropped == {"images without a path": 3, "images that stand twice in a file": 1}


def test_an_image_in_two_splits_is_an_error(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_csv(tmp_path / f"{split}.csv", [{"image": "['a.png']"}])
    with pytest.raises(DataError, match="1 images of one CSV stand in another"):
        cxr_clip_csv.read(tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image": "['a.png', 'b.png']", "view": "['PA']"}, "row 2 has 2 images and 1 views"),
        ({"image": "['a.png'"}, "image of row 2 is not a list"),
        ({"image": "['a'], __import__('os')"}, "image of row 2 is not a list"),
        ({"image": "['a'].copy()"}, "image of row 2 is not a list"),
        ({"image": "a.png", "text_label": "[['Edema'], []]"}, "text_label of row 2 is not three lists"),
        ({"path": "a.png"}, "no column image"),
    ],
)
def test_faults_of_a_table(tmp_path: Path, row: dict[str, str], said: str) -> None:
    write_csv(tmp_path / "train.csv", [row])
    with pytest.raises(DataError, match=said):
        cxr_clip_csv.read(tmp_path)


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    reports(folder)
    images = (A, B, C, "files/p10/p10000009/s5/9.jpg")
    write_images(folder, images)
    fill_images(folder)
    return []
