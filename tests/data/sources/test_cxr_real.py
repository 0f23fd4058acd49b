"""The mixed collection with labels.csv and reports.csv, on a small folder with the layout of the download."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from downloads import fill_images, load, write_images

from cxrcl.data.sources import cxr_real
from cxrcl.data.sources.draw import HeldOut
from cxrcl.errors import DataError

NOTE = "Known pneumothorax on the left."


def images() -> list[dict[str, str]]:
    base = {"license": "x", "attribution": "y", **dict.fromkeys(cxr_real.LABELS, "")}
    common = {"patient_id": "007", "study_id": "007_a", "source": "iu", "split": "train"}
    return [
        {"path": "images/iu/a.png", "view": "PA", **base, **common, "Edema": "1", "Fracture": "0", "COVID-19": "-1"},
        {"path": "images/iu/b.png", "view": "Lateral", **base, **common},
        {
            **base,
            **common,
            **{"path": "images/nih/c.png", "patient_id": "8", "study_id": "8_a"},
            **{"view": "AP", "split": "test", "source": "nih"},
        },
    ]


def reports() -> list[dict[str, str]]:
    paths = "images/iu/a.png; images/iu/b.png"
    return [{"image_paths": paths, "findings": "Heart large.", "impression": "Edema.", "clinical_note": NOTE}]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def build(folder: Path, labels: list[dict[str, str]] | None = None, texts: list[dict[str, str]] | None = None) -> Path:
    (folder / "images").mkdir(parents=True)
    write(folder / "labels.csv", labels or images())
    write(folder / "reports.csv", texts or reports())
    return folder


@pytest.fixture
def download(tmp_path: Path) -> Callable[..., Path]:
    return partial(build, tmp_path / "download")


def test_every_column(download: Callable[..., Path], tmp_path: Path) -> None:
    folder = download()
    prepared = cxr_real.read(folder)
    data = load(prepared, tmp_path / "out")
    assert data.labels == cxr_real.LABELS and len(data) == 3 and prepared.images == folder / "images"
    assert prepared.table["image"].tolist() == ["iu/a.png", "iu/b.png", "nih/c.png"]
    assert data.rows["patient"].tolist() == ["007", "007", "8"]
    assert data.rows["study"].tolist() == ["007_a", "007_a", "8_a"]
    assert data.rows["source"].tolist() == ["iu", "iu", "nih"]
    assert data.rows["split"].tolist() == ["train", "train", "test"]
    assert data.rows["view"].tolist() == ["PA", "Lateral", "AP"]


def test_patients_are_held_out(download: Callable[..., Path]) -> None:
    rows = [{**images()[0], "path": f"images/{k}.png", "patient_id": f"iu_{k}"} for k in range(50)]
    texts = [{**reports()[0], "image_paths": "images/0.png"}]
    prepared = cxr_real.read(download([*rows, images()[2]], texts), held_out=HeldOut(hold_out=0.2, develop=0.2))
    splits = prepared.table.set_index("patient")["split"]
    assert splits["8"] == "test" and set(splits[:-1]) == {"train", "valid", "test"}
    assert "of the patients of train 0.2 are test" in prepared.notes[0]


def test_blank_labels_stay_blank(download: Callable[..., Path]) -> None:
    table = cxr_real.read(download()).table
    known = {(row, name): table[name][row] for row in range(3) for name in cxr_real.LABELS if table[name][row]}
    assert known == {(0, "Edema"): "1", (0, "Fracture"): "0", (0, "COVID-19"): "-1"}


def test_all_images_of_a_study_share_its_report(download: Callable[..., Path]) -> None:
    table = cxr_real.read(download()).table
    assert table["findings"].tolist() == ["Heart large.", "Heart large.", ""]
    assert table["impression"].tolist() == ["Edema.", "Edema.", ""]


def test_the_clinical_note_is_left_out(download: Callable[..., Path]) -> None:
    prepared = cxr_real.read(download())
    assert NOTE not in prepared.table.to_csv() and any("clinical_note" in note for note in prepared.notes)


def changed(rows: list[dict[str, str]], **values: str) -> list[dict[str, str]]:
    return [{**rows[0], **values}, *rows[1:]]


def without(rows: list[dict[str, str]], column: str) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != column} for row in rows]


@pytest.mark.parametrize(
    ("labels", "texts", "said"),
    [
        (
            None,
            changed(reports(), image_paths="images/iu/a.png;images/iu/z.png"),
            "1 image paths are not in labels.csv",
        ),
        (None, reports() * 2, "2 images stand in two reports"),
        (without(images(), "Edema"), None, "no column Edema; found: path"),
        (None, without(reports(), "findings"), "no column findings"),
    ],
    ids=["unknown image", "two reports", "missing label", "missing section"],
)
def test_faults_of_the_download(download: Callable[..., Path], labels: Any, texts: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        cxr_real.read(download(labels, texts))
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["labels.csv", "reports.csv", "images"])
def test_missing_parts_of_the_download(download: Callable[..., Path], name: str) -> None:
    folder = download()
    (folder / name).rename(folder / "elsewhere")
    with pytest.raises(DataError, match=f"{name}: not found: --source is the folder with"):
        cxr_real.read(folder)


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    rows = images()
    more = [
        {**rows[0], "path": f"images/iu/{k}.png", "patient_id": f"1{k}", "study_id": f"1{k}_a", "split": split}
        for k, split in enumerate(["train", "train", "valid", "test"])
    ]
    build(folder, rows + more)
    write_images(folder, [row["path"] for row in rows + more])
    fill_images(folder)
    return []
