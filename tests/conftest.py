"""Small data that all tests share. Nothing here needs a network, and every process keeps to one thread."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

LABELS = ("No Finding", "Cardiomegaly", "Edema")
STUDIES = {"train": 12, "valid": 4, "test": 4}


def write_film(path: Path, seed: int, size: tuple[int, int] = (40, 32)) -> None:
    """An 8-bit grey PNG of `size` (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)).save(path)


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]], name: str = "manifest.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def tiny_rows() -> list[dict[str, str]]:
    """20 patients, one study each; every second study has a lateral film, every fifth no report."""
    rows = []
    for k in range(sum(STUDIES.values())):
        split = "train" if k < 12 else "valid" if k < 16 else "test"
        ill = k % 2 == 1
        study = {
            "patient": f"{k:03d}",
            "study": f"s{k}",
            "split": split,
            "findings": ""
            if k % 5 == 4
            else f"The heart is {'enlarged' if ill else 'normal'}. Series number {k} shown.",
            "impression": "" if k % 5 == 4 else ("Cardiomegaly is present." if ill else "Normal chest film."),
            "No Finding": "0" if ill else "1",
            "Cardiomegaly": "1" if ill else "0",
            "Edema": ("", "-1", "0", "1")[k % 4],
        }
        rows.append({"image": f"images/{k}_pa.png", "view": "PA", **study})
        if k % 2 == 0:
            rows.append({"image": f"images/{k}_lateral.png", "view": "Lateral", **study})
    return rows


def write_tiny_set(folder: Path) -> Path:
    rows = tiny_rows()
    for seed, row in enumerate(rows):
        write_film(folder / row["image"], seed, (40, 32) if row["view"] == "PA" else (32, 32))
    write_rows(folder, rows)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with manifest.csv and films; not to be written to."""
    return write_tiny_set(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def own_set(tmp_path: Path) -> Path:
    """The same folder, for a test that changes it."""
    return write_tiny_set(tmp_path / "own set")


@pytest.fixture
def rows() -> list[dict[str, str]]:
    return tiny_rows()


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """`put(rows)` writes a manifest and returns its folder."""

    def write(rows: Sequence[Mapping[str, Any]], folder: str = "put") -> Path:
        return write_rows(tmp_path / folder, rows).parent

    return write


TINY_RUN = (
    "data.num_workers=0",
    "device=cpu",
    "trainer.precision=fp32",
    "trainer.batch_size=4",
    "trainer.max_epochs=null",
    "trainer.max_steps=2",
    "trainer.warmup_epochs=null",
    "trainer.evaluate_every_epochs=null",
    "image_encoder=small_resnet",
    "image_encoder.size=32",
    "image_encoder.channels_last=false",
)
TINY_TEXT = ("text_encoder.width=16", "text_encoder.depth=1", "text_encoder.heads=2")


@pytest.fixture(scope="session")
def tiny_run() -> list[str]:
    """Overrides that make a training of two steps, a second or two long; `data.root` is left to the test."""
    return list(TINY_RUN)


@pytest.fixture(scope="session")
def trained(tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a CLIP trained for two steps."""
    from cxrcl import app, cli

    folder = tmp_path_factory.mktemp("run")
    overrides = [*TINY_RUN, *TINY_TEXT, "evals=[]", f"data.root='{tiny_set}'", f"run_dir='{folder}'"]
    return app.train(cli.compose("train", overrides)).checkpoint


@pytest.fixture
def clean_hydra(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hydra keeps one global config; the entry points set HYDRA_FULL_ERROR."""
    from hydra.core.global_hydra import GlobalHydra

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()
