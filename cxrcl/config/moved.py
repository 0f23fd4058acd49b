"""Classes and values that have another name than in a checkpoint or a config of an earlier version.

The old name is read as the new one wherever it stands: in a user's YAML, in a checkpoint, in the settings of a run that
goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOVED_CLASSES = {
    "cxrcl.data.prompts.PromptSampler": "cxrcl.data.text.prompts.PromptSampler",
    "cxrcl.data.transforms.RadiographTransform": "cxrcl.data.images.transforms.RadiographTransform",
    "cxrcl.optim.Constant": "cxrcl.training.optim.Constant",
    "cxrcl.optim.Cosine": "cxrcl.training.optim.Cosine",
    "cxrcl.optim.Plateau": "cxrcl.training.optim.Plateau",
}


def current_target(target: str) -> str:
    """The name that a class has today."""
    return MOVED_CLASSES.get(target, target)


def with_current_names(value: Any) -> Any:
    """The same containers, with today's name at every `_target_`, and at values that have another name now."""
    if isinstance(value, Mapping):
        return {key: _current(key, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [with_current_names(part) for part in value]
    return value


def _current(key: Any, value: Any) -> Any:
    if key == "_target_" and isinstance(value, str):
        return current_target(value)
    if key == "train_fit" and value == "film":
        return "image"
    return with_current_names(value)
