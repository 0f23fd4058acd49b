"""scripts/prepare.py on a small folder with the layout of a download."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cxrcl.data import manifest
from cxrcl.data.sources import cxr_real
from cxrcl.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
NOTE = "Known pneumothorax on the left."


def films() -> list[dict[str, str]]:
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


@pytest.fixture
def download(tmp_path: Path) -> Callable[..., Path]:
    def make(labels: list[dict[str, str]] | None = None, texts: list[dict[str, str]] | None = None) -> Path:
        folder = tmp_path / "download"
        for film in films():
            (folder / film["path"]).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((20, 20), np.uint8)).save(folder / film["path"])
        write(folder / "labels.csv", labels or films())
        write(folder / "reports.csv", texts or reports())
        return folder

    return make


def test_the_manifest_is_one_that_loads(download: Callable[..., Path], tmp_path: Path) -> None:
    assert cxr_real.prepare(download(), tmp_path / "out") == tmp_path / "out" / "manifest.csv"
    data = manifest.load(tmp_path / "out")
    assert data.labels == cxr_real.LABELS and len(data) == 3
    assert data.rows["patient"].tolist() == ["007", "007", "8"]
    assert data.rows["source"].tolist() == ["iu", "iu", "nih"]
    assert data.rows["split"].tolist() == ["train", "train", "test"]
    assert all(Path(path).is_file() for path in data.rows["path"])


def test_blank_labels_stay_blank(download: Callable[..., Path], tmp_path: Path) -> None:
    cxr_real.prepare(download(), tmp_path / "out")
    data = manifest.load(tmp_path / "out")
    known = {(row, name): value for row, values in enumerate(data.values) for name, value in zip(data.labels, values)}
    assert {key: value for key, value in known.items() if not np.isnan(value)} == {
        (0, "Edema"): 1,
        (0, "Fracture"): 0,
        (0, "COVID-19"): -1,
    }


def test_all_films_of_a_study_share_its_report(download: Callable[..., Path], tmp_path: Path) -> None:
    cxr_real.prepare(download(), tmp_path / "out")
    rows = manifest.load(tmp_path / "out").rows
    assert rows["findings"].tolist() == ["Heart large.", "Heart large.", ""]
    assert rows["impression"].tolist() == ["Edema.", "Edema.", ""]


def test_the_clinical_note_is_left_out(download: Callable[..., Path], tmp_path: Path) -> None:
    path = cxr_real.prepare(download(), tmp_path / "out")
    assert NOTE not in path.read_text()


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
        (without(films(), "Edema"), None, "no column Edema; found: path"),
        (None, without(reports(), "findings"), "no column findings"),
    ],
    ids=["unknown image", "missing label", "missing section"],
)
def test_faults_of_the_download(
    download: Callable[..., Path], tmp_path: Path, labels: Any, texts: Any, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        cxr_real.prepare(download(labels, texts), tmp_path / "out")
    assert said in str(caught.value) and not (tmp_path / "out" / "manifest.csv").exists()


@pytest.mark.parametrize("name", ["labels.csv", "reports.csv", "images"])
def test_missing_parts_of_the_download(download: Callable[..., Path], tmp_path: Path, name: str) -> None:
    folder = download()
    (folder / name).rename(folder / "elsewhere")
    with pytest.raises(DataError, match=f"{name}: not found"):
        cxr_real.prepare(folder, tmp_path / "out")


def test_it_can_be_run_again_but_replaces_nothing_of_yours(download: Callable[..., Path], tmp_path: Path) -> None:
    folder, out = download(), tmp_path / "out"
    assert cxr_real.prepare(folder, out).read_bytes() == cxr_real.prepare(folder, out).read_bytes()
    (tmp_path / "taken" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match="choose another --out"):
        cxr_real.prepare(folder, tmp_path / "taken")


def test_the_command(download: Callable[..., Path], tmp_path: Path) -> None:
    folder = download()

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "scripts/prepare.py", *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=ROOT)

    found = run("cxr_real", "--source", folder, "--out", tmp_path / "out")
    assert found.returncode == 0 and found.stderr == ""
    assert "train: 2 images, 1 studies, 1 patients" in found.stdout
    assert f"data.root={tmp_path / 'out'}" in found.stdout
    absent = run("cxr_real", "--source", tmp_path / "absent", "--out", tmp_path / "out")
    assert absent.returncode == 2 and absent.stderr == f"error: --source {tmp_path / 'absent'}: no such folder\n"
