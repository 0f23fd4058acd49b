"""A moving average of weights during training, which evaluation and inference use (Polyak & Juditsky 1992)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cxrcl.distributed import running_statistics


class Average:
    """A copy of a model whose weights follow it: average = d average + (1 - d) weights after each update.

    d is min(decay, (1 + t) / (10 + t)) at update t = 0, 1, ..., so that the random weights of the start fade soon.
    Trained parameters and the running statistics of BatchNorm are averaged. All else (frozen layers, MoCo's keys and
    queue) is shared with the model: it costs no memory and is the same in both.

    Args:
        model: on its device.
        decay: such as 0.999, a memory of about a thousand updates.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        followed = _averaged(model)
        kept = {id(tensor) for tensor in followed}
        shared = {id(t): t for t in (*model.parameters(), *model.buffers()) if id(t) not in kept}
        self.model: Any = copy.deepcopy(model, shared).eval()
        self.followed, self.averages = followed, _averaged(self.model)
        for average in self.averages:
            average.requires_grad_(False)
        self.decay = decay
        self.updates = 0

    def update(self) -> None:
        """Called after each update of the weights."""
        now = min(self.decay, (1 + self.updates) / (10 + self.updates))
        get_ema_multi_avg_fn(now)(self.averages, self.followed, self.updates)
        self.updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def load_state_dict(self, weights: Mapping[str, Tensor], updates: int) -> None:
        self.model.load_state_dict(weights)
        self.updates = updates


def _averaged(model: nn.Module) -> list[Tensor]:
    """What is averaged, in the order of registration."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad] + running_statistics(model)
