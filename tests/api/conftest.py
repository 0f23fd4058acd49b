"""The trained checkpoint, others made of it, and films to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from api_models import Make
from checkpoints import plain_checkpoint, write_plain
from helpers import PACKAGES

import cxrcl
from cxrcl import api
from cxrcl.app.model import build_model


@pytest.fixture(scope="module")
def make(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """`make(objective, **config)`: the trained checkpoint with another objective, or other settings, on its towers."""
    folder = tmp_path_factory.mktemp("made")

    def write(objective: dict[str, Any] | None = None, **config: Any) -> Path:
        state = plain_checkpoint(trained)
        state["config"] |= config
        if objective is not None:
            state["config"]["model"]["objective"] = objective
            torch.manual_seed(0)
            model = build_model(state["config"]["model"], state["config"]["labels"], None, PACKAGES)
            state["model"] = model.state_dict()
        path = folder / f"{len(list(folder.iterdir()))}.pt"
        write_plain(state, path)
        return path

    return write


@pytest.fixture(scope="module")
def model(trained: Path) -> api.Model:
    return cxrcl.load(trained, device="cpu")


@pytest.fixture(scope="module")
def films(tiny_set: Path) -> list[Path]:
    return [tiny_set / "images" / f"{name}.png" for name in ("0_pa", "1_pa", "2_pa", "0_lateral", "2_lateral")]
