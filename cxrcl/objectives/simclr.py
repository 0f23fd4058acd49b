"""SimCLR: two augmentations of a film against those of other films (Chen et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from cxrcl.distributed import gather, offset, world_size
from cxrcl.models.base import ImageEncoder
from cxrcl.models.heads import Head
from cxrcl.objectives.losses import LARGE
from cxrcl.objectives.tiled import tiled_nt_xent
from cxrcl.objectives.towers import ImageTower, see, unit
from cxrcl.types import Batch, StepOutput


class SimClr(ImageTower):
    """NT-Xent over 2B views (equation 1).

    With `data.unit=study`, studies of several films give two different ones as the two views; `data.unit=image` gives
    two augmentations of one film, as in the paper.

    Args:
        image_encoder: the tower.
        image_head: projection; called with the tower's width. Evaluation uses the features before it.
        temperature: divides the cosines.
    """

    num_views: ClassVar[int] = 2

    def __init__(self, image_encoder: ImageEncoder, image_head: Callable[..., Head], temperature: float = 0.5) -> None:
        super().__init__(image_encoder)
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}: expected a number above 0, such as 0.5")
        self.image_head = image_head(image_encoder.dim)
        self.temperature = temperature

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`image` [B, 2, D], unit vectors."""
        image = unit(self.image_head(see(self.image_encoder, batch, self.num_views).pooled))
        return {"image": image.unflatten(0, (-1, self.num_views))}

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        first, second = embeddings["image"].unbind(1)
        loss = nt_xent(first, second, self.temperature)
        return StepOutput(loss, {"loss": loss.detach()}, {})

    def chance(self, global_batch: int) -> float:
        return math.log(2 * global_batch - 1)


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


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """- log( exp(x_i . x_p / T) / sum over k != i of exp(x_i . x_k / T) ), mean over the 2b views of this process.

    Args:
        a, b: unit vectors [b, D] of the two views; row k of one is the positive of row k of the other.

    Raises:
        ValueError: a single sample over all processes.
    """
    count, world = len(a), world_size()
    if count * world < 2:
        raise ValueError("a contrastive loss needs two samples or more, found 1")
    own = torch.cat([a, b])
    # Columns hold the views of one process after those of another: [a of 0, b of 0, a of 1, b of 1, ...].
    first = offset(2 * count)
    partner = torch.arange(2 * count, device=a.device).roll(count) + first
    if len(own) ** 2 * world >= LARGE:
        return tiled_nt_xent(own, gather(own), partner, 1 / temperature)
    logits = _SelfProducts.apply(own) if world == 1 else own @ gather(own).T
    logits = logits / temperature
    logits.diagonal(first).fill_(-torch.inf)
    return F.cross_entropy(logits, partner)
