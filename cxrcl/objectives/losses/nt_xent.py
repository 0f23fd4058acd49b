"""NT-Xent, SimCLR's loss of two views of each image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cxrcl.distributed import gather, offset, world_size
from cxrcl.objectives.losses.contrast import add_logs, check_shapes
from cxrcl.objectives.losses.tiled import TiledNtXent, needs_tiles


class _SelfProducts(torch.autograd.Function):
    """x xᵀ, whose gradient is one product with x instead of autograd's two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x @ x.T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        (x,) = ctx.saved_tensors
        return (grad + grad.T) @ x


def nt_xent_loss(
    first: Tensor, second: Tensor, temperature: float = 0.5, *, logs: dict[str, Tensor] | None = None
) -> Tensor:
    """SimCLR's loss: each of 2B views against all others (NT-Xent, Chen et al. 2020, equation 1).

    - log( exp(x_i · x_p / T) / sum over k != i of exp(x_i · x_k / T) ), where x_p is the other view of x_i's image;
    mean over the 2b views of this process.

    Args:
        first, second: float [b, D] each, unit vectors of the two views of this process's images; row k of one belongs
            to row k of the other.
        temperature: T, divides the cosines.
        logs: filled with `loss`.

    Returns:
        float scalar.

    Raises:
        ValueError: shapes that differ, or a single image over all processes.

    Example:
        >>> import torch
        >>> same = torch.ones(4, 1)
        >>> nt_xent_loss(same, same)  # nothing to tell them by: log(2 x 4 - 1)
        tensor(1.9459)
    """
    check_shapes([first, second])
    count, world = len(first), world_size()
    views = torch.cat([first, second])
    # Columns hold the views of one process after those of another: [first of 0, second of 0, first of 1, ...], so this
    # process's begin at twice its offset and a view's partner lies half of them further on, in a circle.
    start = offset(2 * count)
    partner = torch.arange(2 * count, device=first.device).roll(count) + start
    if needs_tiles(len(views), len(views) * world):
        loss = TiledNtXent.apply(views, gather(views), partner, 1 / temperature)
    else:
        logits = _SelfProducts.apply(views) if world == 1 else views @ gather(views).T
        logits = logits / temperature
        logits.diagonal(start).fill_(-torch.inf)  # a view is not its own negative
        loss = F.cross_entropy(logits, partner)
    add_logs(logs, loss=loss)
    return loss
