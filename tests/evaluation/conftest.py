"""A model without weights whose embeddings are known, and data to go with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import CharTokenizer, FixedData
from torch import Tensor
from torch.nn import functional as F

from cxrcl.distributed import Runtime
from cxrcl.objectives.base import Objective
from cxrcl.types import Features

TEXTS = ["the heart is large", "", "no edema at all", "the heart is large", "clear lungs", "edema", ""]
LABELS = [[0, 1, 0], [1, 0, torch.nan], [0, 1, 1], [torch.nan, 0, 0], [1, torch.nan, 1], [0, 1, 0], [0, 0, 1]]


class Known(Objective):
    """Images are embedded by their pixels, texts by a fixed random table of their pieces; calls are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = CharTokenizer()
        self.table = torch.randn(64, 48, generator=torch.Generator().manual_seed(5))
        self.places = torch.randn(512, 48, generator=torch.Generator().manual_seed(6))
        self.images_seen = 0
        self.texts_seen = 0

    def encode_images(self, images: Tensor) -> Features:
        self.images_seen += len(images)
        return Features(images.flatten(1), images.flatten(2).transpose(1, 2))

    def embed_images(self, features: Features) -> Tensor:
        return F.normalize(features.pooled, dim=-1)

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        self.texts_seen += len(ids)
        pieces = self.table[ids] * (1 + self.places[: ids.shape[1]])
        return F.normalize((pieces * mask[..., None]).sum(dim=1), dim=-1)

    def similarity_scale(self) -> float:
        return 7.0

    def text(self, sentence: str) -> Tensor:
        """One sentence alone."""
        ids, mask, _ = self.tokenizer([sentence])
        return self.embed_text(torch.tensor(ids), torch.tensor(mask))[0]


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
def alone() -> Runtime:
    return Runtime(0, 1, torch.device("cpu"))


@pytest.fixture
def data() -> FixedData:
    images = torch.randn(7, 3, 4, 4, generator=torch.Generator().manual_seed(9))
    patients = [f"p{k // 2}" for k in range(7)]
    whole = (images, torch.tensor(LABELS), TEXTS, patients)

    def part(rows: slice) -> tuple[Any, ...]:
        return tuple(value[rows] for value in whole)

    return FixedData(("No Finding", "Cardiomegaly", "Edema"), {"valid": part(slice(0, 4)), "test": part(slice(4, 7))})
