"""Losses as pure functions of embeddings, over the samples of all processes.

The form that gives the exact gradient of the whole batch: this process's rows against the columns of all processes,
gathered with gradient, averaged over the local rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cxrcl.distributed import gather, offset


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


def exclude_equal(logits: Tensor, rows: Tensor, columns: Tensor, first: int) -> Tensor:
    """Take samples of equal identity, other than the row's own, out of the denominators.

    Args:
        logits: [b, B]; row k's own column is `first` + k.
        rows, columns: int64 [b] and [B] identities.
    """
    equal = rows[:, None] == columns[None]
    own = torch.arange(len(rows), device=rows.device)
    equal[own, first + own] = False
    return logits.masked_fill(equal, -torch.inf)


def info_nce(a: Tensor, b: Tensor, scale: Tensor, identity: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Symmetric InfoNCE of CLIP (Radford et al. 2021, figure 3): ½[CE(s a bᵀ) + CE(s b aᵀ)].

    Args:
        a, b: unit vectors [B, D] of this process; row k of one belongs to row k of the other.
        scale: multiplies the cosines.
        identity: int64 [B]; samples of equal identity are not negatives of each other.

    Returns:
        The losses of a -> b and b -> a, means over local rows.
    """
    first = offset(len(a))
    all_b = gather(b)
    a_to_b = scale * a @ all_b.T
    # One process: the second matrix is the first, transposed.
    b_to_a = a_to_b.T if all_b is b else scale * b @ gather(a).T
    if identity is not None:
        everyone = gather(identity)
        a_to_b = exclude_equal(a_to_b, identity, everyone, first)
        b_to_a = exclude_equal(b_to_a, identity, everyone, first)
    own = torch.arange(first, first + len(a), device=a.device)
    return F.cross_entropy(a_to_b, own), F.cross_entropy(b_to_a, own)
