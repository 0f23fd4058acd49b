"""SIIM-ACR Pneumothorax: a header with a space, several masks an image, and a published split that leaks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from downloads import column, fill_images, load, row, write, write_images

from cxrcl.commands import prepare
from cxrcl.data.sources import siim
from cxrcl.errors import DataError

read = partial(prepare.call, siim.read)

HEADER = "ImageId, EncodedPixels\n"
NAMES = [f"1.2.{k}" for k in range(10)]
RLE = (
    "1.2.0, 10 3 20 5\n1.2.0, 90 3 20 5\n1.2.0, 190 3\n"  # three masks
    "1.2.1, -1\n1.2.2,-1\n1.2.3, 5 5\n1.2.4,\n" + "".join(f"1.2.{k}, -1\n" for k in range(5, 10))
)


def build(source: Path) -> Path:
    write(source / "train-rle.csv", HEADER + RLE)
    write_images(source / "dicom-images-train", [f"1.9.{k}/1.8.{k}/{name}.dcm" for k, name in enumerate(NAMES)])
    write_images(source / "dicom-images-test", ["1.9.99/1.8.99/1.2.99.dcm"])
    return source


@pytest.fixture
def download(tmp_path: Path) -> Path:
    return build(tmp_path / "siim")


def gloria(folder: Path, **files: list[str]) -> None:
    for name, ids in files.items():
        write(
            folder / f"{name}.csv", ",ImageId, EncodedPixels,Label,Path\n" + "".join(f"0,{k}, 1 1,1.0,x\n" for k in ids)
        )


def test_an_image_with_several_masks_counts_once(download: Path, tmp_path: Path) -> None:
    prepared = read(download)
    assert len(prepared.table) == 10 and prepared.labels == ("Pneumothorax",)
    first = row(prepared, "1.2.0.dcm")
    assert first["image"] == "dicom-images-train/1.9.0/1.8.0/1.2.0.dcm"
    assert (first["patient"], first["study"], first["view"], first["source"]) == ("1.2.0", "1.2.0", "unknown", "siim")
    assert list(column(prepared, "Pneumothorax").values()) == ["1", "0", "0", "1", "", "0", "0", "0", "0", "0"]
    assert any("12 rows of 10 images" in note for note in prepared.notes)
    assert len(load(prepared, tmp_path / "out")) == 10


def test_a_split_by_image(download: Path) -> None:
    prepared = read(download, valid_fraction=0.2, test_fraction=0.3)
    assert prepared.table["split"].value_counts().to_dict() == {"train": 5, "test": 3, "valid": 2}
    assert prepared.table["split"].tolist() != read(download, seed=1).table["split"].tolist()


def test_an_image_in_several_files_of_gloria_is_left_in_test(download: Path, tmp_path: Path) -> None:
    gloria(download / "lists", train=[*NAMES[:6], "1.2.8"], valid=["1.2.0", "1.2.6", "1.2.8"], test=["1.2.0", "1.2.7"])
    prepared = read(download, split="gloria", lists="lists")
    splits = column(prepared, "split")
    assert [splits[f"1.2.{k}.dcm"] for k in (0, 5, 6, 7, 8)] == ["test", "train", "valid", "test", "valid"]
    assert prepared.dropped == {"images in none of the lists": 1}
    assert any("2 images stand in several" in note for note in prepared.notes)
    load(prepared, tmp_path / "out")
    with pytest.raises(DataError, match=r"no test\.csv: name the folder of GLoRIA's files with --lists"):
        read(download, split="gloria")


def test_the_table_of_stage_2_and_masks_beside_the_images(download: Path) -> None:
    (download / "train-rle.csv").unlink()
    write(download / "stage_2_train.csv", "ImageId,EncodedPixels\n1.2.0,1 2\n1.2.0,-1\n1.2.1,-1\n")
    write_images(download / "png_images", ["1.2.0.png", "1.2.1.png"])
    write_images(download / "png_masks", ["1.2.0.png", "1.2.1.png"])
    with pytest.raises(DataError, match="two images of the same name"):
        read(download)
    prepared = read(download, images="png_images")
    assert column(prepared, "Pneumothorax") == {"1.2.0.png": "1", "1.2.1.png": "0"}
    assert any(note.startswith("1 images have both a mask") for note in prepared.notes)


def test_missing_parts(download: Path) -> None:
    write(download / "train-rle.csv", "ImageId,Pixels\n1.2.0,1\n")
    with pytest.raises(DataError, match="no column EncodedPixels; found: ImageId, Pixels"):
        read(download)
    (download / "train-rle.csv").unlink()
    with pytest.raises(DataError, match=r"no train-rle\.csv"):
        read(download)


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    build(folder)
    fill_images(folder)
    return []
