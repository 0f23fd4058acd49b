"""VinDr-CXR: votes of radiologists, and a table of test that spells a column otherwise."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from downloads import column, fill_images, load, positives, row, write, write_images

from cxrcl.commands import prepare
from cxrcl.data.sources import vindr
from cxrcl.errors import DataError

read = partial(prepare.call, vindr.read)

TRAIN = "image_id,rad_id,Cardiomegaly,Pleural effusion,Nodule/Mass,Other diseases,No finding\n"
TEST = "image_id,Cardiomegaly,Pleural effusion,Nodule/Mass,Other disease,No finding\n"
READINGS = [
    "aa,R1,1,1,0,0,0",
    "bb,R9,0,0,0,0,1",  # the rows of an image do not stand together
    "aa,R2,1,0,0,0,0",
    "aa,R3,1,0,0,0,0",
    "bb,R1,1,0,0,0,0",
    "bb,R2,0,0,,0,1",
    "cc,R1,1.0,0,0,1.0,0",
    "cc,R2,1.0,0,0,0.0,0",
    "cc,R3,0.0,0,0,1.0,0",
]


def build(source: Path) -> Path:
    write(source / "annotations" / "image_labels_train.csv", TRAIN + "\n".join(READINGS) + "\n")
    write(source / "annotations" / "image_labels_test.csv", TEST + "dd,0,1,0,1,0\nee,0,0,0,0,1\n")
    write_images(source / "train", ["aa.dicom", "bb.dicom", "cc.dicom"])
    write_images(source / "test", ["dd.dicom", "ee.dicom"])
    return source


@pytest.fixture
def download(tmp_path: Path) -> Path:
    return build(tmp_path / "vindr-cxr" / "1.0.0")


def test_an_image(download: Path, tmp_path: Path) -> None:
    prepared = read(download, valid_fraction=0)
    assert prepared.labels == ("Cardiomegaly", "Pleural Effusion", "Nodule/Mass", "Other diseases", "No Finding")
    first = row(prepared, "aa.dicom")
    assert (first["image"], first["patient"], first["study"]) == ("train/aa.dicom", "aa", "aa")
    assert (first["view"], first["split"], first["source"]) == ("PA", "train", "vindr")
    assert column(prepared, "split")["dd.dicom"] == "test"
    assert len(load(prepared, tmp_path / "out")) == 5


@pytest.mark.parametrize(
    ("vote", "aa", "bb", "cc"),
    [
        ("any", ["Cardiomegaly", "Pleural Effusion"], ["Cardiomegaly"], ["Cardiomegaly", "Other diseases"]),
        ("majority", ["Cardiomegaly"], ["No Finding"], ["Cardiomegaly", "Other diseases"]),
        ("all", ["Cardiomegaly"], [], []),
    ],
)
def test_votes(download: Path, vote: Literal["any", "majority", "all"], aa: Any, bb: Any, cc: Any) -> None:
    prepared = read(download, vote=vote)
    assert [positives(prepared, f"{image}.dicom") for image in ("aa", "bb", "cc")] == [aa, bb, cc]
    assert positives(prepared, "dd.dicom") == ["Pleural Effusion", "Other diseases"]
    assert any(f"when {vote} of" in note for note in prepared.notes)


def test_half_of_the_radiologists_are_no_majority(download: Path) -> None:
    write(download / "annotations" / "image_labels_train.csv", TRAIN + "aa,R1,1,0,,0,0\naa,R2,0,0,,0,0\n")
    prepared = read(download)
    assert positives(prepared, "aa.dicom") == []
    assert row(prepared, "aa.dicom")["Nodule/Mass"] == "", "no radiologist filled the cell"


def test_valid_is_drawn_from_train(download: Path) -> None:
    splits = column(read(download, valid_fraction=0.34), "split")
    assert sorted(splits.values()) == ["test", "test", "train", "train", "valid"]
    assert splits["dd.dicom"] == splits["ee.dicom"] == "test"
    assert len({tuple(read(download, valid_fraction=0.34, seed=seed).table["split"]) for seed in range(8)}) > 1


def test_doubled_readings_count_once(download: Path) -> None:
    twice = [*READINGS, READINGS[0], READINGS[0], READINGS[0]]
    write(download / "annotations" / "image_labels_train.csv", TRAIN + "\n".join(twice) + "\n")
    prepared = read(download)
    assert prepared.dropped == {"readings that stand twice (train)": 3}
    assert positives(prepared, "aa.dicom") == ["Cardiomegaly"]


def test_images_as_png_elsewhere(download: Path) -> None:
    write_images(download / "png", [f"{name}.png" for name in ("aa", "bb", "dd")])
    prepared = read(download, images="png")
    assert sorted(prepared.table["image"]) == ["aa.png", "bb.png", "dd.png"]
    assert prepared.images == download / "png" and prepared.dropped == {"no image of that name in the download": 2}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("train", TRAIN + "aa,R1,2,0,0,0,0\n", "Cardiomegaly is '2': expected 0, 1 or blank"),
        ("test", TEST.replace("Cardiomegaly", "Heart") + "dd,0,0,0,0,0\n", "differ in the columns Cardiomegaly, Heart"),
        ("test", TEST + "aa,0,0,0,0,0\n", "1 images stand in train and in test"),
    ],
    ids=["value", "columns", "shared image"],
)
def test_faults_of_the_tables(download: Path, name: str, text: str, said: str) -> None:
    write(download / "annotations" / f"image_labels_{name}.csv", text)
    with pytest.raises(DataError, match=said):
        read(download)


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    build(folder)
    fill_images(folder, bits=12)
    return []
