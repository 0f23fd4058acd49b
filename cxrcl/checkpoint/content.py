"""What a checkpoint holds. Built in `cxrcl.training.run_folder`, read and written in `cxrcl.checkpoint.file`.

`to_plain` and `from_plain` are the only places that know the keys of the file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxrcl.config.moved import with_current_names
from cxrcl.data.exposure import Exposure, Training

# 2: of the exposure only sources and hashes of image names without a salt. 1: these hashes were called exposure.films,
# and some classes had other names.
SCHEMA = 3
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """What rebuilds the model, its preprocessing and its data without any other file: plain values.

    Attributes:
        model: config nodes of `objective`, `image_encoder` and `text_encoder`, as far as there are.
        labels: in the order of the columns of label arrays.
        evaluated_part: name of the part of the objective that evaluators see; '' for the whole.
        transform: node of the image transform.
        prompts: node of the prompt sampler.
        prompt_sentences: label -> kind (pos, neg, unc) -> sentences, as they were in training.
        precision: auto, fp32, bf16 or fp16.
        data: settings of the data, folders absolute.
        settings: the composed config of the training; None in an exported model.
        manifest_fingerprint: of the data trained on; None in an exported model.
        training_views: view -> number of training images, of this training alone; None where it was not recorded.
    """

    model: Mapping[str, Mapping[str, Any]]
    labels: tuple[str, ...]
    evaluated_part: str
    transform: Mapping[str, Any]
    prompts: Mapping[str, Any]
    prompt_sentences: dict[str, dict[str, list[str]]]
    precision: str
    data: Mapping[str, Any]
    settings: Mapping[str, Any] | None = None
    manifest_fingerprint: str | None = None
    training_views: Mapping[str, int] | None = None

    @property
    def vocabulary(self) -> str | None:
        """The tokenizer that is stored within the text encoder's node; None where there is none."""
        return self.model.get("text_encoder", {}).get("definition")


@dataclass(frozen=True)
class PromptDirections:
    """The mean direction of each label's positive prompts before the training.

    Attributes:
        labels: C names.
        directions: float32 [C, D].
    """

    labels: tuple[str, ...]
    directions: Tensor


@dataclass(frozen=True)
class Progress:
    """How far a training has come."""

    step: int
    total: int = 0
    seconds: float = 0.0
    bad_images: int = 0
    best_score: float = -math.inf  # of the metric that selects, higher is better
    waited: int = 0  # evaluations since then
    stopped_early: bool = False

    def is_complete(self, total_steps: int) -> bool:
        """Whether nothing of a plan of so many steps is left to do."""
        return self.stopped_early or self.step >= total_steps


@dataclass(frozen=True)
class TrainingState:
    """All that resuming needs beside the recipe. Order, augmentation, texts and dropout are functions of the step.

    Attributes:
        weights: as trained; None in an exported model that has their moving average.
        average: moving average of the weights; None where none was asked for.
        average_updates: how often it was updated.
        optimizer, schedule, scaler: state dicts; empty in an exported model.
        exposure: what the model has been trained on; None in checkpoints from before it was recorded.
    """

    weights: Weights | None
    progress: Progress
    average: Weights | None = None
    average_updates: int = 0
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    scaler: Mapping[str, Any] = field(default_factory=dict)
    exposure: Exposure | None = None


@dataclass(frozen=True)
class Origin:
    """What stays the same through a training and goes into each of its checkpoints.

    Attributes:
        versions: package -> version.
        initial_directions: None where the model reads no text.
    """

    recipe: Recipe
    versions: Mapping[str, str]
    initial_directions: PromptDirections | None


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a checkpoint file, or the folder of an exported model, holds.

    Attributes:
        best: (score, step) of the best checkpoints of the run, the best one first.
        exported: whether it was read from an exported model, which cannot be trained on as it is.
    """

    origin: Origin
    state: TrainingState
    best: tuple[tuple[float, int], ...] = ()
    exported: bool = False

    @property
    def recipe(self) -> Recipe:
        return self.origin.recipe

    @property
    def step(self) -> int:
        return self.state.progress.step

    @property
    def exposure(self) -> Exposure | None:
        return self.state.exposure

    @property
    def weights(self) -> Weights:
        """The weights for everything but going on with the training: their moving average where there is one."""
        weights = self.state.weights if self.state.average is None else self.state.average
        assert weights is not None  # `from_plain` and `exported.read` see to it
        return weights

    def fingerprint(self) -> str:
        """Of `weights`: 16 hex digits that tell a checkpoint from any other, wherever it lies."""
        digest = hashlib.sha256()
        for name, value in sorted(self.weights.items()):
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]


def to_plain(checkpoint: Checkpoint) -> dict[str, Any]:
    """Tensors and plain containers only, which a load with `weights_only=True` accepts."""
    origin, recipe, state = checkpoint.origin, checkpoint.recipe, checkpoint.state
    initial = origin.initial_directions
    plain: dict[str, Any] = {
        "schema": SCHEMA,
        "config": {
            "settings": recipe.settings,
            "fingerprint": recipe.manifest_fingerprint,
            "model": {name: dict(node) for name, node in recipe.model.items()},
            "labels": list(recipe.labels),
            "evaluated": recipe.evaluated_part,
            "transform": dict(recipe.transform),
            "prompts": dict(recipe.prompts),
            "prompt_sentences": dict(recipe.prompt_sentences),
            "precision": recipe.precision,
            "data": dict(recipe.data),
            "training_views": None if recipe.training_views is None else dict(recipe.training_views),
        },
        "versions": dict(origin.versions),
        "initial": {} if initial is None else {"labels": list(initial.labels), "directions": initial.directions},
        "model": state.weights,
        "optimizer": state.optimizer,
        "schedule": state.schedule,
        "scaler": state.scaler,
        "progress": dict(vars(state.progress)),
        "best": [list(entry) for entry in checkpoint.best],
    }
    if state.exposure is not None:
        plain["exposure"] = exposure_to_plain(state.exposure)
    if state.average is not None:
        plain |= {"ema": state.average, "ema_updates": state.average_updates}
    return plain


def from_plain(plain: Mapping[str, Any]) -> Checkpoint:
    """What `to_plain` gave, of this or an earlier schema.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or is of another kind than it was written.
    """
    plain = _upgraded(plain)
    weights = plain.get("ema") if plain["model"] is None else plain["model"]  # an exported average stands alone
    if not isinstance(weights, Mapping):
        raise TypeError(f"model: expected tensors by name, found {type(weights).__name__}")
    config, exposure, initial = plain["config"], plain.get("exposure"), plain.get("initial")
    recipe = Recipe(
        model={name: node for name, node in config["model"].items() if node is not None},
        labels=tuple(config["labels"]),
        evaluated_part=config.get("evaluated", ""),
        transform=config["transform"],
        prompts=config["prompts"],
        prompt_sentences=config["prompt_sentences"],
        precision=config["precision"],
        data=config["data"],
        settings=config["settings"],
        manifest_fingerprint=config["fingerprint"],
        training_views=config.get("training_views"),
    )
    origin = Origin(
        recipe,
        versions=plain["versions"],
        initial_directions=PromptDirections(tuple(initial["labels"]), initial["directions"]) if initial else None,
    )
    state = TrainingState(
        weights=plain["model"],
        progress=Progress(**plain["progress"]),
        average=plain.get("ema"),
        average_updates=plain.get("ema_updates", 0),
        optimizer=plain["optimizer"],
        schedule=plain["schedule"],
        scaler=plain["scaler"],
        exposure=None if exposure is None else exposure_from_plain(exposure),
    )
    return Checkpoint(origin, state, tuple((float(score), int(step)) for score, step in plain["best"]))


def exposure_to_plain(exposure: Exposure) -> dict[str, Any]:
    """Tensors int64 [n] in place of the hashes' arrays, and plain values."""

    def tensors(part: Exposure | Training) -> dict[str, Any]:
        values = vars(part).items()
        return {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in values}

    trainings = [tensors(training) for training in exposure.trainings]
    listed = {"sources": dict(exposure.sources), "unrecorded": list(exposure.unrecorded), "trainings": trainings}
    return {**tensors(exposure), **listed}


def exposure_from_plain(plain: Mapping[str, Any]) -> Exposure:
    """What `exposure_to_plain` gave; earlier versions knew `sources` and `training_images` alone."""

    def arrays(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value.numpy() if isinstance(value, Tensor) else value for name, value in values.items()}

    trainings = tuple(Training(**arrays(training)) for training in plain.get("trainings", ()))
    listed = {"trainings": trainings, "unrecorded": tuple(plain.get("unrecorded", ()))}
    return Exposure(**{**arrays(plain), **listed})


def _upgraded(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A file of schema 1 in the words of today's."""
    if plain["schema"] > 1:
        return dict(plain)
    upgraded = {**plain, "config": with_current_names(plain["config"])}
    exposure = plain.get("exposure")
    if exposure is not None and "films" in exposure:
        upgraded["exposure"] = {"sources": exposure["sources"], "training_images": exposure["films"]}
    return upgraded
