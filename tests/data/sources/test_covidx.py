"""COVIDx: lists of lines, two or three classes, names that differ in the suffix only, patients in two lists."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from downloads import column, fill_images, load, positives, row, write, write_images

from cxrcl.commands import prepare
from cxrcl.data.sources import covidx
from cxrcl.errors import DataError

read = partial(prepare.call, covidx.read)

TRAIN = [
    "3 SARS-fig8a day0.jpeg pneumonia cohen",  # a space in the name
    "3 SARS-fig8b.jpeg pneumonia cohen",
    "396 000004.jpg COVID-19 cohen",
    "409 000004.png COVID-19 cohen",
    "3 third.png normal rsna",  # another patient than cohen's 3
    "77 leaked.png normal rsna",
    "78 leaked-too.JPG COVID-19 rsna",
    "396 000004.jpg COVID-19 cohen",
    "5 unsure.png normal rsna",
    "5 unsure.png pneumonia rsna",
]
TEST = ["77 tested.png normal rsna", "", "78 tested-too.png COVID-19 rsna"]


def make(source: Path, suffix: str = "", **lists: list[str]) -> Path:
    for name, lines in lists.items():
        write(source / f"{name}{suffix}.txt", "\n".join(lines) + "\n")
        images = [line.split(" ", 1)[1].rsplit(" ", 2)[0] for line in lines if line]
        write_images(source / name, images)
    return source


@pytest.fixture
def download(tmp_path: Path) -> Path:
    return make(tmp_path / "covidx", train=TRAIN, test=TEST)


def test_three_classes(download: Path, tmp_path: Path) -> None:
    prepared = read(download, valid_fraction=0)
    assert prepared.labels == ("No Finding", "Non-COVID Pneumonia", "COVID-19")
    first = row(prepared, "SARS-fig8a day0.jpeg")
    assert first["image"] == "train/SARS-fig8a day0.jpeg" and first["patient"] == "cohen-3"
    assert (first["view"], first["split"], first["source"]) == ("unknown", "train", "covidx")
    assert positives(prepared, "SARS-fig8b.jpeg") == ["Non-COVID Pneumonia"]
    assert positives(prepared, "000004.jpg") == ["COVID-19"]
    assert positives(prepared, "000004.jpg", "0") == ["No Finding", "Non-COVID Pneumonia"]
    assert positives(prepared, "third.png") == ["No Finding"] and row(prepared, "third.png")["patient"] == "rsna-3"
    assert "class" not in prepared.table and "name" not in prepared.table
    load(prepared, tmp_path / "out")


def test_a_suffix_tells_images_apart(download: Path) -> None:
    patients = column(read(download), "patient")
    assert (patients["000004.jpg"], patients["000004.png"]) == ("cohen-396", "cohen-409")


def test_what_is_left_out(download: Path) -> None:
    (download / "train" / "third.png").unlink()
    prepared = read(download)
    assert prepared.dropped == {
        "lines that stand twice": 1,
        "images with two patients or classes": 2,
        "images of train whose patient is in test or valid too": 2,
        "no image of that name in the download": 1,
    }
    assert sorted(column(prepared, "split")) == [
        *("000004.jpg", "000004.png", "SARS-fig8a day0.jpeg", "SARS-fig8b.jpeg", "tested-too.png", "tested.png"),
    ]


def test_two_classes_and_a_list_for_valid(tmp_path: Path) -> None:
    source = make(
        tmp_path,
        train=["1 a.png positive bimcv", "2 b.png negative rsna", "3 shared.png negative rsna"],
        val=["3 c.png positive rsna"],
        test=["4 d.png negative bimcv"],
    )
    prepared = read(source, valid_fraction=0.9)
    assert prepared.labels == ("COVID-19",)
    assert column(prepared, "COVID-19") == {"a.png": "1", "b.png": "0", "c.png": "1", "d.png": "0"}
    assert column(prepared, "split") == {"a.png": "train", "b.png": "train", "c.png": "valid", "d.png": "test"}
    assert prepared.table["image"].tolist()[2] == "val/c.png"


def test_valid_is_drawn_by_patient(tmp_path: Path) -> None:
    train = [f"{k % 10} f{k}.png positive bimcv" for k in range(40)]
    source = make(tmp_path, train=train, test=["99 t.png negative rsna"])
    table = read(source, valid_fraction=0.2).table
    assert table["split"].value_counts().to_dict() == {"train": 32, "valid": 8, "test": 1}
    assert table.groupby("patient")["split"].nunique().max() == 1
    assert table["split"].tolist() != read(source, valid_fraction=0.2, seed=1).table["split"].tolist()


def test_other_releases(tmp_path: Path) -> None:
    lines = {"train": ["1 a.png normal"], "test": ["2 b.png pneumonia"]}  # early lists name no collection
    make(tmp_path / "images", "_COVIDx2", **{k: [f"{line} none" for line in v] for k, v in lines.items()})
    for name, text in lines.items():
        write(tmp_path / f"{name}_COVIDx2.txt", "\n".join(text))
    with pytest.raises(DataError, match=r"train\.txt: not found; lists there: train_COVIDx2\.txt: .* --version"):
        read(tmp_path)
    prepared = read(tmp_path, version="_COVIDx2", images="images")
    assert column(prepared, "patient") == {"a.png": "1", "b.png": "2"}
    assert prepared.images == tmp_path / "images"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 a.png level2 ricord", r"line 2: '1 a\.png level2 ricord': expected `patient filename"),
        ("a.png", r"line 2: 'a\.png': expected"),
        ("1 a.png positive rsna", "lists of two and of three classes"),
    ],
    ids=["class", "words", "mixed"],
)
def test_faults_of_the_lists(download: Path, line: str, said: str) -> None:
    write_images(download / "train", ["a.png", "third.png"])
    write(download / "train.txt", f"3 third.png normal rsna\n{line}\n")
    with pytest.raises(DataError, match=said):
        read(download)


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    make(folder, train=TRAIN, test=TEST)
    fill_images(folder)
    return []
