"""The base class of all objectives: what the trainer calls, in which order, and in which precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from cxrcl.types import Batch, StepOutput


class Objective(nn.Module):
    """A task: encoders, loss and the training forward in one module, so that DDP wraps exactly one thing.

    A step calls `targets` (no gradient, once, may be collective), `embed` (differentiable and sample-wise, so that it
    can run in micro-batches) and `loss` (couples samples, always in fp32; gathers over processes through
    `cxrcl.distributed.gather`), and after the update `after_step`.

    Attributes:
        num_views: V, the images of a study in a sample.
        num_texts: T, the texts of a study in a sample.
        per_sample: the loss is a mean over samples, so the gradients of several batches may be accumulated.
        loss_selects: a lower held-out loss tells a better model.
        needs_pooled_only: `embed` uses nothing of the images but pooled features of one view, so they may be cached.
    """

    num_views: ClassVar[int] = 1
    num_texts: ClassVar[int] = 0
    per_sample: ClassVar[bool] = False
    loss_selects: ClassVar[bool] = True
    needs_pooled_only: ClassVar[bool] = False

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        """What the loss compares embeddings with, by name; rows [B, ...]. None by default."""
        return {}

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Differentiable rows [B, ...] by name, each of its own sample only.

        Raises:
            TypeError: the class does not define it.
        """
        raise TypeError(f"{type(self).__name__} does not define embed()")

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        """The loss of this process's rows: what `embed` and `targets` return, [B, ...] each, concatenated over
        micro-batches.

        Raises:
            TypeError: the class does not define it.
        """
        raise TypeError(f"{type(self).__name__} does not define loss()")

    def forward(self, batch: Batch) -> StepOutput:
        """The loss of a whole batch: images float32 [B, V, 3, S, S] and texts [B, T, L]."""
        with torch.no_grad():
            targets = self.targets(batch)
        return self.full_precision_loss(self.embed(batch), targets)

    def full_precision_loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        """`loss` outside of autocast, on embeddings [B, ...] in fp32 (float64 stays float64).

        Logits are cosines times up to 100: bf16 keeps 8 bits, a step of 0.5 at 100, which the softmax would turn into
        a factor of 1.6. Sums of thousands of terms lose as much.
        """
        with torch.autocast(next(iter(embeddings.values())).device.type, enabled=False):
            return self.loss({name: at_least_fp32(value) for name, value in embeddings.items()}, targets)

    def after_step(self, output: StepOutput, step: int, total: int) -> None:
        """Called after each applied update, not after a skipped one: clamps, moving averages, queues.

        Args:
            output: of the step that was applied.
            step, total: updates so far, and of the whole training.
        """

    def chance(self, global_batch: int) -> float | None:
        """The loss of a model that knows nothing, or None where that has no meaning."""
        return None

    @property
    def embedded_views(self) -> int:
        """How many of the views `embed` uses; the others are for `targets`."""
        return self.num_views

    def learns_from(self, labels: Tensor) -> Tensor:
        """bool [B]: samples with labels float32 [B, C] that the loss can use. Training data leave out the others."""
        return torch.ones(len(labels), dtype=torch.bool)

    def check(self, samples: int, global_batch: int) -> None:
        """Called before training with the number of training samples and the batch over all processes.

        Raises:
            ValueError: the two do not suit the objective.
        """
        if global_batch < 2 and not self.per_sample:
            raise ValueError(f"a batch of {global_batch}: a contrastive loss needs two samples or more")

    def evaluated(self) -> nn.Module:
        """What evaluators and inference use: this module, or a part of it."""
        return self


def at_least_fp32(value: Tensor) -> Tensor:
    """A tensor of 16 bits as float32, any other as it is."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
