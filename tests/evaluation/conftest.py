"""A model without weights whose embeddings are known, and data to go with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import FixedData
from known_model import Known

from cxrcl.distributed import Runtime

TEXTS = ["the heart is large", "", "no edema at all", "the heart is large", "clear lungs", "edema", ""]
LABELS = [[0, 1, 0], [1, 0, torch.nan], [0, 1, 1], [torch.nan, 0, 0], [1, torch.nan, 1], [0, 1, 0], [0, 0, 1]]


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
