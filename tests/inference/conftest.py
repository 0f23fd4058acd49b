"""A model without weights whose embeddings are known."""

from __future__ import annotations

import pytest
import torch
from known_model import Known

from cxrcl.distributed import Runtime


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
def alone() -> Runtime:
    return Runtime(0, 1, torch.device("cpu"))
