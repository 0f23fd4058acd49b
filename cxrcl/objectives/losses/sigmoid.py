"""SigLIP's loss: every image-text pair judged by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cxrcl.objectives.losses.contrast import add_logs, as_scalar, gather_sides
from cxrcl.objectives.losses.tiled import tiles


def siglip_loss(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
    text_identities: Tensor | None = None,
    *,
    logs: dict[str, Tensor] | None = None,
) -> Tensor:
    """SigLIP's pairwise sigmoid loss (Zhai et al. 2023, section 3.2 and Algorithm 1).

    - sum over texts j of log sigmoid(z_ij (s v_i · u_j + c)), mean over images i; z is 1 for an image and its own
    text, and -1 for all others. The sum over texts makes it grow with the batch.

    Args:
        image, text: float [b, D] each, unit vectors of this process; row k of one belongs to row k of the other.
        scale: s, multiplies the cosines (1 / temperature); scalar, with gradient where it is learned.
        bias: c, added to the logits; scalar, with gradient where it is learned.
        text_identities: int64 [b], see `clip_loss`; here, an image and an equal text of another sample count as neither
            positive nor negative.
        logs: filled with `loss`, `scale`, `bias` and, with text identities, `equal_texts`.

    Returns:
        float scalar, the mean over the local images.

    Raises:
        ValueError: shapes that differ, or a single sample over all processes.

    Example:
        >>> import torch
        >>> same = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> siglip_loss(same, same, scale=10.0, bias=-10.0)  # log 2 for a pair at 0, and e^-10 for a pair at -10
        tensor(0.6932)
    """
    image_side, text_side = gather_sides([image, text], [text_identities, text_identities])
    scale, bias = as_scalar(scale, image), as_scalar(bias, image)
    loss = _SigmoidLoss.apply(image, text_side.gathered, scale, bias, image_side.texts, text_side.gathered_texts)
    add_logs(logs, loss=loss, scale=scale, bias=bias, texts=text_side)
    return loss


class _SigmoidLoss(torch.autograd.Function):
    """A sum over pairs: the gradient of a pair is known as soon as its logit is, so no tile is kept or made again.

    Args:
        image: float [b, D], unit vectors of this process.
        all_text: float [B, D] of all processes, gathered with gradient.
        scale, bias: float scalars.
        texts, all_texts: int64 [b, n] and [B, m], identities; pairs that share one are left out.
    """

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        all_text: Tensor,
        scale: Tensor,
        bias: Tensor,
        texts: Tensor | None,
        all_texts: Tensor | None,
    ) -> Tensor:
        total, grad_bias = image.new_zeros(()), image.new_zeros(())
        weighted, grad_text = torch.zeros_like(image), torch.zeros_like(all_text)
        scaled = scale * image
        for rows, columns, logits, own in tiles(scaled, all_text, texts, all_texts):
            logits += bias
            positive = own.clone()
            own.fill_(-torch.inf)  # what is left are negatives: softplus(-inf) is 0
            # softplus(x) = - log sigmoid(-x) stays finite where the sigmoid underflows.
            total += F.softplus(logits).sum() + F.softplus(-positive).sum()
            slope = logits.sigmoid_()  # gradient with respect to the logits
            own.copy_(-torch.sigmoid(-positive))
            weighted[rows].addmm_(slope, all_text[columns])
            grad_text[columns].addmm_(slope.T, scaled[rows])
            grad_bias += slope.sum()
        grads = (scale * weighted, grad_text, (weighted * image).sum().to(scale.dtype), grad_bias.to(bias.dtype))
        ctx.save_for_backward(*(grad / len(image) for grad in grads))
        return total / len(image)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(grads[0] * saved for saved in ctx.saved_tensors), None, None)
