"""RSNA Pneumonia: several boxes a patient, three classes, and GLoRIA's split."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from downloads import column, fill_images, load, positives, row, write, write_images
from sklearn.model_selection import train_test_split

from cxrcl.commands import prepare
from cxrcl.data.sources import rsna
from cxrcl.errors import DataError

read = partial(prepare.call, rsna.read)

LABELS = "patientId,x,y,width,height,Target\n"
CLASSES = "patientId,class\n"
IDS = [f"p{k:02d}" for k in range(20)]
ILL = ("p03", "p07")


def boxes(patient: str) -> str:
    if patient in ILL:
        return f"{patient},,,,,{int(patient == 'p03')}\n{patient},5.0,6.0,7.0,8.0,1\n"
    return f"{patient},,,,,0\n"


def build(source: Path) -> Path:
    order = list(reversed(IDS))  # the split must not depend on the order of rows
    write(source / "stage_2_train_labels.csv", LABELS + "".join(map(boxes, order)))
    kinds = {
        p: "Lung Opacity" if p in ILL else ("Normal", "No Lung Opacity / Not Normal")[k % 2] for k, p in enumerate(IDS)
    }
    write(source / "stage_2_detailed_class_info.csv", CLASSES + "".join(f"{p},{kinds[p]}\n" * 2 for p in IDS))
    write_images(source / "stage_2_train_images", [f"{name}.dcm" for name in IDS])
    write_images(source / "stage_2_test_images", ["unlabelled.dcm"])
    return source


@pytest.fixture
def download(tmp_path: Path) -> Path:
    return build(tmp_path / "rsna")


def test_a_patient_counts_once(download: Path, tmp_path: Path) -> None:
    prepared = read(download)
    assert len(prepared.table) == 20
    first = row(prepared, "p03.dcm")
    assert (first["image"], first["patient"], first["study"]) == ("stage_2_train_images/p03.dcm", "p03", "p03")
    assert (first["view"], first["source"]) == ("unknown", "rsna")
    assert positives(prepared, "p03.dcm") == ["Lung Opacity", "Pneumonia"]
    assert positives(prepared, "p07.dcm") == ["Lung Opacity", "Pneumonia"], "one row of a patient is enough"
    assert positives(prepared, "p00.dcm") == ["No Finding"]
    assert positives(prepared, "p01.dcm") == [] and positives(prepared, "p01.dcm", "0") == list(prepared.labels)
    assert len(load(prepared, tmp_path / "out")) == 20


@pytest.mark.parametrize("count", [20, 101, 26_684])
def test_the_rule_of_gloria_is_that_of_scikit_learn(count: int) -> None:
    ids = pd.Series([f"p{k:05d}" for k in range(count)])
    train, held_out = train_test_split(ids, test_size=0.3, random_state=0)
    test, valid = train_test_split(held_out, test_size=0.5, random_state=0)
    expected = pd.Series("", index=ids.index)
    expected[train.index], expected[valid.index], expected[test.index] = "train", "valid", "test"
    splits = rsna.gloria_split(ids)
    assert splits.tolist() == expected.tolist()
    if count == 26_684:  # the published sizes
        assert splits.value_counts().to_dict() == {"train": 18_678, "valid": 4_003, "test": 4_003}


def test_the_split_by_rule_is_of_all_patients_whatever_is_downloaded(download: Path) -> None:
    whole = column(read(download), "split")
    assert list(whole.values()) == rsna.gloria_split(pd.Series(IDS)).tolist()
    (download / "stage_2_train_images" / "p00.dcm").unlink()
    part = read(download)
    assert part.dropped == {"no image of that name in the download": 1}
    assert column(part, "split") == {name: split for name, split in whole.items() if name != "p00.dcm"}


def test_the_files_of_gloria(download: Path) -> None:
    for name, ids in {"train": IDS[:10], "val": IDS[10:14], "test": IDS[14:19]}.items():
        rows = "".join(f"{k},{p},[],0,/x/{p}.dcm\n" for k, p in enumerate(ids))
        write(download / "gloria" / f"{name}.csv", ",patientId,bbox,Target,Path\n" + rows)
    prepared = read(download, lists="gloria")
    splits = column(prepared, "split")
    assert (splits["p09.dcm"], splits["p10.dcm"], splits["p14.dcm"]) == ("train", "valid", "test")
    assert prepared.dropped == {"images in none of the lists": 1}
    write(download / "gloria" / "val.csv", "patientId\np00\n")
    with pytest.raises(DataError, match=r"1 patients stand in two of test\.csv, val\.csv, train\.csv"):
        read(download, lists="gloria")
    with pytest.raises(DataError, match="with --lists"):
        read(download, lists="absent")


def test_a_split_of_ones_own(download: Path) -> None:
    prepared = read(download, split="drawn", valid_fraction=0.1, test_fraction=0.3)
    assert prepared.table["split"].value_counts().to_dict() == {"train": 12, "test": 6, "valid": 2}
    other = read(download, split="drawn", valid_fraction=0.1, test_fraction=0.3, seed=1)
    assert not np.array_equal(prepared.table["split"], other.table["split"])


def test_png_images_in_a_folder_of_their_own(download: Path) -> None:
    write_images(download / "png", [f"{name}.png" for name in IDS])
    assert read(download, images="png").table["image"].iloc[0] == "p00.png"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("stage_2_train_labels.csv", LABELS + "p00,,,,,2\n", "Target '2': expected 0 or 1"),
        ("stage_2_detailed_class_info.csv", CLASSES + "p00,Sick\n", "class 'Sick': expected Normal"),
        ("stage_2_detailed_class_info.csv", CLASSES + "p00,Normal\np00,Lung Opacity\n", "1 patients have two classes"),
        ("stage_2_detailed_class_info.csv", CLASSES + "p00,Normal\n", "19 patients of the labels have no class"),
    ],
    ids=["target", "class", "two classes", "no class"],
)
def test_faults_of_the_tables(download: Path, name: str, text: str, said: str) -> None:
    write(download / name, text)
    with pytest.raises(DataError, match=said):
        read(download)


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    build(folder)
    fill_images(folder)
    return []
