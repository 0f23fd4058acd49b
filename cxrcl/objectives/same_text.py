"""Which texts of a batch are equal: they are not negatives of each other."""

from __future__ import annotations

import torch
from torch import Tensor


def text_identity(ids: Tensor, mask: Tensor) -> Tensor:
    """One int64 for each text of [B, L]: equal for equal word pieces, whatever the padding.

    A polynomial hash modulo 2^64; two different texts of a batch of 10,000 collide with a chance of about 1e-12.
    """
    places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    # Odd multipliers from a 64-bit mixing function, wrapping on purpose.
    weights = places * -7046029254386353131
    weights = (weights ^ (weights >> 29)) * -4658895280553007687
    mixed = (ids + 1) * 6364136223846793005
    mixed = (mixed ^ (mixed >> 31)) * (weights | 1)
    return (mixed * mask).sum(dim=1)


def excluded(rows: Tensor, columns: Tensor, first: int) -> Tensor:
    """bool [b, B]: pairs that share a text and are not of the same sample.

    Args:
        rows, columns: int64 [b, n] and [B, m]: identities of the texts that each stands for.
        first: row k's own column is `first` + k (none of these columns where that lies outside).
    """
    shared = torch.zeros(len(rows), len(columns), dtype=torch.bool, device=rows.device)
    for row in rows.unbind(1):
        for column in columns.unbind(1):
            shared |= row[:, None] == column[None]
    shared.diagonal(first).fill_(False)  # empty where it lies outside
    return shared


def share_of_equal(texts: Tensor) -> Tensor:
    """Share of the other samples whose (first) text equals a sample's own, of texts [B, n]; 1: nothing to contrast."""
    values = texts[:, 0].sort().values
    copies = torch.searchsorted(values, values, right=True) - torch.searchsorted(values, values)
    return (copies - 1).float().mean() / (len(values) - 1)
