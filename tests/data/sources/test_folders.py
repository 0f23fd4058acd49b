"""A folder of images for each class."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path

import pytest
from downloads import fill_images, load

from cxrcl.commands import prepare
from cxrcl.data.sources import folders
from cxrcl.errors import DataError

read = partial(prepare.call, folders.read)

# The layout and the traps of Kermany's set: val is tiny, the numbers of persons start again for each kind of pneumonia
# and for NORMAL2-IM, the archive holds a second copy and resource files of macOS.
KERMANY = [
    "train/NORMAL/IM-0129-0001.jpeg",
    "train/NORMAL/IM-0429-0001.jpeg",
    "train/NORMAL/IM-0429-0001-0001.jpeg",
    "train/PNEUMONIA/person1_bacteria_1.jpeg",
    "train/PNEUMONIA/person1_bacteria_2.jpeg",
    "train/PNEUMONIA/person1000_virus_1681.jpeg",
    "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
    "val/PNEUMONIA/person1946_bacteria_4874.jpeg",
    "test/NORMAL/NORMAL2-IM-0129-0001.jpeg",
    "test/PNEUMONIA/person1_virus_6.jpeg",
    "test/PNEUMONIA/person1_virus_7.jpeg",
    "test/PNEUMONIA/person10_virus_35.jpeg",
]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_kermanys_set(tmp_path: Path) -> None:
    source = touch(tmp_path / "set", *KERMANY, "train/.DS_Store", "__MACOSX/train/NORMAL/._IM-0129-0001.jpeg")
    prepared = read(source)
    data = load(prepared, tmp_path / "out")
    assert data.labels == ("No Finding", "Pneumonia") and data.stated.sum(axis=1).tolist() == [1.0] * 12
    rows = data.rows.set_index(data.rows["image"].str.removeprefix("images/"))
    assert rows.index.tolist() == sorted(KERMANY)
    assert rows["split"].value_counts().to_dict() == {"train": 6, "test": 4, "valid": 2}
    patients = rows["patient"]
    assert patients["train/PNEUMONIA/person1_bacteria_1.jpeg"] == "person1_bacteria"
    assert patients["test/PNEUMONIA/person1_virus_7.jpeg"] == "person1_virus"
    assert patients["train/NORMAL/IM-0429-0001-0001.jpeg"] == patients["train/NORMAL/IM-0429-0001.jpeg"] == "IM-0429"
    assert patients["test/NORMAL/NORMAL2-IM-0129-0001.jpeg"] == "NORMAL2-IM-0129" and patients.nunique() == 9
    assert rows["study"].is_unique and set(rows["view"]) == {"unknown"}
    assert prepared.dropped == {} and "Labels: NORMAL is No Finding, PNEUMONIA is Pneumonia." in prepared.notes


def test_stray_copies_beside_the_splits_are_counted(tmp_path: Path) -> None:
    copies = [f"chest_xray/{name}" for name in KERMANY]
    prepared = read(touch(tmp_path / "set", *KERMANY, *copies, "test/scan.jpeg"))
    assert prepared.table["image"].tolist() == sorted(KERMANY)
    outside = "image outside of the folders train, valid and test"
    assert prepared.dropped == {outside: 12, "image in no class folder": 1}


@pytest.mark.parametrize("around", ["chest_xray", "a/b"])
def test_folders_around_the_set_are_looked_through(tmp_path: Path, around: str) -> None:
    source = touch(tmp_path / "set", *(f"{around}/{name}" for name in KERMANY))
    assert read(source).table["split"].tolist() == read(source / around).table["split"].tolist()
    assert read(source).labels == ("No Finding", "Pneumonia")


def test_a_zip_file_is_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with zipfile.ZipFile(tmp_path / "set" / "archive.zip", "w") as file:
        for name in KERMANY:
            file.writestr(f"chest_xray/{name}", b"")
    table = read(tmp_path / "set").table
    assert table["image"].tolist()[0] == "archive.zip!/chest_xray/test/NORMAL/NORMAL2-IM-0129-0001.jpeg"
    assert table["split"].value_counts().to_dict() == {"train": 6, "test": 4, "valid": 2}


def test_a_single_split_folder_is_still_a_split(tmp_path: Path) -> None:
    source = touch(tmp_path / "set", "test/NORMAL/0.png", "test/PNEUMONIA/1.png")
    assert set(read(source).table["split"]) == {"test"}


@pytest.mark.parametrize("words", [("Training", "Validation", "Testing"), ("train", "valid", "test")])
def test_splits_spelled_otherwise(tmp_path: Path, words: tuple[str, ...]) -> None:
    source = touch(tmp_path / "set", *(f"{word}/{label}/{word}.png" for word in words for label in ("a", "b")))
    assert sorted(read(source, patient_pattern="none").table["split"].unique()) == ["test", "train", "valid"]


def classes(tmp_path: Path) -> Path:
    """Three classes, one of them rare, in 100 persons of two images."""
    images = [f"{'COVID' if k % 20 == 0 else 'Normal'}/person{k}_virus_{n}.png" for k in range(80) for n in range(2)]
    images += [f"Lung_Opacity/images/IM-{k:04d}-{n}.png" for k in range(20) for n in range(2)]
    masks = [name.replace("images", "masks") for name in images[-40:]]
    return touch(tmp_path / "set", *images, *masks, "readme.png")


def test_splits_are_drawn_by_patient_and_balanced_over_classes(tmp_path: Path) -> None:
    prepared = read(classes(tmp_path), valid_fraction=0.25, test_fraction=0.25)
    table = prepared.table
    assert prepared.labels == ("COVID", "Lung Opacity", "No Finding")
    assert prepared.dropped == {"segmentation mask": 40, "image in no class folder": 1} and len(table) == 200
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    persons = table[table["COVID"] == "1"].groupby("split")["patient"].nunique()
    assert persons.to_dict() == {"train": 2, "valid": 1, "test": 1}
    assert any("drawn by patient" in note and "balanced by class" in note for note in prepared.notes)
    assert not read(tmp_path / "set", seed=1).table["split"].equals(read(tmp_path / "set").table["split"])


def test_splits_of_folders_can_be_drawn_anew_or_completed(tmp_path: Path) -> None:
    source = touch(tmp_path / "set", *KERMANY)
    drawn = read(source, splits="drawn", valid_fraction=0.3, test_fraction=0.3).table
    assert not drawn["split"].equals(read(source).table["split"])
    assert drawn.groupby("patient")["split"].first().value_counts().to_dict() == {"train": 4, "valid": 2, "test": 3}
    for name in KERMANY[6:8]:
        (source / name).unlink()
    completed = read(source, valid_fraction=0.25).table
    assert completed[completed["image"].str.startswith("test")]["split"].eq("test").all()
    assert completed.groupby("patient")["split"].first().value_counts().to_dict() == {"train": 3, "test": 3, "valid": 1}


def test_names_of_nih_and_patterns_of_your_own(tmp_path: Path) -> None:
    source = touch(tmp_path / "set", "train/A/00000013_005.png", "train/B/00000013_026.png", "train/B/x-7-1.png")
    assert read(source).table["patient"].tolist() == ["00000013", "00000013", "train/B/x-7-1"]
    assert any("; 1 images without it" in note for note in read(source).notes)
    assert read(source, patient_pattern=r"(\d+)[_-]\d+\.").table["patient"].tolist() == ["00000013", "00000013", "7"]
    assert read(source, patient_pattern=r"x-\d").table["patient"].tolist()[2] == "x-7"
    assert read(source, patient_pattern="none").table["patient"].nunique() == 3
    with pytest.raises(DataError, match=r"found in no file name, such as 00000013_005.png"):
        read(source, patient_pattern="case")
    with pytest.raises(DataError, match="not a regular expression"):
        read(source, patient_pattern="(")


@pytest.mark.parametrize("names", [["0.png"], ["NORMAL/0.png", "NORMAL/1.png"], ["train/A/0.png", "test/A/1.png"]])
def test_one_class_is_an_error(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(DataError, match="expected one folder for each class"):
        read(touch(tmp_path / "set", *names))


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    touch(folder, *KERMANY)
    fill_images(folder)
    return []
