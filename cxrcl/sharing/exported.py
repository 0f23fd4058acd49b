"""An exported model: a folder without pickles that is read like a checkpoint. `cxrcl.sharing.exporting` writes it.

- `config.json`: architecture, labels, prompt sentences and what else rebuilds the model; the sha256 of the other files,
  and of itself without them.
- `model.safetensors`: the weights.
- `preprocess.json`: what is done to a film before the model sees it.
- `tokenizer/`: where the text encoder has one.
- `training.safetensors`: hashes of the training films, and directions of the prompts before training.

Other files (the card, towers by themselves, ONNX) are copies for other programs and not read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cxrcl.errors import CheckpointError
from cxrcl.models import folders

FORMAT, SCHEMA = "cxrcl exported model", 1
CONFIG, WEIGHTS, RECORD, PREPROCESS = "config.json", "model.safetensors", "training.safetensors", "preprocess.json"
TOKENIZER = "tokenizer/tokenizer.json"
AVERAGE, TRAINED = "moving average", "as trained"
# Tensors of RECORD.
FILMS, DIRECTIONS = "exposure.films", "initial.directions"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class _Exposure(_Section):
    sources: dict[str, int]


class _Initial(_Section):
    labels: list[str]


class _Data(BaseModel):
    """Settings of the data: what films are read with here; the others are checked where data are read."""

    model_config = ConfigDict(extra="allow")

    sources: dict[str, dict[str, Any] | None]
    read_px: int | None = Field(None, ge=16)


class Config(_Section):
    """What config.json holds beside format, schema and checksums."""

    versions: dict[str, str]
    step: int = Field(ge=0)
    weights: Literal["moving average", "as trained"]
    model: dict[str, dict[str, Any]]
    evaluated: str
    labels: list[str]
    prompts: dict[str, Any]
    prompt_sentences: dict[str, dict[str, list[str]]]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    data: _Data
    exposure: _Exposure | None
    initial: _Initial | None


def looks_exported(folder: Path) -> bool:
    """Whether a folder was meant as an exported model, damaged or not; a run's folder is none."""
    return any((folder / name).is_file() for name in (CONFIG, WEIGHTS))


def is_exported(folder: Path) -> bool:
    """Whether config.json says that the folder is one."""
    content = folders.read_json(folder, CONFIG, [])
    return content is not None and content.get("format") == FORMAT


def read(folder: Path) -> dict[str, Any]:
    """The state of a checkpoint, without what only its training needs; `exported` tells it from one.

    Raises:
        CheckpointError: not an exported model, of a newer schema, changed, damaged or incomplete.
    """
    content = _config(folder)
    sums: Mapping[str, str] = content["sha256"]
    for name in (WEIGHTS, RECORD, PREPROCESS, TOKENIZER):
        if name in sums or name in (WEIGHTS, PREPROCESS):
            _verify(folder, name, sums.get(name))
    try:
        config = Config.model_validate({k: v for k, v in content.items() if k not in ("format", "schema", "sha256")})
    except pydantic.ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise CheckpointError(f"{folder / CONFIG}: {where}: {fault['msg'][0].lower()}{fault['msg'][1:]}") from None
    stored = config.model_dump(exclude={"versions", "step", "weights", "exposure", "initial"})
    stored["transform"] = _json(folder, PREPROCESS).get("transform")
    if TOKENIZER in sums and "text_encoder" in config.model:
        stored["model"]["text_encoder"]["definition"] = _text(folder / TOKENIZER)
    record = _tensors(folder, RECORD) if RECORD in sums else {}
    labels = [] if config.initial is None else config.initial.labels
    films, directions = (record.get(name) for name in (FILMS, DIRECTIONS))
    if (films is not None and (films.dtype, films.dim()) != (torch.int64, 1)) or (
        directions is not None and (directions.dim() != 2 or len(directions) != len(labels))
    ):
        raise CheckpointError(f"{folder / RECORD}: not the record of a training: export the model again")
    weights = _tensors(folder, WEIGHTS)
    if damaged := no_number(weights):
        raise CheckpointError(f"{folder / WEIGHTS}: {damaged} holds nan or infinity, of which no probability comes")
    state: dict[str, Any] = {
        "exported": True,
        "config": stored,
        "progress": {"step": config.step},
        "versions": config.versions,
        "ema" if config.weights == AVERAGE else "model": weights,
    }
    if config.exposure is not None and films is not None:
        state["exposure"] = {"sources": config.exposure.sources, "films": films}
    if directions is not None:
        state["initial"] = {"labels": labels, "directions": directions}
    return state


def no_number(weights: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor with nan or infinity. Attention masks among the buffers may hold minus infinity."""
    found = ((name, value.float()) for name, value in weights.items() if value.is_floating_point())
    return next((name for name, value in found if not (value < torch.inf).all()), None)


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def own_sha256(content: Mapping[str, Any]) -> str:
    """Of config.json as values, without the checksums: spaces and the order of keys are nothing."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _config(folder: Path) -> dict[str, Any]:
    if not looks_exported(folder):
        raise CheckpointError(
            f"{folder}: expected a checkpoint file (of a run checkpoints/best.pt) or an exported model, found a folder"
        )
    content = _json(folder, CONFIG)
    if content.get("format") != FORMAT:
        raise CheckpointError(f"{folder / CONFIG}: not that of an exported model (scripts/export.py writes one)")
    schema, sums = content.get("schema"), content.get("sha256")
    if not isinstance(schema, int) or not isinstance(sums, dict):
        raise CheckpointError(f"{folder / CONFIG}: names no schema or no checksums: export the model again")
    if schema > SCHEMA:
        raise CheckpointError(f"{folder}: exported with schema {schema}, this cxrcl reads up to {SCHEMA}: update")
    if sums.get(CONFIG) != own_sha256(content):
        raise CheckpointError(f"{folder / CONFIG}: changed since the export (wrong checksum): take the original")
    return content


def _json(folder: Path, name: str) -> dict[str, Any]:
    wrong: list[str] = []
    content = folders.read_json(folder, name, wrong)
    if content is None:
        raise CheckpointError(f"{folder}: {wrong[0]}")
    return content


def _verify(folder: Path, name: str, expected: str | None) -> None:
    """Every byte, before any is used."""
    file = folder / name
    if not file.is_file():
        raise CheckpointError(f"{folder}: no {name}: copy the whole folder, or export the model again")
    if fault := folders.fault(file):
        raise CheckpointError(f"{folder}: {fault}")
    if sha256(file) != expected:
        raise CheckpointError(f"{file}: damaged, or changed since the export (wrong checksum): take the original")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file}: cannot be read ({error})") from None


def _tensors(folder: Path, name: str) -> dict[str, Tensor]:
    try:
        return load_file(folder / name)
    except (SafetensorError, ValueError, KeyError) as error:  # a header with a right checksum and wrong content
        raise CheckpointError(f"{folder / name}: cannot be read ({error})") from None
