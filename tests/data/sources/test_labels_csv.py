"""A folder of images and a table of their labels."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path

import pytest
from downloads import fill_images, load

from cxrcl.commands import prepare
from cxrcl.data.sources import labels_csv
from cxrcl.errors import DataError

read = partial(prepare.call, labels_csv.read)

TABLE = """image,EDEMA,Fracture,age,person,exam,pos,fold
a/1.png,1.0,0,33,001,e1,PA,train
2.jpg,0,,54,001,e1,,train
3.dcm,-1,nan,0,7,e3,AP,val
4,0,1,71,9,e4,PA,test
5.png,0,1,71,9,e5,PA,test
"""
IMAGES = ("a/1.png", "b/1.png", "c/2.jpg", "c/d/3.png", "c/4.jpeg", "c/1.2.840.png", "other/6.png")


def put(folder: Path, table: str, *images: str) -> Path:
    for name in images:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "labels.csv").write_text(table, encoding="utf-8-sig")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return put(tmp_path / "set", TABLE, *IMAGES)


def test_images_are_found_by_path_name_and_stem(source: Path, tmp_path: Path) -> None:
    prepared = read(source, patient="person", study="exam", view="pos", split="fold")
    data = load(prepared, tmp_path / "out")
    assert data.rows["image"].tolist() == [f"images/{name}" for name in ("a/1.png", "c/2.jpg", "c/d/3.png", "c/4.jpeg")]
    assert data.rows["patient"].tolist() == ["001", "001", "7", "9"] and data.rows["study"][1] == "e1"
    assert data.rows["view"].tolist() == ["PA", "unknown", "AP", "PA"]
    assert data.rows["split"].tolist() == ["train", "train", "valid", "test"]
    assert prepared.dropped == {"row without an image": 1}
    assert any(note.startswith("3 images have no row") for note in prepared.notes)


def test_label_columns_are_those_with_label_values(source: Path) -> None:
    prepared = read(source)  # age holds 33, person 7: no labels
    assert prepared.labels == ("Edema", "Fracture")
    assert prepared.table["Edema"].tolist() == ["1", "0", "-1", "0"]
    assert prepared.table["Fracture"].tolist() == ["0", "", "", "1"]
    assert read(source, labels="2").labels == ("Fracture",)
    with pytest.raises(DataError, match="label 'age' is '33'"):
        read(source, labels="Fracture,age")


def test_without_ids_each_image_is_a_patient(source: Path) -> None:
    prepared = read(source)
    assert prepared.table["patient"].tolist() == prepared.table["study"].tolist() == prepared.table["image"].tolist()
    assert any("each study counts as a patient" in note for note in prepared.notes)
    assert not any("counts as a patient" in note for note in read(source, patient="person").notes)


def test_names_without_suffix_may_hold_dots(tmp_path: Path) -> None:
    source = put(tmp_path / "set", "uid,Edema\n1.2.840,1\n1.2,0\n", "1.2.840.png", "1.2.png")
    assert read(source).table["image"].tolist() == ["1.2.840.png", "1.2.png"]


def test_a_name_that_two_images_have_is_an_error_unless_the_path_is_given(tmp_path: Path) -> None:
    source = put(tmp_path / "set", "image,Edema\ntrain/1.png,1\ntest/1.png,0\n", "train/1.png", "test/1.png")
    assert read(source).table["image"].tolist() == ["train/1.png", "test/1.png"]
    put(source, f"image,Edema\n{source}/train/1.png,1\n./test/1.png,0\n")
    assert read(source).table["image"].tolist() == ["train/1.png", "test/1.png"]
    put(source, "image,Edema\n1.png,1\n")
    with pytest.raises(DataError, match=r"1 names belong to several images, such as test/1.png and train/1.png"):
        read(source)
    put(source, "image,Edema\n1,1\n")
    with pytest.raises(DataError, match="1 names belong to several images"):
        read(source)


def test_one_column_of_classes(tmp_path: Path) -> None:
    table = "image,label\n0.png,NORMAL\n1.png,Pneumonia | Pleural_Effusion\n2.png,Pneumonia\n3.png,\n"
    source = put(tmp_path / "set", table, *(f"{k}.png" for k in range(4)))
    prepared = read(source, class_column="label")
    assert prepared.labels == ("No Finding", "Pleural Effusion", "Pneumonia")
    values = prepared.table[list(prepared.labels)].to_numpy().tolist()
    assert values == [["1", "0", "0"], ["0", "1", "1"], ["0", "0", "1"], ["", "", ""]]
    put(source, "image,label\n0.png,0\n1.png,13\n")
    assert read(source, class_column="1").labels == ("0", "13")


def test_splits_are_drawn_by_patient_and_balanced(tmp_path: Path) -> None:
    lines = [f"{k}.png,{int(k % 20 < 2)},p{k // 2}" for k in range(200)]
    source = put(tmp_path / "set", "\n".join(["image,Edema,person", *lines]), *(f"x/{k}.png" for k in range(200)))
    options = {"patient": "person", "valid_fraction": 0.2, "test_fraction": 0.3}
    table = read(source, balanced="Edema", **options).table
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    ill = table[table["Edema"] == "1"].groupby("split")["patient"].nunique().to_dict()
    assert ill == {"train": 5, "valid": 2, "test": 3}
    assert not read(source, seed=1, **options).table["split"].equals(read(source, **options).table["split"])


def test_zip_files_and_windows_paths(tmp_path: Path) -> None:
    source = put(tmp_path / "set", "image,Edema\n.\\a\\0.png,1\n1.png,0\n", "notes.txt")
    with zipfile.ZipFile(source / "images.zip", "w") as file:
        file.writestr("a/0.png", b"")
        file.writestr("b/1.png", b"")
    assert read(source).table["image"].tolist() == ["images.zip!/a/0.png", "images.zip!/b/1.png"]


def test_repeated_rows_are_counted(tmp_path: Path) -> None:
    source = put(tmp_path / "set", "image,Edema\n0.png,1\n0.png,1\n", "0.png")
    assert read(source).dropped == {"the same row again": 1} and len(read(source).table) == 1


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        ("id,Edema\nx,1\n", {}, "none of 1 rows has its image"),
        ("image,text\n0.png,Clear.\n", {}, "no column holds only 1, 0, -1 and blanks; found: image, text"),
        ("image,Edema\n0.png,1\n", {"class_column": "label"}, "--class-column label: no such column"),
        ("image;Edema\n0.png;1\n", {}, "its separator is ';', not ','"),
        ("image,Edema,edema\n0.png,1,1\n", {}, "'Edema' and 'edema' are both the label 'Edema'"),
    ],
    ids=["images", "labels", "classes", "separator", "twice"],
)
def test_faults_are_one_line(tmp_path: Path, table: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(DataError) as caught:
        read(put(tmp_path / "set", table, "0.png"), **options)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert len(read(put(tmp_path / "other", "image;Edema\n0.png;1\n", "0.png"), separator=";").table) == 1


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    put(folder, TABLE, *IMAGES)
    fill_images(folder)
    return ["--patient=person", "--study=exam", "--view=pos", "--split=fold"]  # images of e1 have labels of their own
