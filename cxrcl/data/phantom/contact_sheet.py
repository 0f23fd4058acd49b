"""A sheet of example images, one labelled row per finding, to see at a glance what a phantom set shows."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .study import LABELS

_TILE_PX = 128
_MARGIN_PX = 190


def contact_sheet(root: Path, out: Path, per_label: int = 6) -> Path:
    """Write a grey PNG with `per_label` images per row: normal images by view, then one row per finding.

    A row shows the most severe images of studies in which few other findings are drawn, frontal images first.
    """
    root = Path(root)
    images = _read(root / "manifest.csv")
    drawn: dict[str, dict[str, float]] = {}
    for row in _read(root / "findings.csv"):
        severities = drawn.setdefault(row["image"], {})
        severities[row["label"]] = max(float(row["severity"]), severities.get(row["label"], 0.0))
    rows = []
    for view in ("PA", "AP", "Lateral"):
        normal = [r["image"] for r in images if r["No Finding"] == "1" and r["view"] == view]
        rows.append((f"No Finding ({view})", normal[:per_label]))
    for label in LABELS[1:]:
        shown = [r for r in images if r[label] == "1" and label in drawn.get(r["image"], {})]
        shown.sort(key=lambda r: _clutter(r, label, drawn[r["image"]]))
        rows.append((label, [r["image"] for r in shown[:per_label]]))
    sheet = np.full((len(rows) * _TILE_PX, _MARGIN_PX + per_label * _TILE_PX), 24, np.uint8)
    for i, (title, names) in enumerate(rows):
        top = i * _TILE_PX
        cv2.putText(sheet, title, (8, top + _TILE_PX // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255, 1, cv2.LINE_AA)
        for j, name in enumerate(names):
            image = np.asarray(Image.open(root / name))
            left = _MARGIN_PX + j * _TILE_PX
            tile = cv2.resize(image, (_TILE_PX - 2, _TILE_PX - 2), interpolation=cv2.INTER_CUBIC)
            sheet[top + 1 : top + _TILE_PX - 1, left + 1 : left + _TILE_PX - 1] = tile
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(cv2.imencode(".png", sheet)[1].tobytes())
    return out


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _clutter(row: dict[str, str], label: str, severities: dict[str, float]) -> float:
    others = sum(v for k, v in severities.items() if k != label)
    return others + 0.6 * (row["view"] == "Lateral") - 0.5 * severities[label]
