"""An exported model: a folder without pickles that is read like a checkpoint. `cxrcl.export.exporting` writes it.

- `config.json`: architecture, labels, prompt sentences and what else rebuilds the model; the sha256 of the other files,
  and of itself without them.
- `model.safetensors`: the weights.
- `preprocess.json`: what is done to an image before the model sees it.
- `tokenizer/`: where the text encoder has one.
- `training.safetensors`: hashes of what it was trained on, as far as they were not left out, and directions of the
  prompts before training.

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

from cxrcl.checkpoint.content import (
    Checkpoint,
    Origin,
    Progress,
    PromptDirections,
    Recipe,
    TrainingState,
    exposure_from_plain,
)
from cxrcl.config.moved import with_current_names
from cxrcl.data.exposure import HASHES, Exposure
from cxrcl.errors import CheckpointError
from cxrcl.models import folders

FORMAT = "cxrcl exported model"
# 2: of the exposure only sources and TRAINING_IMAGES. 1: that tensor was called exposure.films.
SCHEMA = 3
CONFIG, WEIGHTS, RECORD, PREPROCESS = "config.json", "model.safetensors", "training.safetensors", "preprocess.json"
TOKENIZER = "tokenizer/tokenizer.json"
AVERAGE, TRAINED = "moving average", "as trained"
# Tensors of RECORD.
TRAINING_IMAGES, DIRECTIONS = "exposure.training_images", "initial.directions"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class _Training(_Section):
    salt: str = Field(pattern=r"([0-9a-f]{32})?")
    without_pixels: int = Field(ge=0)


class _Exposure(_Section):
    sources: dict[str, int]
    unrecorded: list[str] = []
    trainings: list[_Training] = []


class _Initial(_Section):
    labels: list[str]


class _Data(BaseModel):
    """Settings of the data: what images are read with here; the others are checked where data are read."""

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
    training_views: dict[str, int] | None = None  # as all that was added later: earlier exports lack it


def looks_exported(folder: Path) -> bool:
    """Whether a folder was meant as an exported model, damaged or not; a run's folder is none."""
    return any((folder / name).is_file() for name in (CONFIG, WEIGHTS))


def is_exported(folder: Path) -> bool:
    """Whether config.json says that the folder is one."""
    content = folders.read_json(folder, CONFIG, [])
    return content is not None and content.get("format") == FORMAT


def read(folder: Path) -> Checkpoint:
    """The checkpoint that an exported model is, without what only its training needs.

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
    model = {name: dict(node) for name, node in with_current_names(config.model).items()}
    if TOKENIZER in sums and "text_encoder" in model:
        model["text_encoder"]["definition"] = _text(folder / TOKENIZER)
    record = _tensors(folder, RECORD) if RECORD in sums else {}
    labels = [] if config.initial is None else config.initial.labels
    directions = record.get(DIRECTIONS)
    hashes = [value for name, value in record.items() if name != DIRECTIONS]
    if any((each.dtype, each.dim()) != (torch.int64, 1) for each in hashes) or (
        directions is not None and (directions.dim() != 2 or len(directions) != len(labels))
    ):
        raise CheckpointError(f"{folder / RECORD}: not the record of a training: export the model again")
    weights = _tensors(folder, WEIGHTS)
    if damaged := name_of_nonfinite(weights):
        raise CheckpointError(f"{folder / WEIGHTS}: {damaged} holds nan or infinity, of which no probability comes")
    recipe = Recipe(
        model=model,
        labels=tuple(config.labels),
        evaluated_part=config.evaluated,
        transform=with_current_names(_json(folder, PREPROCESS).get("transform")),
        prompts=with_current_names(config.prompts),
        prompt_sentences=config.prompt_sentences,
        precision=config.precision,
        data=config.data.model_dump(),
        training_views=config.training_views,
    )
    initial = None if directions is None else PromptDirections(tuple(labels), directions)
    averaged = config.weights == AVERAGE
    state = TrainingState(
        weights=None if averaged else weights,
        average=weights if averaged else None,
        progress=Progress(config.step),
        exposure=None if config.exposure is None else _exposure(config.exposure, record),
    )
    return Checkpoint(Origin(recipe, config.versions, initial), state, exported=True)


def hashes_of(exposure: Exposure) -> dict[str, Tensor]:
    """The tensors of RECORD that hold the hashes of an exposure, int64 [n] each."""
    hashes = {
        _hash_name(k, kind): torch.from_numpy(getattr(training, kind))
        for k, training in enumerate(exposure.trainings)
        for kind in HASHES
        if getattr(training, kind) is not None
    }
    return {TRAINING_IMAGES: torch.from_numpy(exposure.training_images), **hashes}


def exposure_section(exposure: Exposure) -> dict[str, Any]:
    """What config.json says of an exposure."""
    trainings = [{"salt": each.salt, "without_pixels": each.without_pixels} for each in exposure.trainings]
    return {"sources": dict(exposure.sources), "unrecorded": list(exposure.unrecorded), "trainings": trainings}


def _hash_name(number: int, kind: str) -> str:
    return f"exposure.{number}.{kind}"


def _exposure(section: _Exposure, record: Mapping[str, Tensor]) -> Exposure | None:
    """None where an earlier version exported a checkpoint without a record."""
    names = record.get(TRAINING_IMAGES, record.get("exposure.films"))
    if names is None and not section.trainings and not section.unrecorded:
        return None
    hashes = [{kind: record.get(_hash_name(k, kind)) for kind in HASHES} for k in range(len(section.trainings))]
    listed = {"trainings": [{**vars(one), **found} for one, found in zip(section.trainings, hashes, strict=True)]}
    empty = torch.zeros(0, dtype=torch.int64)
    return exposure_from_plain({**vars(section), **listed, "training_images": empty if names is None else names})


def name_of_nonfinite(weights: Mapping[str, Tensor]) -> str | None:
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
