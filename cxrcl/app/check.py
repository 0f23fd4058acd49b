"""Every node of a training's config against the signature of its class, before data are read or drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from cxrcl.app.evaluators import GIVEN_TO_EVALUATORS
from cxrcl.app.model import ENCODERS, GIVEN_TO_OBJECTIVES
from cxrcl.config import sections
from cxrcl.config.nodes import OPTIMIZER_PACKAGES, Node, bind, locate, wants
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.sources.base import Source
from cxrcl.data.text.prompts import PromptSampler
from cxrcl.errors import ConfigError
from cxrcl.evaluation.evaluator import Evaluator
from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.objectives.base import Objective
from cxrcl.training.optim import Schedule


def check_nodes(cfg: sections.Train, packages: Sequence[str]) -> None:
    """Raises ConfigError for the first node that does not fit its class, or for all that encoders' folders lack."""
    # The last column: parameters that other parts of the run fill in.
    places: list[tuple[str, Node | None, type, tuple[str, ...]]] = [
        ("prompts", cfg.prompts, PromptSampler, ()),
        ("transform", cfg.transform, RadiographTransform, ("spec",)),
        ("image_encoder", cfg.image_encoder, ImageEncoder, ()),
        ("text_encoder", cfg.text_encoder, TextEncoder, ("corpus",)),
        ("objective", cfg.objective, Objective, GIVEN_TO_OBJECTIVES),
        ("optimizer", cfg.optimizer, torch.optim.Optimizer, ("params",)),
        ("schedule", cfg.schedule, Schedule, ("total_steps", "warmup_steps")),
        *((f"evals.{name}", node, Evaluator, GIVEN_TO_EVALUATORS) for name, node in cfg.evals.items()),
        *((f"data.sources.{name}", node, Source, ()) for name, node in cfg.data.sources.items()),
    ]
    for path, node, base, given in places:
        allowed = (*packages, *OPTIMIZER_PACKAGES) if base is torch.optim.Optimizer else packages
        if node is not None:
            bind(node, base, path, dict.fromkeys(given), allowed)
    for key in ("lr", "weight_decay"):  # which the optimizers refuse as well, when the data have been read
        if isinstance(value := cfg.optimizer.get(key), int | float) and value < 0:
            raise ConfigError(f"optimizer.{key}={value}: expected 0 or more")
    check_encoder_folders(cfg.objective, cfg.image_encoder, cfg.text_encoder, packages)


def check_encoder_folders(
    objective: Node, image_encoder: Node | None, text_encoder: Node | None, packages: Sequence[str]
) -> None:
    """Raises ConfigError, one line for everything that the folders of both encoders lack."""
    wanted = wants(objective, Objective, "objective", packages)
    faults: list[str] = []
    for (name, base), node in zip(ENCODERS.items(), (image_encoder, text_encoder), strict=True):
        if name in wanted and node is not None:
            faults += _missing_files(node, base, name, packages)
    if faults:
        raise ConfigError("; ".join(faults))


def _missing_files(node: Node, base: type, path: str, packages: Sequence[str]) -> list[str]:
    """What the folders of an encoder lack, and of encoders nested in it."""
    encoder: Any = locate(node, base, path, packages)
    nested = [(key, value) for key, value in node.items() if isinstance(value, Mapping) and "_target_" in value]
    faults = [f for key, value in nested for f in _missing_files(dict(value), base, f"{path}.{key}", packages)]
    return [f"{path}: {fault}" for fault in encoder.lacking(node)] + faults
