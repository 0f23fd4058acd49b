"""The gradient of a large batch in the memory of a small one (Gao et al. 2021, "GradCache").

A contrastive loss couples all samples of a batch, but only through their embeddings. So the encoders run twice over a
few samples at a time: first without gradient, to embed them; then, with the gradient of the loss over the whole batch
with respect to these embeddings at hand, once more to carry it on to the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from cxrcl.distributed import Runtime, mixed_seed, statistics_kept
from cxrcl.objectives.base import Objective
from cxrcl.types import Batch, StepOutput


class ForwardOnly(nn.Module):
    """The one forward of an objective that is wrapped for several processes.

    DistributedDataParallel has to see every graph that ends in the parameters, in whichever pass it is made.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: Batch, seed: int | None = None) -> StepOutput | dict[str, Tensor]:
        """The output; given a seed, only the embeddings with the dropout of that seed."""
        if seed is None:
            return self.objective(batch)
        torch.manual_seed(seed)
        return self.objective.embed(batch)


class BatchGradient:
    """Adds the gradient of a batch to that of the parameters.

    Exact for encoders without batch statistics. With BatchNorm it is the gradient of one graph over the same chunks,
    and running statistics move once for each chunk. Dropout draws the same masks in both passes.

    Args:
        objective: in training mode when used.
        runtime: the processes over which gradients are averaged.
        autocast: makes the context of the forward passes.
        scale: multiplies the loss before its backward pass, against underflow in fp16.
        size: samples of this process that go through the encoders at a time; None: all.
    """

    def __init__(
        self,
        objective: Objective,
        runtime: Runtime,
        autocast: Callable[[], AbstractContextManager[Any]],
        scale: Callable[[Tensor], Tensor],
        size: int | None,
    ) -> None:
        self.objective, self.runtime, self.size = objective, runtime, size
        self.autocast, self.scale = autocast, scale
        self.forward_only = ForwardOnly(objective)
        self.wrapped = runtime.wrap(self.forward_only)

    def add(self, batch: Batch, weight: float, last: bool, watch: Callable[[Tensor], None]) -> StepOutput:
        """The output for the whole batch.

        Args:
            batch: device-ready.
            weight: of the loss.
            last: whether processes average what has been added when this is done.
            watch: called with each part of the loss, before the backward pass.
        """
        chunks = chunks_of(batch, self.size)
        if len(chunks) == 1 or self.objective.per_sample:
            return self._in_one_pass(chunks, weight, last, watch)
        return self._in_two_passes(batch, chunks, weight, last, watch)

    def _in_one_pass(
        self, chunks: Sequence[Batch], weight: float, last: bool, watch: Callable[[Tensor], None]
    ) -> StepOutput:
        """Each chunk by itself: its gradients add up where the loss is a mean over samples."""
        count = sum(len(chunk.index) for chunk in chunks)
        shares = [len(chunk.index) / count for chunk in chunks]
        outputs: list[StepOutput] = []
        for k, (chunk, share) in enumerate(zip(chunks, shares, strict=True)):
            with self._averaged(last and k == len(chunks) - 1):
                with self.autocast():
                    output = self.wrapped(chunk)
                watch(output.loss)
                self.scale(output.loss * (weight * share)).backward()
            outputs.append(output)
        return outputs[0] if len(chunks) == 1 else _joined(outputs, shares)

    def _in_two_passes(
        self, batch: Batch, chunks: Sequence[Batch], weight: float, last: bool, watch: Callable[[Tensor], None]
    ) -> StepOutput:
        # Both passes draw the same dropout: a function of the step's seed and of the chunk.
        seeds = [mixed_seed(torch.initial_seed(), k) for k in range(len(chunks))]
        with torch.no_grad(), self.autocast():
            targets = self.objective.targets(batch)
            with statistics_kept(self.objective):
                embedded = [self.forward_only(chunk, seed) for chunk, seed in zip(chunks, seeds, strict=True)]

        leaves = {name: torch.cat([part[name] for part in embedded]).requires_grad_() for name in embedded[0]}
        output = self.objective.full_precision_loss(leaves, targets)
        watch(output.loss)
        parameters = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        roots = [*leaves.values(), *parameters]
        gradients = torch.autograd.grad(self.scale(output.loss * weight), roots, allow_unused=True)
        sizes = [len(chunk.index) for chunk in chunks]
        of_embeddings = {
            name: gradient.split(sizes) for name, gradient in zip(leaves, gradients) if gradient is not None
        }
        # Parameters of the loss itself, such as the scale: they have their gradient already.
        of_parameters = [(p, g) for p, g in zip(parameters, gradients[len(leaves) :], strict=True) if g is not None]

        for k, (chunk, seed) in enumerate(zip(chunks, seeds, strict=True)):
            final = k == len(chunks) - 1
            with self._averaged(last and final):
                with self.autocast():
                    embeddings = self.wrapped(chunk, seed)
                pairs = [(embeddings[name], parts[k]) for name, parts in of_embeddings.items()]
                pairs = [pair for pair in pairs if pair[0].requires_grad] + (of_parameters if final else [])
                if pairs:  # else all encoders are frozen
                    torch.autograd.backward([root for root, _ in pairs], [gradient for _, gradient in pairs])
        return output

    def _averaged(self, now: bool) -> AbstractContextManager[Any]:
        """Whether a backward pass inside ends with the mean over processes."""
        return nullcontext() if now or self.runtime.world == 1 else self.wrapped.no_sync()  # type: ignore[operator]


def chunks_of(batch: Batch, size: int | None) -> list[Batch]:
    """The fewest chunks of `size` samples at most. Their sizes differ by one at most: BatchNorm wants no small rest."""
    count = len(batch.index)
    if size is None or size >= count:
        return [batch]
    number = -(-count // size)
    return [batch.rows(slice(k * count // number, (k + 1) * count // number)) for k in range(number)]


def _joined(outputs: Sequence[StepOutput], shares: Sequence[float]) -> StepOutput:
    """One output of those of chunks: means over samples, and the rows of every state."""

    def mean(values: Sequence[Tensor]) -> Tensor:
        return torch.stack([share * value for share, value in zip(shares, values, strict=True)]).sum(dim=0)

    logs = {name: mean([output.logs[name] for output in outputs]) for name in outputs[0].logs}
    state = {name: torch.cat([output.state[name] for output in outputs]) for name in outputs[0].state}
    return StepOutput(mean([output.loss.detach() for output in outputs]), logs, state)
