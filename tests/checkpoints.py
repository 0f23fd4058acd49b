"""Checkpoints as plain containers, for tests that look into them, change them or make up their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cxrcl.checkpoint.content import SCHEMA, Checkpoint, from_plain, to_plain
from cxrcl.checkpoint.file import load

EMPTY: dict[str, Any] = {
    "schema": SCHEMA,
    "config": {
        "settings": {},
        "fingerprint": "",
        "model": {},
        "labels": [],
        "evaluated": "",
        "transform": {},
        "prompts": {},
        "prompt_sentences": {},
        "precision": "fp32",
        "data": {},
    },
    **{"versions": {}, "model": {}, "optimizer": {}, "schedule": {}, "scaler": {}, "progress": {"step": 0}, "best": []},
}


def plain_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint file, or an exported folder, holds, by the keys of the file."""
    return to_plain(load(path))


def write_plain(content: Mapping[str, Any], path: Path) -> None:
    """A checkpoint file of just these keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"schema": SCHEMA, **content}, path)


def as_checkpoint(content: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint of plain containers; what they lack is empty."""
    config = {**EMPTY["config"], **content.get("config", {})}
    return from_plain({**EMPTY, **content, "config": config})
