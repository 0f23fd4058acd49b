"""MoCo's loss: a query against its key and a queue of earlier keys."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cxrcl.objectives.losses.contrast import add_logs


def moco_loss(
    query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.2, *, logs: dict[str, Tensor] | None = None
) -> Tensor:
    """InfoNCE of queries with a queue of negatives (He et al. 2020, equation 1).

    - log( exp(q · k / T) / (exp(q · k / T) + sum over the queue of exp(q · n / T)) ), mean over the local queries.
    Nothing is gathered: the queue holds the negatives, the same in every process.

    Args:
        query: float [b, D], unit vectors of this process.
        key: float [b, D], unit vectors of the other views, by the momentum encoder; without gradient.
        queue: float [K, D], keys of earlier batches, without gradient. Write this batch's keys into it after the
            update: autograd needs the queue of the forward pass to be unchanged.
        temperature: T, divides the cosines.
        logs: filled with `loss`, `positive_cosine` and `queue_cosine` (means), and `accuracy`, the share of queries
            that are nearer to their key than to any of the queue.

    Returns:
        float scalar.

    Raises:
        ValueError: queries and keys of different shapes.

    Example:
        >>> import torch
        >>> query = key = torch.tensor([[1.0, 0.0]])
        >>> moco_loss(query, key, queue=torch.tensor([[0.0, 1.0]]), temperature=1.0)  # log(1 + exp(-1))
        tensor(0.3133)
    """
    if query.shape != key.shape or query.ndim != 2:
        raise ValueError(f"query {list(query.shape)} and key {list(key.shape)}: expected the same [B, D]")
    positive, negative = (query * key).sum(dim=1), query @ queue.to(query.dtype).T
    # Column 0 is the own key, the others are the queue.
    logits = torch.cat([positive[:, None], negative], dim=1) / temperature
    loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
    if logs is not None:
        positive, negative = positive.detach(), negative.detach()
        accuracy = (positive > negative.amax(dim=1)).float().mean()
        add_logs(logs, loss=loss, positive_cosine=positive.mean(), queue_cosine=negative.mean(), accuracy=accuracy)
    return loss
