"""The weights of a checkpoint in a model: the same one, or another that starts from them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cxrcl.app.model import build_model, build_transform
from cxrcl.checkpoint.content import Checkpoint
from cxrcl.checkpoint.file import load
from cxrcl.config.nodes import OWN_PACKAGES, Packages
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.errors import CheckpointError, ConfigError
from cxrcl.models.weights import LoadReport, compare
from cxrcl.objectives.base import Objective

logger = logging.getLogger(__name__)


def restore(
    path: Path, packages: Packages = OWN_PACKAGES, device: torch.device | str = "cpu"
) -> tuple[Checkpoint, Objective, RadiographTransform]:
    """What a checkpoint holds, its model with the weights, in evaluation mode, and its transform.

    Raises:
        CheckpointError: a file that cannot be used.
        ConfigError: settings in it that this version, or `packages`, does not allow.
    """
    checkpoint = load(path)
    try:
        model = restore_model(checkpoint, packages, device)
        return checkpoint, model, build_transform(checkpoint.recipe.transform, model, packages)
    except (ConfigError, CheckpointError) as error:
        raise type(error)(f"{path}: {error}") from None
    except Exception as error:  # values that no training wrote fail in the towers' libraries, in many ways
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise CheckpointError(f"{path}: its model cannot be made ({reason})") from error


def restore_model(
    checkpoint: Checkpoint, packages: Packages = OWN_PACKAGES, device: torch.device | str = "cpu"
) -> Objective:
    """The model of a checkpoint with its weights, in evaluation mode: no other file, no network.

    Raises:
        CheckpointError: the weights do not fit the stored architecture in every tensor.
    """
    recipe = checkpoint.recipe
    model = build_model(recipe.model, recipe.labels, None, packages)
    report = load_matching_weights(model, checkpoint.weights)
    if not report.fits:
        raise CheckpointError(f"the weights do not fit the stored architecture: {report}")
    return model.eval().to(device)


def untrained(
    checkpoint: Checkpoint, packages: Packages = OWN_PACKAGES, device: torch.device | str = "cpu"
) -> Objective:
    """The architecture of a checkpoint with random weights, always the same ones: what training has to beat."""
    recipe = checkpoint.recipe
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(recipe.model, recipe.labels, None, packages).eval().to(device)


def init_from(objective: Objective, checkpoint: Checkpoint, name: str) -> None:
    """Weights of another run; each of its towers that this model has must match in every tensor."""
    towers = [key for key, _ in objective.named_children() if key.endswith("_encoder")]
    taken = _renamed(dict(checkpoint.weights), objective, checkpoint.recipe.evaluated_part)
    if getattr(objective, "labels", None) not in (None, checkpoint.recipe.labels):
        # Rows of another label list mean something else; towers, and parts without labels, do not depend on it.
        of_labels = [
            key for key, part in objective.named_modules() if hasattr(part, "labels") and part is not objective
        ]
        heads = tuple(f"{key}." for key in of_labels) or ("",)
        taken = {k: v for k, v in taken.items() if k.split(".")[0] in towers or not k.startswith(heads)}
    vocabulary = getattr(getattr(objective, "tokenizer", None), "definition", None)
    other = checkpoint.recipe.vocabulary
    if vocabulary is not None and other is not None and vocabulary != other:
        raise ConfigError(
            f"init_from={name}: its tokenizer is another one than that of text_encoder: its word embeddings mean "
            "nothing here; choose the text encoder of the checkpoint"
        )
    report = load_matching_weights(objective, taken)
    logger.info(f"init_from {name}: {report}")
    own = objective.state_dict()
    for tower in towers:
        keys = [key for key in own if key.startswith(f"{tower}.")]
        there = [key for key in keys if key in taken and taken[key].shape == own[key].shape]
        if any(key.startswith(f"{tower}.") for key in taken) and len(there) < len(keys):
            raise ConfigError(
                f"init_from={name}: only {len(there)} of {len(keys)} tensors of {tower} match: "
                f"the architectures differ; set {tower}=... to that of the checkpoint"
            )
    if report.matched == 0:
        raise ConfigError(f"init_from={name}: no tensor matches this model")


def load_matching_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> LoadReport:
    """Copy the weights whose name and shape agree; everything else is reported."""
    # Prefixes that DistributedDataParallel and torch.compile put before every name.
    clean = {key.removeprefix("module.").removeprefix("_orig_mod."): value for key, value in weights.items()}
    good, report = compare(module.state_dict(), clean)
    module.load_state_dict(good, strict=False)
    return report


def evaluated_part(objective: Objective) -> str:
    """The name of the part of an objective that evaluators see; '' for the whole."""
    return next(name for name, part in objective.named_modules() if part is objective.evaluated())


def _renamed(weights: dict[str, Tensor], objective: Objective, source_part: str) -> dict[str, Tensor]:
    """Weights of an objective by itself for the primary part of a sum, and the other way round."""
    target_part = evaluated_part(objective)
    for key in objective.state_dict():
        rest = key.removeprefix(f"{target_part}.") if target_part else key
        there = f"{source_part}.{rest}" if source_part else rest
        if key not in weights and there in weights:
            weights[key] = weights.pop(there)
    return weights
