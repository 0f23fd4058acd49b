"""SigLIP: every image-text pair judged by itself (Zhai et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.distributed import offset
from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.heads import Head
from cxrcl.objectives.losses import sides
from cxrcl.objectives.tiled import tile_side, tiles
from cxrcl.objectives.towers import LearnedScale, Targets, equal_texts
from cxrcl.types import StepOutput


class SigLip(LearnedScale):
    """Pairwise sigmoid loss: - sum over j of log sigmoid(z_ij (s x_i . y_j + b)), mean over images i (equation 1).

    z is 1 for an image and its own text, -1 for others; with `targets=same_text`, pairs that share a text count as
    neither. The sum over texts makes the loss grow with the batch, so no chance level is given.

    Args:
        image_encoder, text_encoder: the towers.
        image_head, text_head: projections; called with the tower's width.
        temperature: start of the learned temperature; the scale 1 / temperature is clamped at 100.
        bias: start of the learned bias; -10 makes almost every pair a negative at the start, as almost every one is.
        targets: `identity` or `same_text`, see `cxrcl.objectives.towers.TwoTowers`.
    """

    num_views: ClassVar[int] = 1
    num_texts: ClassVar[int] = 1

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_head: Callable[..., Head],
        text_head: Callable[..., Head],
        temperature: float = 0.1,
        bias: float = -10.0,
        targets: Targets = "same_text",
    ) -> None:
        super().__init__(image_encoder, text_encoder, image_head, text_head, temperature, targets)
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        text = targets.get("text")
        image_side, text_side = sides([embeddings["image"][:, 0], embeddings["text"][:, 0]], [text, text])
        scale = self.log_scale.exp()
        loss = sigmoid_loss(image_side.own, text_side.everyone, scale, self.bias, text, text_side.all_texts)
        logs = {"loss": loss.detach(), "scale": scale.detach(), "bias": self.bias.detach()}
        logs |= equal_texts(text_side)
        return StepOutput(loss, logs, {})


def sigmoid_loss(
    a: Tensor,
    all_b: Tensor,
    scale: Tensor,
    bias: Tensor,
    texts: Tensor | None = None,
    all_texts: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """The loss of `SigLip` for the rows of this process.

    Args:
        a: unit vectors [b, D] of this process.
        all_b: [B, D] of all processes, gathered with gradient.
        scale, bias: of the cosines.
        texts, all_texts: identities int64 [b, n] and [B, m]; pairs that share one are left out.
        tile: side of the block of pairs that is seen at a time.
    """
    return _SigmoidLoss.apply(a, all_b, scale, bias, texts, all_texts, tile or tile_side(a))


class _SigmoidLoss(torch.autograd.Function):
    """A sum over pairs has its gradient at hand when the pair is seen: nothing is kept or made again."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        all_b: Tensor,
        scale: Tensor,
        bias: Tensor,
        texts: Tensor | None,
        all_texts: Tensor | None,
        tile: int,
    ) -> Tensor:
        first = offset(len(a))
        total, grad_bias = a.new_zeros(()), a.new_zeros(())
        weighted, grad_b = torch.zeros_like(a), torch.zeros_like(all_b)
        scaled = scale * a
        for rows, columns, logits in tiles(scaled, all_b, texts, all_texts, first, tile):
            logits += bias
            own = logits.diagonal(first + rows.start - columns.start)  # empty where it lies outside
            positive = own.clone()
            own.fill_(-torch.inf)  # what is left are negatives
            total += F.softplus(logits).sum() + F.softplus(-positive).sum()
            slope = logits.sigmoid_()  # gradient with respect to the logits
            own.copy_(-torch.sigmoid(-positive))
            weighted[rows].addmm_(slope, all_b[columns])
            grad_b[columns].addmm_(slope.T, scaled[rows])
            grad_bias += slope.sum()
        grads = (scale * weighted, grad_b, (weighted * a).sum().to(scale.dtype), grad_bias.to(bias.dtype))
        ctx.save_for_backward(*(grad / len(a) for grad in grads))
        return total / len(a)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(grads[0] * own for own in ctx.saved_tensors), None, None, None)
