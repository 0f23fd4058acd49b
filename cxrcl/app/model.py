"""The objective with its encoders, and what prepares images for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cxrcl.app.data import TrainingTexts
from cxrcl.checkpoint.content import PromptDirections
from cxrcl.config.nodes import Packages, build, wants
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.text import prompts as prompt_files
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError
from cxrcl.evaluation.embed import embed_texts
from cxrcl.evaluation.prompted import directions_of
from cxrcl.models.base import Encoder, ImageEncoder, TextEncoder
from cxrcl.objectives.base import Objective
from cxrcl.training.freezing import Which, freeze
from cxrcl.types import Batch, EmbedsText

logger = logging.getLogger(__name__)

ENCODERS: dict[str, type[Encoder]] = {"image_encoder": ImageEncoder, "text_encoder": TextEncoder}
GIVEN_TO_OBJECTIVES = ("image_encoder", "text_encoder", "labels", "training_labels")


def build_transform(node: Mapping[str, Any], objective: Objective, packages: Packages) -> RadiographTransform:
    """The transform for the size and normalisation of the objective's image encoder."""
    spec = next(part.spec for part in objective.modules() if isinstance(part, ImageEncoder))
    return build(node, RadiographTransform, "transform", {"spec": spec}, packages)


def prepare(transform: RadiographTransform, runtime: Runtime) -> Callable[[Batch], Batch]:
    """Host batch -> batch on the device, images float32 [B, V, 3, S, S]; cached features stay as they are."""

    def ready(batch: Batch) -> Batch:
        batch = batch.to(runtime.device)
        return batch if batch.images is None else transform.finish(batch)

    return ready


def build_model(
    nodes: Mapping[str, Any],
    labels: Sequence[str],
    corpus: TrainingTexts | None,
    packages: Packages,
    training_labels: Tensor | None = None,
    frozen: Mapping[str, Which | None] | None = None,
) -> Objective:
    """Towers that the objective asks for, then the objective.

    Args:
        training_labels: float32 [N, C]; None when a checkpoint is read.
        frozen: layers that are not trained, by the name of the tower.
    """
    wanted = wants(nodes["objective"], Objective, "objective", packages)
    provided: dict[str, Any] = {"labels": tuple(labels), "training_labels": training_labels}
    for name, base in ENCODERS.items():
        which = (frozen or {}).get(name)
        if name not in wanted:
            if which is not None:
                raise ConfigError(f"freeze.{name}={which}: the objective has no {name}, set it to null")
            continue
        if nodes.get(name) is None:
            hint = ", or take that of a checkpoint with init_from=FILE" if name == "image_encoder" else ""
            raise ConfigError(f"{name}: the objective needs one; choose it with {name}=<name>{hint}")
        provided[name] = encoder = build(nodes[name], base, name, {"corpus": corpus}, packages)
        if which is not None:  # before the objective is made: MoCo copies its tower
            try:
                freeze(encoder, which)
            except ValueError as error:
                raise ConfigError(f"freeze.{name}={which}: {error}") from None
    return build(nodes["objective"], Objective, "objective", provided, packages)


def say_what_was_loaded(objective: Objective) -> None:
    """A line for each tower that took its weights from a file."""
    for name, part in objective.named_modules():
        report = getattr(part, "load_report", None) if isinstance(part, Encoder) else None
        if report is not None and name.split(".")[0] in ENCODERS:  # not the copies of towers, such as MoCo's
            logger.info(f"{name}: {report}")


@torch.no_grad()
def prompt_directions(objective: Objective, labels: Sequence[str], device: torch.device) -> PromptDirections | None:
    """The mean direction of each label's positive prompts: kept from before the training, for comparison.

    None where the model reads no text, or the prompts speak of none of the labels (a set of reports has none).
    """
    model = objective.evaluated()
    if not isinstance(model, EmbedsText):
        return None
    prompts = prompt_files.for_labels("zero_shot.json", labels)
    named = [name for name in labels if name in prompts]
    if not named:
        return None
    was_training = objective.training
    objective.eval()
    try:
        directions = directions_of(
            lambda texts: embed_texts(model, texts, device), [prompts[name]["pos"] for name in named]
        )
    finally:
        objective.train(was_training)
    return PromptDirections(tuple(named), directions)
