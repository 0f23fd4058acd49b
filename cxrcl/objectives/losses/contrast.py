"""InfoNCE over the samples of all processes, which the losses of images and texts are made of.

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
from cxrcl.objectives.losses.tiled import TiledInfoNce, needs_tiles
from cxrcl.objectives.same_text import excluded, share_of_equal


class Side(NamedTuple):
    """One side of a contrast: unit vectors, and identities of the texts that they stand for."""

    local: Tensor  # float [b, D] of this process, with gradient
    gathered: Tensor  # float [B, D] of all processes, with gradient; `local` itself in a world of one
    texts: Tensor | None  # int64 [b, n] identities of the n texts of each row; None: every other sample is a negative
    gathered_texts: Tensor | None  # int64 [B, n]


def gather_sides(rows: Sequence[Tensor], texts: Sequence[Tensor | None] | None = None) -> list[Side]:
    """Gather the rows of several sides over all processes, in one collective call.

    Args:
        rows: float [b, D] of each side, all of one shape.
        texts: int64 [b, n] of each side, identities of the n texts that each row stands for ([b] where n = 1); None
            where they stand for none.

    Raises:
        ValueError: shapes that differ, or a single sample over all processes, which has nothing to be contrasted with.
    """
    names = [part[:, None] if part is not None and part.ndim == 1 else part for part in texts or [None] * len(rows)]
    check_shapes(rows, names)
    # One collective for all embeddings and one for all identities: each call has a latency of its own.
    gathered = rows if world_size() == 1 else gather(torch.stack(tuple(rows), dim=1)).unbind(1)
    present = [part for part in names if part is not None]
    widths = [part.shape[1] for part in present]
    parts = iter(rows_of_all(torch.cat(present, dim=1)).split(widths, dim=1) if present else ())
    gathered_names = [None if part is None else next(parts) for part in names]
    return [Side(*fields) for fields in zip(rows, gathered, names, gathered_names, strict=True)]


def check_shapes(rows: Sequence[Tensor], texts: Sequence[Tensor | None] = ()) -> None:
    """Raises ValueError unless all rows are [b, D], texts [b, n], and there are two samples over all processes."""
    shapes = [list(part.shape) for part in rows]
    if any(shape != shapes[0] or len(shape) != 2 for shape in shapes):
        raise ValueError(f"embeddings of shapes {', '.join(map(str, shapes))}: expected the same [B, D] for all")
    count = shapes[0][0]
    for part in texts:
        if part is not None and (part.ndim != 2 or len(part) != count):
            raise ValueError(f"text identities of shape {list(part.shape)}: expected [{count}, number of texts]")
    if count * world_size() < 2:
        raise ValueError("a contrastive loss needs two samples or more, found 1")


def info_nce(a: Side, b: Side, scale: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Symmetric InfoNCE: CE(s a bᵀ) and CE(s b aᵀ), where row k of one belongs to row k of the other.

    Radford et al. 2021, figure 3. Pairs of different samples that share a text are left out of the sums.

    Args:
        a, b: the two sides, of b rows in this process and B in all.
        scale: float scalar s, multiplies the cosines.
        smoothing: label smoothing, over the columns that are not left out.

    Returns:
        The losses of a -> b and of b -> a, scalars: means over the local rows.
    """
    first = offset(len(a.local))
    if needs_tiles(len(a.local), len(b.gathered)):
        return TiledInfoNce.apply(a.local, b.gathered, scale, a.texts, b.gathered_texts, smoothing)
    a_to_b = _logits(a, b, scale, first)
    # In one process the second matrix is the first, transposed: one product less.
    b_to_a = a_to_b.T if b.gathered is b.local else _logits(b, a, scale, first)
    return cross_entropy(a_to_b, first, smoothing), cross_entropy(b_to_a, first, smoothing)


def _logits(a: Side, b: Side, scale: Tensor, first: int) -> Tensor:
    """float [b, B], -inf where a pair is left out."""
    logits = scale * a.local @ b.gathered.T
    if a.texts is None or b.gathered_texts is None:
        return logits
    return logits.masked_fill(excluded(a.texts, b.gathered_texts, first), -torch.inf)


def cross_entropy(logits: Tensor, first: int = 0, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of rows whose positives lie on a diagonal; columns at -inf do not count.

    With smoothing e and n columns that count, a row's loss is log sum_j exp(l_j) - (1 - e) l_own - e / n sum_j l_j.

    Args:
        logits: float [b, B].
        first: row k's own column is `first` + k.
        smoothing: label smoothing e.

    Returns:
        float scalar.

    Example:
        >>> import torch
        >>> cross_entropy(torch.zeros(3, 3))
        tensor(1.0986)
    """
    own_columns = torch.arange(first, first + len(logits), device=logits.device)
    if not smoothing:
        return F.cross_entropy(logits, own_columns)
    # PyTorch's own label smoothing would spread over the columns at -inf, too, and give an infinite loss.
    counted = logits > -torch.inf
    spread = logits.masked_fill(~counted, 0).sum(dim=1) / counted.sum(dim=1)
    target = (1 - smoothing) * logits.gather(1, own_columns[:, None])[:, 0] + smoothing * spread
    return (logits.logsumexp(dim=1) - target).mean()


def as_scalar(value: Tensor | float, like: Tensor) -> Tensor:
    """`value` as a scalar tensor; one that is a tensor already keeps its gradient."""
    return value if isinstance(value, Tensor) else like.new_tensor(value)


def add_logs(logs: dict[str, Tensor] | None, texts: Side | None = None, **parts: Tensor) -> None:
    """Detached `parts`, and the share of other samples that are no negatives where equal texts are left out."""
    if logs is None:
        return
    logs |= {name: part.detach() for name, part in parts.items()}
    if texts is not None and texts.gathered_texts is not None:
        logs["equal_texts"] = share_of_equal(texts.gathered_texts)
