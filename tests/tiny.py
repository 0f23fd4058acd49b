"""A data set and a run that are as small as they can be."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
