"""A model that returns given embeddings, and evaluators as `configs/evals` writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import yaml
from helpers import ALONE, ROOT, FixedData
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.config.nodes import locate
from cxrcl.evaluation.evaluator import Evaluator, EvaluatorResult, Evaluators
from cxrcl.types import Features, Tokens

FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
SCALE = 7.0
Groups = list[np.ndarray]


@dataclass
class Given:
    """Embeddings as a model projects them: images [N, D], prompts [P, D] and local similarities [N, P] by class."""

    images: np.ndarray
    positive: Groups
    negative: Groups
    local: Groups
    classes: np.ndarray  # int [N]

    def tensors(self, *names: str) -> list[Any]:
        """The fields as tensors."""
        values = (getattr(self, name) for name in names)
        return [[torch.tensor(g) for g in v] if isinstance(v, list) else torch.tensor(v) for v in values]


def drawn(seed: int, images: int = 300, width: int = 16) -> Given:
    """Random embeddings whose lengths differ up to a hundredfold, groups of 1 to 9 prompts, local ones up to 5."""
    rng = np.random.default_rng(seed)

    def rows(count: int) -> np.ndarray:
        return rng.normal(size=(count, width)) * np.exp(rng.uniform(0, 4.6, (count, 1)))

    sizes = rng.permutation([1, 3, 4, 7, 9])
    local = [rng.uniform(-5, 5, (images, size)) for size in sizes]
    positive, negative = ([rows(size) for size in sizes] for _ in range(2))
    return Given(rows(images), positive, negative, local, rng.integers(0, 5, images))


def golden_protocols() -> tuple[Given, dict[str, np.ndarray]]:
    """The inputs of the golden file, and all of it."""
    with np.load(ROOT / "tests" / "golden" / "protocols.npz") as file:
        values = dict(file)
    given = Given(
        values["in_image"],
        list(values["in_positive"]),
        list(values["in_negative"]),
        list(values["in_local"].transpose(1, 0, 2)),
        values["in_class"],
    )
    return given, values


class GivenModel(nn.Module):
    """Image k is its number in every pixel; sentence "12" is row 12 of the text embeddings."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        self.images = torch.tensor(given.images, dtype=torch.float32)
        self.sentences = torch.tensor(np.concatenate([*given.positive, *given.negative]), dtype=torch.float32)
        self.local = torch.tensor(np.concatenate(given.local, axis=1), dtype=torch.float32)

    def tokenizer(self, texts: Any) -> Tokens:
        ids = [[int(text)] for text in texts]
        return Tokens(ids, [[1] for _ in ids], [[0] for _ in ids])

    def encode_images(self, images: Tensor) -> Features:
        pixels = images.flatten(1)[:, :1]
        return Features(pixels, pixels[:, None])

    def embed_images(self, features: Features) -> Tensor:
        return F.normalize(self.images[features.pooled[:, 0].long()], dim=-1)

    def project_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.sentences[ids[:, 0]]

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        return F.normalize(self.project_text(ids, mask), dim=-1)

    def embed_words(self, ids: Tensor, mask: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        return ids[:, None].float(), torch.ones(len(ids), dtype=torch.int64)

    def match_words(self, features: Features, words: Tensor, counts: Tensor) -> Tensor:
        return self.local[features.pooled[:, 0].long()][:, words[:, 0, 0].long()]

    def similarity_scale(self) -> float:
        return SCALE


def evaluated(name: str, given: Given, model: nn.Module | None = None, **settings: Any) -> EvaluatorResult:
    """What the evaluator of `configs/evals/<name>.yaml` finds, and settings of one's own."""
    labels = torch.eye(5)[torch.tensor(given.classes)]
    pixels = torch.arange(float(len(labels))).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    films = (pixels, labels, [""] * len(labels), [f"p{k}" for k in range(len(labels))])
    data = FixedData(FIVE, {"test": films, "valid": films})
    return Evaluators({name: evaluator(name, data, given, **settings)}, data, 64)(model or GivenModel(given), ALONE)[
        name
    ]


def evaluator(name: str, data: FixedData, given: Given, **settings: Any) -> Any:
    """The evaluator of the config, on the split `test`; every prompts file has the given prompts."""
    sentences: dict[str, dict[str, list[str]]] = {label: {} for label in FIVE}
    start = 0
    for side, groups in (("pos", given.positive), ("neg", given.negative)):
        for label, group in zip(FIVE, groups, strict=True):
            sentences[label][side] = [str(start + k) for k in range(len(group))]
            start += len(group)
    (node,) = yaml.safe_load((ROOT / "configs" / "evals" / f"{name}.yaml").read_text()).values()
    arguments = {key: value for key, value in node.items() if key not in ("_target_", "splits", "resamples")}
    return locate(node, Evaluator, name)(
        data, lambda file, labels: sentences, splits=("test",), **{**arguments, **settings}
    )
