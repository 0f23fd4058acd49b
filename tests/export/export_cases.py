"""Checkpoints to export, and exported folders with faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from checkpoints import plain_checkpoint, write_plain
from helpers import PACKAGES
from safetensors.torch import load_file, save_file

from cxrcl.app.model import build_model
from cxrcl.checkpoint import exported

LINEAR = {"_target_": "cxrcl.models.heads.Linear", "out_dim": 6}
CLIP = {"_target_": "cxrcl.objectives.clip.Clip", "image_head": LINEAR, "text_head": LINEAR}
SIMCLR = {"_target_": "cxrcl.objectives.simclr.SimClr", "image_head": LINEAR}
MOCO = {"_target_": "cxrcl.objectives.moco.Moco", "image_head": LINEAR, "queue_size": 8}
CLASSIFY = {"_target_": "cxrcl.objectives.classify.Classify"}
SUM = {"_target_": "cxrcl.objectives.combined.Sum", "parts": {"clip": CLIP, "simclr": SIMCLR}, "primary": "clip"}


def with_objective(trained: Path, file: Path, objective: dict[str, Any]) -> Path:
    """The checkpoint with another objective on its towers, whose weights are random."""
    state = plain_checkpoint(trained)
    state["config"]["model"]["objective"] = objective
    if objective in (SIMCLR, MOCO, CLASSIFY):
        del state["config"]["model"]["text_encoder"]
    torch.manual_seed(0)
    model = build_model(state["config"]["model"], state["config"]["labels"], None, PACKAGES)
    parts = [name for name, part in model.named_modules() if part is model.evaluated()]
    state["config"]["evaluated"] = parts[0]
    return rewritten(file, state, model=model.state_dict(), initial={})


def rewritten(file: Path, state: dict[str, Any], **changes: Any) -> Path:
    write_plain({**state, **changes}, file)
    return file


def resigned(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change config.json as someone would who knows its checksums."""
    content = json.loads((folder / exported.CONFIG).read_text())
    change(content)
    sums = content.get("sha256", {})
    for name in [*sums]:
        if name != exported.CONFIG and (folder / name).is_file():
            sums[name] = exported.sha256(folder / name)
    sums[exported.CONFIG] = exported.own_sha256(content)
    (folder / exported.CONFIG).write_text(json.dumps(content))


def other_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the weights, checksums included."""
    tensors = load_file(folder / exported.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / exported.WEIGHTS)
    resigned(folder, lambda content: None)
