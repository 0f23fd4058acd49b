"""Which texts of a batch are equal: they are not negatives of each other."""

from __future__ import annotations

import torch
from torch import Tensor


def text_identity(ids: Tensor, mask: Tensor) -> Tensor:
    """One number for each text, equal for texts of equal tokens, whatever the padding.

    A polynomial hash modulo 2^64; two different texts of a batch of 10,000 collide with a chance of about 1e-12.

    Args:
        ids, mask: int64 [B, L], tokens, and 1 on tokens, 0 on padding.

    Returns:
        int64 [B].

    Example:
        >>> import torch
        >>> ids = torch.tensor([[1, 5, 2, 0], [1, 5, 2, 9], [1, 6, 2, 0]])
        >>> mask = torch.tensor([[1, 1, 1, 0]] * 3)
        >>> first, second, third = text_identity(ids, mask).tolist()
        >>> first == second, first == third
        (True, False)
    """
    places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    # Odd multipliers from a 64-bit mixing function; int64 arithmetic wraps, on purpose.
    weights = places * -7046029254386353131
    weights = (weights ^ (weights >> 29)) * -4658895280553007687
    mixed = (ids + 1) * 6364136223846793005
    mixed = (mixed ^ (mixed >> 31)) * (weights | 1)
    return (mixed * mask).sum(dim=1)


def excluded(rows: Tensor, columns: Tensor, first: int) -> Tensor:
    """The pairs that share a text and are not of the same sample.

    Args:
        rows, columns: int64 [b, n] and [B, m], identities of the texts that each stands for.
        first: row k's own column is `first` + k; none of these columns where that lies outside.

    Returns:
        bool [b, B].
    """
    shared = torch.zeros(len(rows), len(columns), dtype=torch.bool, device=rows.device)
    # n and m are 1 or 2: a comparison for each keeps memory at [b, B].
    for row in rows.unbind(1):
        for column in columns.unbind(1):
            shared |= row[:, None] == column[None]
    shared.diagonal(first).fill_(False)  # empty where it lies outside
    return shared


def share_of_equal(texts: Tensor) -> Tensor:
    """Share of the other samples whose (first) text equals a sample's own; 1 where there is nothing to contrast.

    Args:
        texts: int64 [B, n], identities.

    Returns:
        float32 scalar.
    """
    # Sorted, the copies of a text lie side by side: B log B, where comparing all pairs would take B² numbers.
    values = texts[:, 0].sort().values
    copies = torch.searchsorted(values, values, right=True) - torch.searchsorted(values, values)
    return (copies - 1).float().mean() / (len(values) - 1)
