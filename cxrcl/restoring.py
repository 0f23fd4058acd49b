"""The weights of a checkpoint in a model: the same one, or another that starts from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxrcl import checkpoint, config
from cxrcl.assemble import build_model, build_transform
from cxrcl.data.transforms import RadiographTransform
from cxrcl.distributed import Runtime
from cxrcl.errors import CheckpointError, ConfigError
from cxrcl.objectives.base import Objective

Packages = Sequence[str]


def usable_weights(state: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The weights of a checkpoint for everything but going on with its training: their average where it has one."""
    return state["ema"] if "ema" in state else state["model"]


def fingerprint(state: Mapping[str, Any]) -> str:
    """Of the weights that are used: 16 hex digits that tell a checkpoint from any other, wherever it lies."""
    digest = hashlib.sha256()
    for name, value in sorted(usable_weights(state).items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def restore(
    file: Path, packages: Packages = config.OWN_PACKAGES, device: torch.device | str = "cpu"
) -> tuple[Mapping[str, Any], Objective, RadiographTransform]:
    """What a checkpoint holds, its model with the weights, in evaluation mode, and its transform.

    Raises:
        CheckpointError: a file that cannot be used.
        ConfigError: settings in it that this version, or `packages`, does not allow.
    """
    state = checkpoint.load(file)
    try:
        model = restore_model(state, packages, device)
        return state, model, build_transform(state["config"]["transform"], model, packages)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    except Exception as error:  # values that no training wrote fail in the towers' libraries, in many ways
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise CheckpointError(f"{file}: its model cannot be made ({reason})") from error


def restore_model(
    state: Mapping[str, Any], packages: Packages = config.OWN_PACKAGES, device: torch.device | str = "cpu"
) -> Objective:
    """The model of a checkpoint with its weights, in evaluation mode: no other file, no network.

    Raises:
        CheckpointError: the weights do not fit the stored architecture in every tensor.
    """
    stored = state["config"]
    model = build_model(stored["model"], stored["labels"], None, packages)
    report = checkpoint.lay_in(model, usable_weights(state))
    if not report.fits:
        raise CheckpointError(f"the weights do not fit the stored architecture: {report}")
    return model.eval().to(device)


def untrained(
    state: Mapping[str, Any], packages: Packages = config.OWN_PACKAGES, device: torch.device | str = "cpu"
) -> Objective:
    """The architecture of a checkpoint with random weights, always the same ones: what training has to beat."""
    stored = state["config"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(stored["model"], stored["labels"], None, packages).eval().to(device)


def init_from(objective: Objective, state: Mapping[str, Any], name: str, runtime: Runtime) -> None:
    """Weights of another run; each of its towers that this model has must match in every tensor."""
    towers = [key for key, _ in objective.named_children() if key.endswith("_encoder")]
    taken = _renamed(dict(usable_weights(state)), objective, state["config"].get("evaluated", ""))
    if getattr(objective, "labels", None) not in (None, tuple(state["config"]["labels"])):
        # Rows of another label list mean something else; towers, and parts without labels, do not depend on it.
        of_labels = [
            key for key, part in objective.named_modules() if hasattr(part, "labels") and part is not objective
        ]
        heads = tuple(f"{key}." for key in of_labels) or ("",)
        taken = {k: v for k, v in taken.items() if k.split(".")[0] in towers or not k.startswith(heads)}
    vocabulary = getattr(getattr(objective, "tokenizer", None), "definition", None)
    other = state["config"]["model"].get("text_encoder", {}).get("definition")
    if vocabulary is not None and other is not None and vocabulary != other:
        raise ConfigError(
            f"init_from={name}: its tokenizer is another one than that of text_encoder: its word embeddings mean "
            "nothing here; choose the text encoder of the checkpoint"
        )
    report = checkpoint.lay_in(objective, taken)
    if runtime.is_main:
        print(f"init_from {name}: {report}", flush=True)
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
