"""PadChest: lists in cells, Spanish reports, ages from two columns, images in folders and zip files."""

from __future__ import annotations

import csv
import gzip
import io
from functools import partial
from pathlib import Path

import pytest
from downloads import column, fill_images, load, positives, row, write_images, write_zip

from cxrcl.commands import prepare
from cxrcl.data.sources import padchest
from cxrcl.errors import DataError

read = partial(prepare.call, padchest.read)

NAME = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
BAD = padchest.BAD_IMAGES[0]


def image(name: str, patient: str, labels: str, **changes: str) -> dict[str, str]:
    return {
        **{"": "7", "ImageID": name, "ImageDir": "0", "StudyDate_DICOM": "20140915", "StudyID": f"s{patient}"},
        **{"PatientID": patient, "PatientBirth": "1930.0", "PatientSex_DICOM": "M", "Projection": "PA"},
        **{"MethodLabel": "Physician", "Report": "cardiomegali . sin hallazg", "Labels": labels, **changes},
    }


ROWS = [
    image(
        "a.png", "p1", "['pleural effusion', ' cardiomegaly', 'scoliosis']", Report="derram pleural ,\n cardiomegali ."
    ),
    image("b.png", "p1", "['pleural effusion', ' cardiomegaly', 'scoliosis']", Projection="L"),
    image("c.png", "p2", "['normal']", MethodLabel="RNN_model", Projection="AP_horizontal", PatientBirth="unknown"),
    image(
        "d.png", "p3", "['laminar atelectasis', 'laminar atelectasis', 'scoliosis', 'COPD signs']", PatientBirth="1880"
    ),
    image("e.png", "p4", "", Projection="", Report="nan"),
    image("f.png", "p5", "['']", Projection="COSTAL"),
    image("g.png", "p6", "['unchanged']"),
    image("h.png", "p7", "['exclude']"),
    image("i.png", "p8", "['normal']", Projection="EXCLUDE"),
    image("a.png", "p1", "['normal']"),
    image(BAD, "p9", "['normal']"),
    image("k.png", "", "['normal']"),
    image("l.png", "p10", "['hydropneumothorax', 'rib fracture', 'atypical pneumonia', 'nsg tube']"),
    image("m.png", "p11", "['normal']"),
]


def save(source: Path, rows: list[dict[str, str]], packed: bool = False) -> None:
    source.mkdir(parents=True, exist_ok=True)
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    content = file.getvalue().encode("utf-8")
    if packed:
        (source / f"{NAME}.gz").write_bytes(gzip.compress(content))
    else:
        (source / NAME).write_bytes(content)


def build(source: Path) -> Path:
    save(source, ROWS)
    write_images(source / "0", ["a.png", "b.png", "c.png", BAD])
    write_zip(source / "1.zip", ["d.png", "e.png", "f.png", "g.png", "h.png", "i.png"])
    write_zip(source / "54.zip", ["54/l.png", "54/k.png"])
    return source


@pytest.fixture
def download(tmp_path: Path) -> Path:
    return build(tmp_path / "padchest")


def test_an_image(download: Path, tmp_path: Path) -> None:
    prepared = read(download)
    first = row(prepared, "a.png")
    assert (first["image"], first["patient"], first["study"], first["view"]) == ("0/a.png", "p1", "sp1", "PA")
    assert (first["sex"], first["age"], first["source"]) == ("M", "84", "padchest")
    assert first["findings"] == "derram pleural , cardiomegali ."
    assert positives(prepared, "a.png") == ["Cardiomegaly", "Pleural Effusion", "Scoliosis"]
    assert len(load(prepared, tmp_path / "out")) == 8


def test_images_may_stay_in_their_zip_files(download: Path) -> None:
    places = set(read(download).table["image"])
    assert {"1.zip!/d.png", "54.zip!/54/l.png"} <= places


def test_what_is_left_out(download: Path) -> None:
    assert read(download).dropped == {
        "images without patient or study": 1,
        "images that stand twice in the table": 1,
        "images known to be damaged in the archive": 1,
        "images that are no chest images (Projection EXCLUDE)": 1,
        "reports labelled exclude": 1,
        "no image of that name in the download": 1,
    }


def test_views_ages_and_missing_reports(download: Path) -> None:
    prepared = read(download)
    views = column(prepared, "view")
    assert [views[f"{k}.png"] for k in "abcef"] == ["PA", "Lateral", "AP_horizontal", "unknown", "COSTAL"]
    ages = column(prepared, "age")
    assert (ages["c.png"], ages["d.png"]) == ("", "")
    assert row(prepared, "e.png")["findings"] == ""


def test_labels(download: Path) -> None:
    prepared = read(download)
    assert positives(prepared, "c.png") == ["No Finding"]
    assert positives(prepared, "d.png") == ["Atelectasis", "Scoliosis", "COPD Signs", "Laminar Atelectasis"]
    assert positives(prepared, "l.png")[:4] == ["Pneumonia", "Pneumothorax", "Pleural Effusion", "Fracture"]
    for name in ("e.png", "f.png", "g.png"):  # no list, an empty one, and one that tells nothing of the image
        assert positives(prepared, name, "") == list(prepared.labels)
    assert not {"Unchanged", "unchanged", "exclude", "Normal", "Cardiomegaly "} & set(prepared.labels)


def test_the_most_frequent_others(download: Path) -> None:
    chexpert = read(download, top_labels=0).labels
    assert chexpert == tuple(name for name in padchest.CHEXPERT if name in padchest.TERMS)
    assert read(download, top_labels=3).labels == (*(*chexpert, "Scoliosis", "Atypical Pneumonia", "COPD Signs"),)
    with pytest.raises(DataError, match="--top-labels -1: expected 0 or more"):
        read(download, top_labels=-1)


def test_physicians_only(download: Path) -> None:
    prepared = read(download, physician_only=True)
    assert prepared.dropped["reports that no physician labelled"] == 1
    assert "c.png" not in column(prepared, "view") and len(prepared.table) == 7
    whole = column(read(download), "split")
    assert all(whole[name] == split for name, split in column(prepared, "split").items())


def test_a_packed_table_and_a_resized_copy(download: Path) -> None:
    plain = read(download).table
    (download / NAME).unlink()
    save(download, ROWS, packed=True)
    assert read(download).table.equals(plain)
    write_images(download / "images-224", ["a.png", "b.png", "m.png"])
    prepared = read(download, images="images-224")
    assert sorted(prepared.table["image"]) == ["a.png", "b.png", "m.png"]


def test_splits_are_drawn_by_patient(tmp_path: Path) -> None:
    rows = [image(f"{k}.png", f"p{k % 20}", "['normal']") for k in range(60)]
    save(tmp_path, rows)
    write_images(tmp_path / "0", [row["ImageID"] for row in rows])
    table = read(tmp_path, valid_fraction=0.2, test_fraction=0.3).table
    assert table["split"].value_counts().to_dict() == {"train": 30, "test": 18, "valid": 12}
    assert table.groupby("patient")["split"].nunique().max() == 1
    assert (
        table["split"].tolist() != read(tmp_path, valid_fraction=0.2, test_fraction=0.3, seed=1).table["split"].tolist()
    )


@pytest.mark.parametrize("cell", ["['normal'", "normal", "__import__('os').getcwd()", "[1]", "{'normal': 1}"])
def test_a_cell_that_is_no_list_of_words(tmp_path: Path, cell: str) -> None:
    save(tmp_path, [image("a.png", "p1", "['normal']"), image("b.png", "p2", cell)])
    write_images(tmp_path, ["a.png", "b.png"])
    with pytest.raises(DataError, match=r"Labels .*: expected a list such as"):
        read(tmp_path)


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    build(folder)
    save(folder, [{**row, "Report": f"inform {k} ."} for k, row in enumerate(ROWS)])
    fill_images(folder, bits=16)
    return ["--valid-fraction=0.2", "--test-fraction=0.2"]
