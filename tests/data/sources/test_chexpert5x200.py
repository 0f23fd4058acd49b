"""The 5x200 test set: as given, and drawn from CheXpert's training labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from downloads import fill_images, load, write_csv, write_images

from cxrcl.data.labels import CHEXPERT
from cxrcl.data.sources import chexpert, chexpert5x200
from cxrcl.data.sources.base import Prepared
from cxrcl.data.sources.chexpert5x200 import LABELS
from cxrcl.errors import DataError

Row = dict[str, str]


def image(patient: int, study: int = 1, side: str = "frontal", **labels: str) -> Row:
    given = {name.replace("_", " "): value for name, value in labels.items()}
    path = f"CheXpert-v1.0/train/patient{patient:05d}/study{study}/view1_{side}.jpg"
    columns = {"Path": path, "Sex": "Male", "Age": "50", "Frontal/Lateral": side.capitalize(), "AP/PA": "AP"}
    return {**columns, **{name: given.get(name, "") for name in CHEXPERT}}


def only(name: str, first: int, count: int) -> list[Row]:
    return [image(first + k, **{name.replace(" ", "_"): "1.0", "No_Finding": ""}) for k in range(count)]


POOL = [row for k, name in enumerate(LABELS) for row in only(name, 100 * (k + 1), 5)]


def build(folder: Path) -> Path:
    (folder / "train").mkdir(parents=True)
    write_csv(folder / "train.csv", POOL)
    write_csv(folder / "valid.csv", [{**image(1), "Path": "CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg"}])
    return folder


@pytest.fixture
def download(tmp_path: Path) -> Path:
    return build(tmp_path / "CheXpert-v1.0")


def draw(download: Path, rows: list[Row], per_class: int = 3, seed: int = 0) -> Prepared:
    write_csv(download / "train.csv", rows)
    return chexpert5x200.read(download, per_class=per_class, seed=seed)


def test_the_drawn_list_has_each_finding_alone_and_equally_often(download: Path, tmp_path: Path) -> None:
    found = draw(download, POOL)
    data = load(found, tmp_path / "out")
    assert data.labels == LABELS and set(data.rows["split"]) == {"test"} and set(data.rows["view"]) == {"AP"}
    np.testing.assert_array_equal(data.values, np.repeat(np.eye(5), 3, axis=0))
    assert data.rows["patient"].is_unique
    assert data.rows["sex"].tolist() == ["M"] * 15
    assert "not GLoRIA's list" in " ".join(found.notes) and "--exclude-manifest" in found.notes[-1]


@pytest.mark.parametrize(
    "row",
    [
        image(900, side="lateral", Edema="1.0"),
        image(900, Edema="1.0", Atelectasis="1.0"),
        image(900, Edema="1.0", Atelectasis="-1.0"),
        image(900, Edema="1.0", Support_Devices="1.0"),
        image(900, Edema="-1.0"),
    ],
    ids=["lateral", "two findings", "an uncertain one", "a device", "uncertain itself"],
)
def test_images_that_are_no_candidates(download: Path, row: Row) -> None:
    rows = [r for r in POOL if r["Edema"] == ""]
    with pytest.raises(DataError, match="fewer than --per-class 1 images with one finding only: Edema 0"):
        draw(download, [*rows, row], per_class=1)


def test_zero_and_blank_are_both_absent_and_no_finding_is_not_looked_at(download: Path) -> None:
    rows = [r for r in POOL if r["Edema"] == ""]
    found = draw(download, [*rows, image(900, Edema="1.0", Fracture="0.0", No_Finding="0.0")], per_class=1).table
    assert found.loc[found["Edema"] == "1", "patient"].tolist() == ["patient00900"]


def test_a_patient_stands_once_where_there_are_others(download: Path) -> None:
    # Patient 500 has every finding, in studies of its own; the other findings have two patients more.
    again = [image(500, study=k + 2, **{name.replace(" ", "_"): "1.0"}) for k, name in enumerate(LABELS)]
    few = [row for name_rows in (only(n, 100 * k, 2) for k, n in enumerate(LABELS[:4], start=1)) for row in name_rows]
    rows = few + only("Pleural Effusion", 600, 3) + again
    assert all(draw(download, rows, per_class=2, seed=seed).table["patient"].is_unique for seed in range(20))
    found = draw(download, rows, per_class=3).table
    assert len(found) == 15 and found["patient"].value_counts().max() <= 5


def test_the_seed_alone_chooses(download: Path) -> None:
    tables = [draw(download, rows, seed=seed).table for rows, seed in ((POOL, 0), (POOL[::-1], 0), (POOL, 1))]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert set(tables[0]["image"]) != set(tables[2]["image"])


def test_chexpert_can_leave_out_its_patients(download: Path, tmp_path: Path) -> None:
    chosen = set(load(draw(download, [*POOL, *(image(k, 9) for k in (100, 300))]), tmp_path / "out").rows["patient"])
    found = chexpert.read(download, exclude_manifest=str(tmp_path / "out"))
    assert not chosen & set(found.table["patient"]) and len(chosen) == 15
    assert len(found.table) + sum(found.dropped.values()) == len(POOL) + 2 + 1


# ------------------------------------------------------------------------------------------------- GLoRIA's file


def listed(patient: int, name: str, impression: str = "", study: int = 1) -> Row:
    path = f"CheXpert-v1.0/train/patient{patient:05d}/study{study}/view1_frontal.jpg"
    values = {label: "1.0" if label == name else "0.0" for label in reversed(LABELS)}
    return {"": "7", "Path": path, "Report Impression": impression, **values}


@pytest.mark.parametrize(("name", "option"), [("chexpert_5x200.csv", ""), ("my list.csv", "my list.csv")])
def test_the_given_list_is_taken_as_it_is(download: Path, tmp_path: Path, name: str, option: str) -> None:
    text = "1. Edema,\n2. none"
    write_csv(download / name, [listed(7, "Edema", text), listed(7, "Atelectasis", study=2), listed(8, "Edema")])
    found = chexpert5x200.read(download, list_file=option)
    data = load(found, tmp_path / "out")
    assert data.rows["impression"].tolist() == [text, "", ""]
    assert data.rows["patient"].tolist() == ["patient00007", "patient00007", "patient00008"]
    assert data.values.argmax(axis=1).tolist() == [3, 0, 3] and set(data.rows["split"]) == {"test"}
    assert data.rows["view"].tolist() == ["Frontal"] * 3
    assert found.notes[0] == f"list: {name}, as given" and "3 images are of 2 patients" in found.notes[-1]


def test_faults_of_a_given_list(download: Path) -> None:
    with pytest.raises(DataError, match="--list-file"):
        chexpert5x200.read(download, list_file="no.csv")
    write_csv(download / "chexpert5x200.csv", [listed(7, "Edema"), {**listed(8, "Edema"), "Atelectasis": "1"}])
    with pytest.raises(DataError, match="1 rows, first row 3, do not have exactly one"):
        chexpert5x200.read(download)


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    build(folder)
    write_images(folder, [row["Path"].removeprefix("CheXpert-v1.0/") for row in POOL])
    fill_images(folder)
    return ["--per-class=3"]
