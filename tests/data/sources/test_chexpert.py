"""The CheXpert reader on a small tree with the layout of the download."""

from __future__ import annotations

import resource
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from downloads import column, fill_images, load, write_csv, write_images

from cxrcl.commands import prepare
from cxrcl.data.labels import CHEXPERT
from cxrcl.data.sources import chexpert
from cxrcl.data.sources.base import Prepared
from cxrcl.errors import DataError

read = partial(prepare.call, chexpert.read)

NAME = "CheXpert-v1.0-small"


def image(path: str, view: str = "AP", sex: str = "Female", age: str = "61", **labels: str) -> dict[str, str]:
    """A row with the official columns in their order; labels by name with _ for the space."""
    given = {name.replace("_", " "): value for name, value in labels.items()}
    side = "Lateral" if "lateral" in path else "Frontal"
    columns = {"Path": f"{NAME}/{path}", "Sex": sex, "Age": age, "Frontal/Lateral": side, "AP/PA": view}
    return {**columns, **{name: given.get(name, "") for name in CHEXPERT}}


TRAIN = [
    image("train/patient00001/study1/view1_frontal.jpg", "AP", "Male", "0", Pleural_Effusion="1.0", Edema="-1.0"),
    image("train/patient00001/study1/view2_lateral.jpg", "", "Male", "0", Pleural_Effusion="1.0", Edema="-1.0"),
    image("train/patient00001/study2/view1_frontal.jpg", "PA", "Male", "50", No_Finding="1.0", Edema="0.0"),
    image("train/patient00002/study1/view1_frontal.jpg", "LL", "Unknown", "90"),
]
VALID = [image("valid/patient64541/study1/view1_frontal.jpg", "PA", Cardiomegaly="1.0", Edema="0.0")]
LABELS_OF_TEST = ("Edema", *(name for name in CHEXPERT if name != "Edema"))  # another order than in train.csv


def build(folder: Path, train: list[dict[str, str]]) -> Path:
    """`folder` lies above CheXpert-v1.0-small."""
    write_csv(folder / NAME / "train.csv", train)
    write_csv(folder / NAME / "valid.csv", VALID)
    write_images(folder, [row["Path"] for row in train + VALID])
    return folder


@pytest.fixture
def download(tmp_path: Path) -> Path:
    return build(tmp_path / "download", TRAIN)


def add_test_images(download: Path, *names: str) -> None:
    write_images(download / NAME / "test", names)


def test_columns_splits_and_labels(download: Path, tmp_path: Path) -> None:
    data = load(read(download), tmp_path / "out")
    rows = data.rows
    assert rows["patient"].tolist() == ["patient00001"] * 3 + ["patient00002", "patient64541"]
    assert rows["study"].tolist()[1:4] == ["patient00001_study1", "patient00001_study2", "patient00002_study1"]
    assert rows["view"].tolist() == ["AP", "Lateral", "PA", "Frontal", "PA"]
    assert rows["split"].tolist() == ["train"] * 4 + ["valid"]
    assert rows["sex"].tolist() == ["M", "M", "M", "", "F"]
    assert rows["age"].tolist() == ["", "", "50", "90", "61"]
    assert rows["source"].tolist() == ["chexpert"] * 4 + ["chexpert_valid"]
    assert all(Path(path).is_file() for path in rows["path"])
    edema = data.values[:, CHEXPERT.index("Edema")]
    np.testing.assert_array_equal(edema, [-1, -1, 0, np.nan, 0])
    assert data.labels == CHEXPERT and np.isnan(data.values).sum() == 5 * 14 - 8


@pytest.mark.parametrize("prefix", ["", "CheXpert-v1.0/", "/mnt/data/CheXpert-v1.0-small/", "C:\\CheXpert-v1.0\\"])
def test_any_prefix_and_either_folder(download: Path, prefix: str) -> None:
    expected = read(download).table
    for name, rows in (("train.csv", TRAIN), ("valid.csv", VALID)):
        changed = [{**row, "Path": prefix + row["Path"].removeprefix(f"{NAME}/")} for row in rows]
        if "\\" in prefix:
            changed = [{**row, "Path": row["Path"].replace("/", "\\")} for row in changed]
        write_csv(download / NAME / name, changed)
    for source in (download, download / NAME):
        found = read(source)
        assert found.images == download / NAME
        pd.testing.assert_frame_equal(found.table, expected)


def test_tables_may_lie_above_the_images(download: Path) -> None:
    expected = read(download).table
    for name in ("train.csv", "valid.csv"):
        (download / NAME / name).rename(download / name)
    pd.testing.assert_frame_equal(read(download).table, expected)


def test_labels_are_read_by_name(download: Path) -> None:
    expected = read(download).table
    write_csv(download / NAME / "train.csv", [dict(reversed(list(row.items()))) for row in TRAIN])
    pd.testing.assert_frame_equal(read(download).table, expected)


# ------------------------------------------------------------------------------------------------- splits


def many(download: Path, count: int = 40) -> list[dict[str, str]]:
    """`count` patients with two studies each."""
    rows = [image(f"train/patient{k:05d}/study{s}/view1_frontal.jpg") for k in range(count) for s in (1, 2)]
    write_csv(download / NAME / "train.csv", rows)
    return rows


def test_the_official_valid_set_as_test_and_valid_patients_from_train(download: Path, tmp_path: Path) -> None:
    many(download)
    found = read(download, official_valid_as="test", valid_fraction=0.25)
    patients = load(found, tmp_path / "out").rows.groupby("split")["patient"].nunique()
    assert patients.to_dict() == {"train": 30, "valid": 10, "test": 1}
    assert column(found, "split", "source")["chexpert_valid"] == "test"
    again = read(download, official_valid_as="test", valid_fraction=0.25, seed=1)
    assert again.table["split"].tolist() != found.table["split"].tolist()


def test_labels_by_radiologists_and_by_the_labeler_are_not_mixed(download: Path) -> None:
    with pytest.raises(DataError, match="--official-valid-as test"):
        read(download, valid_fraction=0.1)
    with pytest.raises(DataError, match="together less than 1"):
        read(download, official_valid_as="test", valid_fraction=1.0)


def test_patients_of_another_manifest_are_left_out(download: Path, tmp_path: Path) -> None:
    rows = [{"image": "images/x.jpg", "patient": "patient00001", "study": "s", "view": "AP", "split": "test"}]
    file = write_csv(tmp_path / "5x200" / "manifest.csv", rows)
    for given in (file, file.parent):
        found = read(download, exclude_manifest=str(given))
        assert found.table["patient"].tolist() == ["patient00002", "patient64541"]
        assert list(found.dropped.values()) == [3]
    write_csv(file, [{**rows[0], "patient": "1"}])
    with pytest.raises(DataError, match="none of its patients"):
        read(download, exclude_manifest=str(file))


def test_excluded_patients_do_not_become_valid(download: Path, tmp_path: Path) -> None:
    many(download)
    gone = [{"patient": f"patient{k:05d}"} for k in range(20)]
    file = write_csv(tmp_path / "manifest.csv", gone)
    found = read(download, official_valid_as="test", valid_fraction=0.5, exclude_manifest=str(file)).table
    assert found.groupby("split")["patient"].nunique().to_dict() == {"train": 10, "valid": 10, "test": 1}


def test_rows_that_stand_twice_are_counted(download: Path) -> None:
    write_csv(download / NAME / "train.csv", [*TRAIN, TRAIN[0]])
    found = read(download)
    assert len(found.table) == 5 and found.dropped == {"rows that stand twice": 1}


# ------------------------------------------------------------------------------------------------- official test set


def groundtruth(*studies: str, **ones: str) -> list[dict[str, str]]:
    return [
        {"Study": f"CheXpert-v1.0/test/{study}", **{n: str(int(ones.get(study[:12]) == n)) for n in LABELS_OF_TEST}}
        for study in studies
    ]


def test_groundtruth_is_joined_by_study_and_not_by_order(download: Path, tmp_path: Path) -> None:
    studies = ("patient64743/study1", "patient64741/study1", "patient64742/study1")
    truth = groundtruth(*studies, patient64741="Edema", patient64743="Fracture")
    write_csv(download / NAME / "groundtruth.csv", truth)
    add_test_images(download, "patient64741/study1/view1_frontal.jpg", "patient64741/study1/view2_lateral.jpg")
    add_test_images(download, "patient64743/study1/view1_frontal.jpg")
    found = read(download)
    data = load(found, tmp_path / "out").split("test")
    ones = {row["patient"]: data.labels[int(np.argmax(v))] for (_, row), v in zip(data.rows.iterrows(), data.values)}
    assert ones == {"patient64741": "Edema", "patient64743": "Fracture"}
    assert found.dropped == {"official test studies without a view1 image": 1}
    assert set(data.rows["view"]) == {"Frontal"} and set(data.rows["source"]) == {"chexpert_test"}


def test_test_csv_names_every_view(download: Path, tmp_path: Path) -> None:
    zeros = dict.fromkeys(LABELS_OF_TEST, "0")
    paths = [f"CheXpert-v1.0/test/patient64741/study1/view{k}.jpg" for k in ("1_frontal", "2_lateral")]
    write_csv(download / "test_labels.csv", [{"Path": path, **zeros, "Edema": "1"} for path in paths])
    data = load(read(download, official_valid_as="test"), tmp_path / "out").split("test")
    assert data.rows["view"].tolist() == ["PA", "Frontal", "Lateral"]
    assert data.rows["source"].tolist() == ["chexpert_valid", "chexpert_test", "chexpert_test"]


def test_labels_of_the_test_set_without_its_images(download: Path) -> None:
    write_csv(download / NAME / "groundtruth.csv", groundtruth("patient64741/study1"))
    with pytest.raises(DataError, match=r"no images for groundtruth.csv"):
        read(download)


# ------------------------------------------------------------------------------------------------- faults


def test_missing_parts(download: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither train/ nor valid/"):
        read(tmp_path)
    (download / "CheXpert-v1.0" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="give one of them"):
        read(download)
    (download / NAME / "valid.csv").unlink()
    with pytest.raises(DataError, match=r"valid.csv: not found"):
        read(download / NAME)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Path": "a/b.jpg"}, r"Path in 1 rows, first in row 2.*view1_frontal.jpg"),
        ({"Edema": "2.0"}, "'Edema' is '2.0'"),
        ({"Fracture": None}, "no column Fracture"),
    ],
)
def test_faults_of_a_table(download: Path, change: dict[str, Any], said: str) -> None:
    row = {k: v for k, v in {**TRAIN[0], **change}.items() if v is not None}
    write_csv(download / NAME / "train.csv", [row])
    with pytest.raises(DataError, match=said):
        read(download)


# ------------------------------------------------------------------------------------------------- full size


def full_size(folder: Path, count: int = 223_414, patients: int = 64_540) -> None:
    rng = np.random.default_rng(0)
    patient = np.sort(rng.integers(1, patients + 1, count))
    table = {"Path": [f"{NAME}/train/patient{p:05d}/study1/view{k}_frontal.jpg" for k, p in enumerate(patient)]}
    table |= {"Sex": rng.choice(["Male", "Female"], count), "Age": rng.integers(18, 91, count)}
    table |= {"Frontal/Lateral": np.full(count, "Frontal"), "AP/PA": rng.choice(["AP", "PA"], count)}
    table |= {name: rng.choice(["1.0", "0.0", "-1.0", ""], count, p=(0.1, 0.1, 0.1, 0.7)) for name in CHEXPERT}
    pd.DataFrame(table).to_csv(folder / "train.csv", index=False)


@pytest.mark.slow
def test_full_size_takes_seconds_and_little_memory(download: Path) -> None:
    full_size(download / NAME)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    found: Prepared = read(download, official_valid_as="test", valid_fraction=0.05)
    seconds, kilobytes = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(found.table) == 223_415 and seconds < 10 and kilobytes < 1e6


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    more = [image(f"train/patient{k:05d}/study1/view1_frontal.jpg", Edema=("1.0", "0.0")[k % 2]) for k in range(10, 16)]
    build(folder, TRAIN + more)
    truth = groundtruth("patient64741/study1", "patient64742/study1", patient64741="Edema")
    write_csv(folder / NAME / "groundtruth.csv", truth)
    add_test_images(folder, *(f"patient6474{k}/study1/view1_frontal.jpg" for k in (1, 2)))
    fill_images(folder)
    return []
