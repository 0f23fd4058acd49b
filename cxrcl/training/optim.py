"""Parameter groups, and learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from cxrcl.models.base import Encoder
from cxrcl.training.freezing import layer_numbers
from cxrcl.types import Natural, NotNegative, Share


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    layer_decay: float = 1.0,
    lr: float | None = None,
    encoder_lr_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Two groups: matrices and kernels decay; biases, gains of normalisation layers and scalars do not.

    A parameter decays when it has two dimensions or more, which is the rule that timm and open_clip use. Embedding
    tables therefore decay. Frozen parameters are left out.

    With a `layer_decay` f below 1, two groups for each distance k to the heads, the nearest first: the rate is
    lr f^k, k = 0 for heads and parameters of the loss, 1 for the last layer of each encoder, and so on down to its stem
    (Clark et al. 2020, section 3.1; Bao et al. 2022, as in timm).

    An `encoder_lr_factor` multiplies the rate of all layers of all encoders besides.

    Raises:
        ValueError: a factor other than 1 without the rate that it multiplies.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    factors = {"layer_decay": layer_decay, "encoder_lr_factor": encoder_lr_factor}
    changed = [f"{name}={factor}" for name, factor in factors.items() if factor != 1]
    distances = _distances(module) if changed else {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            distance = distances.get(parameter, 0)
            distance = min(distance, 1) if layer_decay == 1 else distance
            groups.setdefault((distance, parameter.ndim < 2), []).append(parameter)
    if changed and lr is None:
        raise ValueError(f"{', '.join(changed)}: multiplies a learning rate, but the optimizer has no lr")
    rates = {d: lr * layer_decay**d * (encoder_lr_factor if d else 1.0) for d, _ in groups} if changed and lr else {}
    return [
        {"params": groups[distance, plain], "weight_decay": 0.0 if plain else weight_decay}
        | ({"lr": rates[distance]} if rates else {})
        for distance, plain in sorted(groups)
    ]


def _distances(module: nn.Module) -> dict[nn.Parameter, int]:
    """How far below the heads a parameter of an encoder is; encoders inside of encoders belong to the outer one."""
    distances: dict[nn.Parameter, int] = {}
    for part in module.modules():  # the outer one comes first
        if isinstance(part, Encoder):
            numbers, count = layer_numbers(part)
            for parameter, number in numbers.items():
                distances.setdefault(parameter, count - number)
    return distances


class Schedule:
    """Base of all schedules: `factor(step)` multiplies every group's learning rate.

    Args:
        total_steps: optimizer steps of the whole run.
        warmup_steps: steps of linear warm-up; the factor is 1/warmup at step 0 and 1 at step `warmup_steps` - 1.
    """

    def __init__(self, total_steps: int, warmup_steps: int = 0) -> None:
        if not 0 <= warmup_steps < max(total_steps, 1):
            raise ValueError(
                f"warm-up of {warmup_steps} steps does not fit into {total_steps} steps: shorten it, or train longer"
            )
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps

    def factor(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return self.after_warmup(step)

    def after_warmup(self, step: int) -> float:
        return 1.0

    def observe(self, value: float, higher_is_better: bool) -> None:
        """The selection metric, after each evaluation. Only schedules with a state use it."""

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, found {sorted(state)}")


class Constant(Schedule):
    """Warm-up, then 1."""


class Cosine(Schedule):
    """Warm-up, then half a cosine from 1 to `final` (Loshchilov & Hutter 2017, eq. 5, one period)."""

    def __init__(self, total_steps: int, warmup_steps: int = 0, final: Share = 0.0) -> None:
        super().__init__(total_steps, warmup_steps)
        self.final = final

    def after_warmup(self, step: int) -> float:
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class Plateau(Schedule):
    """Warm-up, then 1, multiplied by `decay` after `patience` evaluations without an improvement of `threshold`."""

    def __init__(
        self,
        total_steps: int,
        warmup_steps: int = 0,
        decay: Share = 0.5,
        patience: Natural = 5,
        threshold: NotNegative = 1e-4,
        minimum: Share = 1e-3,
    ) -> None:
        super().__init__(total_steps, warmup_steps)
        self.decay, self.patience, self.threshold, self.minimum = decay, patience, threshold, minimum
        self.current = 1.0
        self.best = -math.inf
        self.waited = 0

    def after_warmup(self, step: int) -> float:
        return self.current

    def observe(self, value: float, higher_is_better: bool) -> None:
        value = value if higher_is_better else -value
        if value > self.best + self.threshold:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.current, self.waited = max(self.current * self.decay, self.minimum), 0

    def state_dict(self) -> dict[str, float]:
        return {"current": self.current, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.current, self.best, self.waited = state["current"], state["best"], int(state["waited"])
