"""Small data, models and settings that several tests share."""

from __future__ import annotations

import copy
import functools
import os
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from cxrcl import config
from cxrcl.types import Batch, Features, ImageEncoder, ImageSpec, Text, TextEncoder, Tokens

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (*config.OWN_PACKAGES, "helpers")
LABELS = ("No Finding", "Cardiomegaly", "Edema")


# ------------------------------------------------------------------------------------------------- towers


class TinyImages(ImageEncoder):
    """One convolution; `norm` adds BatchNorm, `dropout` acts on the pooled features."""

    def __init__(self, size: int = 16, width: int = 8, norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.arguments = {"size": size, "width": width, "norm": norm, "dropout": dropout}
        self.spec = ImageSpec(size, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.dim = self.local_dim = width
        self.conv = nn.Conv2d(3, width, 4, stride=4)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)

    def forward(self, images: Tensor) -> Features:
        local = torch.relu(self.norm(self.conv(images))).flatten(2).transpose(1, 2)
        return Features(self.drop(local.mean(dim=1)), local)

    def node(self) -> dict[str, Any]:
        return {"_target_": "helpers.TinyImages", **self.arguments}


class CharTokenizer:
    """One piece for each character, framed by 1 and 2 and padded by 0."""

    def __call__(self, texts: Sequence[str]) -> Tokens:
        rows = [[1, *(3 + ord(c) % 60 for c in text), 2] for text in texts]
        longest = max(map(len, rows), default=0)
        tokens = Tokens([], [], [])
        for row in rows:
            missing = longest - len(row)
            tokens.ids.append(row + [0] * missing)
            tokens.mask.append([1] * len(row) + [0] * missing)
            tokens.words.append([-1] * longest)
        return tokens


class TinyTexts(TextEncoder):
    """Mean of embeddings of pieces and places."""

    def __init__(self, width: int = 8, pieces: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.arguments = {"width": width, "pieces": pieces, "dropout": dropout}
        self.tokenizer = CharTokenizer()
        self.dim = self.local_dim = width
        self.pieces = nn.Embedding(pieces, width)
        self.places = nn.Embedding(512, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        local = self.drop(torch.tanh(self.pieces(ids) + self.places.weight[: ids.shape[1]]))
        weights = mask[..., None].to(local.dtype)
        return Features((local * weights).sum(1) / weights.sum(1), local)

    def node(self) -> dict[str, Any]:
        return {"_target_": "helpers.TinyTexts", **self.arguments}


# ----------------------------------------------------------------------------------------------- batches


def text_of(ids: Sequence[Sequence[int]], length: int | None = None) -> Text:
    """[B] lists of pieces -> Text [B, 1, L]."""
    longest = length or max(map(len, ids))
    padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids])[:, None]
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])[:, None]
    return Text(padded, mask, torch.full_like(padded, -1))


def batch_of(images: Tensor | None, ids: Sequence[Sequence[int]] | None = None, labels: Tensor | None = None) -> Batch:
    """Device-ready batch; images [B, 3, S, S]."""
    count = len(images) if images is not None else len(ids or ())
    return Batch(
        images=None if images is None else images[:, None],
        augment=None,
        text=None if ids is None else text_of(ids),
        labels=torch.full((count, 1), torch.nan) if labels is None else labels,
        index=torch.arange(count),
    )


class FixedData:
    """Evaluation data in memory (implements `cxrcl.types.EvalData`).

    Args:
        splits: name -> (images [N, 3, S, S], labels [N, C], texts, patients).
    """

    def __init__(
        self,
        labels: Sequence[str],
        splits: dict[str, tuple[Tensor, Tensor, list[str], list[str]]],
        tokenizer: Any = None,
    ) -> None:
        self.labels = tuple(labels)
        self.splits = splits
        self.tokenizer = tokenizer or CharTokenizer()

    def size(self, split: str) -> int:
        return len(self.splits[split][0])

    def batches(self, split: str, positions: Sequence[int], batch_size: int, texts: bool) -> Iterable[Batch]:
        images, labels, strings, _ = self.splits[split]
        for start in range(0, len(positions), batch_size):
            rows = list(positions[start : start + batch_size])
            text = None
            if texts:
                tokens = self.tokenizer([strings[k] for k in rows])
                text = Text(*(torch.tensor(part)[:, None] for part in tokens))
            yield Batch(images[rows][:, None], None, text, labels[rows], torch.tensor(rows))

    def column(self, split: str, name: str) -> list[str]:
        return self.splits[split][3]

    def texts(self, split: str) -> list[str]:
        return self.splits[split][2]


class StopsRun:
    """An evaluator that asks its own process to end, at the evaluation whose number is in `at`."""

    needs = ()
    selects = "count"
    higher_is_better = True
    at: int | None = None

    def __init__(self) -> None:
        self.count = 0

    def run(self, model: nn.Module, runtime: Any) -> dict[str, float]:
        self.count += 1
        if self.count == StopsRun.at:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"count": float(self.count)}


# ------------------------------------------------------------------------------------------------- files


def write_manifest(root: Path, studies: int = 40, size: int = 24, seed: int = 0, test_from: float = 0.85) -> Path:
    """A folder of random films whose brightness follows `Cardiomegaly`, with reports; every third study has two."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    rows = []
    for study in range(studies):
        share = study / studies
        split = "train" if share < 0.7 else "valid" if share < test_from else "test"
        heart, edema = bool(study % 2), bool(study // 2 % 2)
        findings = f"The heart is {'enlarged' if heart else 'normal in size'}. "
        findings += f"Lungs show {'edema' if edema else 'no edema'} today. There are {study % 5 + 2} old clips here."
        for view in ("PA", "LATERAL")[: 2 if study % 3 == 0 else 1]:
            film = rng.integers(0, 120, size=(size, size)) + 100 * heart
            name = f"images/{study:03d}_{view}.png"
            Image.fromarray(film.astype(np.uint8)).save(root / name)
            rows.append(
                {
                    "image": name,
                    "patient": f"p{study:03d}",
                    "study": f"s{study:03d}",
                    "view": view,
                    "split": split,
                    "findings": findings,
                    "No Finding": int(not heart and not edema),
                    "Cardiomegaly": int(heart),
                    "Edema": "" if study % 7 == 3 else int(edema),
                }
            )
    pd.DataFrame(rows).to_csv(root / "manifest.csv", index=False)
    return root


# ---------------------------------------------------------------------------------------------- settings

SMALL = (
    "image_encoder.name=test_resnet",
    "image_encoder.size=32",
    "text_encoder.width=16",
    "text_encoder.depth=1",
    "text_encoder.heads=2",
    "text_encoder.max_length=48",
    "objective.image_head.out_dim=8",
    "objective.text_head.out_dim=8",
    "data.num_workers=0",
    "device=cpu",
    "trainer.precision=fp32",
    "trainer.batch_size=8",
    "trainer.max_epochs=null",
    "trainer.max_steps=4",
    "trainer.warmup_epochs=null",
    "trainer.evaluate_every_epochs=null",
    "trainer.log_every=1",
    "optimizer.lr=3e-3",
)


@functools.lru_cache(maxsize=64)
def _composed(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    from cxrcl.cli import compose

    return compose(name, list(overrides))


def settings(data: Path, run_dir: Path, *overrides: str, name: str = "train") -> dict[str, Any]:
    """The shipped config with small models, on the manifest in `data`."""
    sections = ("data", "device", "trainer", "optimizer")  # a probe takes its towers from a checkpoint
    small = SMALL if name == "train" else tuple(s for s in SMALL if s.split("=")[0].split(".")[0] in sections)
    values = copy.deepcopy(_composed(name, (*small, *overrides)))
    values["data"]["root"] = str(data)
    values["run_dir"] = str(run_dir)
    return values


def tiny_towers(values: dict[str, Any], **image: Any) -> dict[str, Any]:
    """The same settings with the towers of this module."""
    values["image_encoder"] = {"_target_": "helpers.TinyImages", **image}
    if values.get("text_encoder") is not None:
        values["text_encoder"] = {"_target_": "helpers.TinyTexts"}
    return values


def equal_everywhere(a: Any, b: Any) -> bool:
    """Bit-for-bit equality of nested containers of tensors."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal_everywhere(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal_everywhere(x, y) for x, y in zip(a, b))
    return bool(a == b)
