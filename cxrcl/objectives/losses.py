"""InfoNCE as a pure function of embeddings, over the samples of all processes.

The form that gives the exact gradient of the whole batch: this process's rows against the columns of all processes,
gathered with gradient, averaged over the local rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cxrcl.distributed import gather, offset, rows_of_all, world_size
from cxrcl.objectives.same_text import excluded
from cxrcl.objectives.tiled import tiled_info_nce

LARGE = 1024 * 1024  # logits of one process; from here on they are made a tile at a time


class Side(NamedTuple):
    """One side of a contrast: unit vectors, and the texts that they stand for."""

    own: Tensor  # [b, D] of this process, with gradient
    everyone: Tensor  # [B, D] of all processes, with gradient; `own` itself in a world of one
    texts: Tensor | None  # int64 [b, n] identities, None: every other sample is a negative
    all_texts: Tensor | None  # int64 [B, n]


def sides(rows: Sequence[Tensor], texts: Sequence[Tensor | None] | None = None) -> list[Side]:
    """Gather several [b, D] in one go, with the identities [b, n] of the texts that their rows stand for.

    Raises:
        ValueError: a single sample, which has nothing to be contrasted with.
    """
    if len(rows[0]) * world_size() < 2:
        raise ValueError("a contrastive loss needs two samples or more, found 1")
    everyone = rows if world_size() == 1 else gather(torch.stack(tuple(rows), dim=1)).unbind(1)
    names = list(texts or [None] * len(rows))
    known = [part for part in names if part is not None]
    found = iter(rows_of_all(torch.cat(known, dim=1)).split([part.shape[1] for part in known], dim=1) if known else ())
    all_names = [None if part is None else next(found) for part in names]
    return [Side(*parts) for parts in zip(rows, everyone, names, all_names, strict=True)]


def info_nce(a: Side, b: Side, scale: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Symmetric InfoNCE (CLIP, Radford et al. 2021, figure 3): CE(s a bᵀ) and CE(s b aᵀ).

    Args:
        a, b: row k of one belongs to row k of the other; pairs of samples that share a text are left out.
        scale: multiplies the cosines.
        smoothing: label smoothing, over the columns that are not left out.

    Returns:
        The losses of a -> b and b -> a, means over local rows.
    """
    first = offset(len(a.own))
    if len(a.own) * len(b.everyone) >= LARGE:
        return tiled_info_nce(a.own, b.everyone, scale, a.texts, b.all_texts, smoothing)
    a_to_b = _logits(a, b, scale, first)
    # One process: the second matrix is the first, transposed.
    b_to_a = a_to_b.T if b.everyone is b.own else _logits(b, a, scale, first)
    return cross_entropy(a_to_b, first, smoothing), cross_entropy(b_to_a, first, smoothing)


def _logits(a: Side, b: Side, scale: Tensor, first: int) -> Tensor:
    logits = scale * a.own @ b.everyone.T
    if a.texts is None or b.all_texts is None:
        return logits
    return logits.masked_fill(excluded(a.texts, b.all_texts, first), -torch.inf)


def cross_entropy(logits: Tensor, first: int, smoothing: float = 0.0) -> Tensor:
    """Mean over rows of [b, B], where row k's own column is `first` + k and columns at -inf do not count."""
    own = torch.arange(first, first + len(logits), device=logits.device)
    if not smoothing:
        return F.cross_entropy(logits, own)
    counted = logits > -torch.inf
    spread = logits.masked_fill(~counted, 0).sum(dim=1) / counted.sum(dim=1)
    target = (1 - smoothing) * logits.gather(1, own[:, None])[:, 0] + smoothing * spread
    return (logits.logsumexp(dim=1) - target).mean()
