"""The figures that somebody else's code would publish of a checkpoint: plain PyTorch, Pillow, NumPy and scikit-learn.

Nothing here is shared with `cxrcl explain` or with the evaluation of the package but the networks themselves: images
are opened, windowed, fitted, resized and normalised in a loop of this file's own, sentences are tokenised by the
`tokenizers` library, labels are read by the csv module, and figures come from scikit-learn.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from planted_data import MODEL_PX, NOT_LABELS
from sklearn.metrics import brier_score_loss, f1_score, precision_recall_curve, roc_auc_score
from tokenizers import Tokenizer

from cxrcl.app.model import build_model

GREY = ((0.5,) * 3, (0.25,) * 3)  # what both encoders were trained with
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PROMPTS = Path(__file__).parents[3] / "cxrcl" / "data" / "text" / "prompt_files"


@dataclass(frozen=True)
class Way:
    """One way to score; the defaults are those of `cxrcl evaluate` for these checkpoints."""

    weights: str = "ema"
    fit: str = "pad"
    share: float = 1.0
    window: str = ""
    nearest: bool = False
    constants: tuple[tuple[float, ...], tuple[float, ...]] | None = GREY  # None: each image's own
    image_pooling: str = ""
    text_pooling: str = ""
    prompts: str = "zero_shot.json"
    template: str = "{}"
    frame: tuple[bool, bool] = (True, True)  # [CLS] and [SEP]
    average: str = "direction"
    score: str = "margin"
    scaled: bool = True
    splits: tuple[str, ...] = ("test",)
    frontal: bool = False
    first_of_patient: bool = False
    uncertain: float | None = None
    blank: float | None = None
    normal_in_mean: bool = False
    threshold: str = "half"
    figures: str = "auroc"  # or `decisions`


class Lab:
    """A checkpoint and a folder of images, scored in any `Way`."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        self.content: Any = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self.folder = folder
        with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
            self.rows = [row for row in csv.DictReader(file) if row["split"] != "train"]
        self.labels = [name for name in self.rows[0] if name not in NOT_LABELS]
        self.pictures = [np.asarray(Image.open(folder / row["image"]).convert("L")) for row in self.rows]
        self.embedded: dict[Any, np.ndarray] = {}

    def figures(self, way: Way) -> dict[str, float]:
        """As a table of a paper has them, three digits."""
        scores, probabilities = self._scores(way)
        rows = self._rows(way)
        labels = [name for name in self.labels if name != "No Finding" or way.normal_in_mean]
        found: dict[str, float] = {}
        for k, name in enumerate(self.labels):
            truth = np.array([self._truth(self.rows[row][name], way) for row in rows])
            known = ~np.isnan(truth)
            y, s, p = truth[known], scores[rows, k][known], probabilities[rows, k][known]
            if way.figures == "auroc":
                found[f"auroc/{name}"] = float(roc_auc_score(y, s))
            else:
                at = 0.5
                if way.threshold == "best":
                    precision, recall, cuts = precision_recall_curve(y, p)
                    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
                    at = cuts[np.argmax(f1[:-1])]
                found[f"f1/{name}"] = float(f1_score(y, p >= at))
                found[f"brier/{name}"] = float(brier_score_loss(y, p))
        for metric in ("auroc",) if way.figures == "auroc" else ("f1", "brier"):
            found[f"mean_{metric}"] = float(np.mean([found[f"{metric}/{name}"] for name in labels]))
        return {name: round(value, 3) for name, value in found.items()}

    def _truth(self, cell: str, way: Way) -> float:
        replaced = {"": way.blank, "-1": way.uncertain}.get(cell, cell)
        return float("nan") if replaced is None else float(replaced)

    def _rows(self, way: Way) -> list[int]:
        rows = [k for k, row in enumerate(self.rows) if row["split"] in way.splits]
        if way.frontal:
            rows = [k for k in rows if self.rows[k]["view"] in ("PA", "AP")]
        if way.first_of_patient:
            seen: dict[str, int] = {}
            for k in rows:
                seen.setdefault(self.rows[k]["patient"], k)
            rows = list(seen.values())
        return rows

    # ------------------------------------------------------------------------------------------------- models
    def _model(self, way: Way) -> Any:
        config = self.content["config"]
        model: Any = build_model(config["model"], config["labels"], None, ("cxrcl",))
        model.load_state_dict(self.content["ema" if way.weights == "ema" else "model"])
        if way.text_pooling:
            model.text_encoder.pooling = way.text_pooling
        if way.image_pooling in ("cls", "mean"):
            model.image_encoder.pooling = way.image_pooling
        return model.eval()

    # ------------------------------------------------------------------------------------------------- images
    def _input(self, grey: np.ndarray, way: Way) -> np.ndarray:
        """float32 [3, S, S] of a picture."""
        if way.window == "inverted":
            grey = 255 - grey
        elif way.window == "percentiles":
            low, high = np.percentile(grey, [1, 99])
            grey = np.clip((grey - low) / (high - low) * 255, 0, 255).round().astype(np.uint8)
        elif way.window == "equalised":
            below = np.cumsum(np.bincount(grey.ravel(), minlength=256)).astype(np.float64)  # Gonzalez and Woods, 3.3
            darkest = below[below > 0][0]
            grey = (np.clip(below - darkest, 0, None) / (grey.size - darkest) * 255).round().astype(np.uint8)[grey]
        height, width = grey.shape
        if way.fit == "pad":
            side = max(height, width)
            canvas = np.zeros((side, side), np.uint8)
            top, left = (side - height) // 2, (side - width) // 2
            canvas[top : top + height, left : left + width] = grey
            grey = canvas
        elif way.fit == "crop":
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            grey = grey[top : top + side, left : left + side]
        if way.nearest:
            square = np.asarray(Image.fromarray(grey).resize((MODEL_PX, MODEL_PX), Image.Resampling.NEAREST))
        else:
            square = bilinear(grey, MODEL_PX, way.share)
        pixels = square.astype(np.float32) / 255
        if way.constants is None:
            return np.repeat(((pixels - pixels.mean()) / pixels.std())[None], 3, axis=0)
        mean, std = (np.array(part, np.float32)[:, None, None] for part in way.constants)
        return (pixels[None] - mean) / std

    def _images(self, way: Way) -> np.ndarray:
        pooling = way.image_pooling
        key = (way.weights, way.fit, way.share, way.window, way.nearest, way.constants, pooling)
        if key not in self.embedded:
            model, rows = self._model(way), []
            with torch.no_grad():
                for start in range(0, len(self.pictures), 100):
                    batch = np.stack([self._input(grey, way) for grey in self.pictures[start : start + 100]])
                    features = model.image_encoder(torch.from_numpy(batch.astype(np.float32)))
                    pooled = features.local.max(dim=1).values if pooling == "largest" else features.pooled
                    rows.append(model.image_head(pooled).numpy())
            stacked = np.concatenate(rows)
            self.embedded[key] = stacked / np.linalg.norm(stacked, axis=1, keepdims=True)
        return self.embedded[key]

    # -------------------------------------------------------------------------------------------------- texts
    def _texts(self, sentences: Sequence[str], way: Way, model: Any) -> np.ndarray:
        node = self.content["config"]["model"]["text_encoder"]
        tokenizer = Tokenizer.from_str(node["definition"])
        rows = []
        with torch.no_grad():
            for sentence in sentences:
                ids = tokenizer.encode(way.template.replace("{}", sentence)).ids
                ids = ids[0 if way.frame[0] else 1 : None if way.frame[1] else -1]
                one = torch.tensor([ids])
                rows.append(model.text_head(model.text_encoder(one, torch.ones_like(one)).pooled)[0].numpy())
        return np.stack(rows)

    def _scores(self, way: Way) -> tuple[np.ndarray, np.ndarray]:
        model, images = self._model(way), self._images(way)
        scale = float(model.log_scale.detach().exp()) if way.scaled else 1.0
        prompts = json.loads((PROMPTS / way.prompts).read_text())
        sides = []
        for side in ("pos", "neg"):
            columns = []
            for name in self.labels:
                raw = self._texts(prompts[name][side], way, model)
                unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
                if way.average == "largest":
                    columns.append((images @ unit.T).max(axis=1))
                    continue
                mean = raw.mean(axis=0) if way.average == "embedding" else unit.mean(axis=0)
                columns.append(images @ (mean if way.average == "similarity" else mean / np.linalg.norm(mean)))
            sides.append(np.stack(columns, axis=1).astype(np.float64))
        positive, negative = sides
        if way.score == "softmax":
            powers = np.exp(scale * (positive - positive.max(axis=1, keepdims=True)))
            return (powers / powers.sum(axis=1, keepdims=True),) * 2
        score = {"margin": positive - negative, "positive": positive, "negative": -negative}[way.score]
        return score, 1 / (1 + np.exp(-scale * score))


def bilinear(grey: np.ndarray, size: int, share: float) -> np.ndarray:
    """The middle `share` of both sides at `size` x `size`, pixel centres at one half, without averaging."""
    places = []
    for length in grey.shape:
        at = (np.arange(size) + 0.5 - size / 2) * (length * share / size) + length / 2 - 0.5
        low = np.floor(at).astype(int)
        places.append((np.clip(low, 0, length - 1), np.clip(low + 1, 0, length - 1), at - low))
    (y0, y1, v), (x0, x1, u) = places
    values = grey.astype(np.float64)
    upper, lower = (values[rows][:, x0] * (1 - u) + values[rows][:, x1] * u for rows in (y0, y1))
    return np.rint(upper * (1 - v)[:, None] + lower * v[:, None]).astype(np.uint8)
