"""InfoNCE and NT-Xent for batches whose logits do not fit: a tile at a time, memory linear in the batch.

The logits of a process's rows against everybody's columns give the log-sum-exp of its rows, and its part of the
log-sum-exp of every column; the parts are joined over processes. The backward pass makes each tile again and has both
softmaxes at once. That is one matrix product forward and three backward, against two and four for both matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cxrcl.distributed import offset, rows_of_all
from cxrcl.objectives.same_text import excluded

MAX_LOGITS = 1024 * 1024  # of one process; from here on they are made a tile at a time, which is then faster, too
TILE_CPU, TILE_ACCELERATOR = 1024, 8192  # a CPU wants a tile in its cache, an accelerator few launches


def needs_tiles(rows: int, columns: int) -> bool:
    """Whether a matrix of logits of this size is made a tile at a time."""
    return rows * columns >= MAX_LOGITS


def _slices(count: int, tile: int) -> list[slice]:
    return [slice(start, min(start + tile, count)) for start in range(0, count, tile)]


def tiles(
    scaled: Tensor, all_b: Tensor, texts: Tensor | None = None, all_texts: Tensor | None = None
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """The tiles of the logits, which are `scaled` times `all_b` transposed.

    Args:
        scaled: float [b, D], rows of this process times the scale.
        all_b: float [B, D], rows of all processes.
        texts, all_texts: int64 [b, n] and [B, m], identities; pairs of different samples that share one are at -inf.

    Yields:
        The slices of rows and columns, their logits [rows, columns], and of these the view that holds the pairs of a
        row and its own column; it is empty where they lie outside of the tile. All tiles use the same memory: a tile
        is overwritten by the next, and may be overwritten by the caller.
    """
    tile, first = TILE_CPU if scaled.device.type == "cpu" else TILE_ACCELERATOR, offset(len(scaled))
    space = scaled.new_empty(min(tile, len(scaled)) * min(tile, len(all_b)))
    for rows in _slices(len(scaled), tile):
        for columns in _slices(len(all_b), tile):
            height, width = rows.stop - rows.start, columns.stop - columns.start
            logits = torch.mm(scaled[rows], all_b[columns].T, out=space[: height * width].view(height, width))
            own = first + rows.start - columns.start
            if texts is not None and all_texts is not None:
                logits.masked_fill_(excluded(texts[rows], all_texts[columns], own), -torch.inf)
            yield rows, columns, logits, logits.diagonal(own)


class TiledInfoNce(torch.autograd.Function):
    """The losses of `info_nce`, equal to rounding, with the same gradient over all processes.

    Only their sum over processes is the gradient of the global loss: one process's is not that of its part of the loss.

    Args:
        a: float [b, D], rows of this process.
        all_b: float [B, D], rows of all processes, gathered with gradient.
        scale: float scalar.
        texts, all_texts: int64 [b, n] and [B, m], identities; pairs of different samples that share one are left out.
        smoothing: label smoothing.

    Returns:
        The losses of a -> b and of b -> a, float scalars.
    """

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        all_b: Tensor,
        scale: Tensor,
        texts: Tensor | None,
        all_texts: Tensor | None,
        smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        first = offset(len(a))
        own_columns = slice(first, first + len(a))
        row_lse = a.new_full((len(a),), -torch.inf)
        column_lse = a.new_full((len(all_b),), -torch.inf)
        row_sum, row_count = torch.zeros_like(row_lse), torch.zeros_like(row_lse)
        column_sum, column_count = torch.zeros_like(column_lse), torch.zeros_like(column_lse)
        scaled = scale * a
        for rows, columns, logits, _ in tiles(scaled, all_b, texts, all_texts):
            # Logs are added, not exponentials: at a scale of 100 these overflow in fp32.
            row_lse[rows] = torch.logaddexp(row_lse[rows], logits.logsumexp(dim=1))
            column_lse[columns] = torch.logaddexp(column_lse[columns], logits.logsumexp(dim=0))
            if smoothing:
                counted = logits > -torch.inf
                kept = logits.masked_fill(~counted, 0)
                row_sum[rows] += kept.sum(dim=1)
                row_count[rows] += counted.sum(dim=1)
                column_sum[columns] += kept.sum(dim=0)
                column_count[columns] += counted.sum(dim=0)
        # Rows are complete. Of columns each process has the part of its own rows: [world, 3, B].
        parts = rows_of_all(torch.stack([column_lse, column_sum, column_count])[None])
        column_lse = parts[:, 0].logsumexp(dim=0)
        column_sum, column_count = parts[:, 1].sum(dim=0), parts[:, 2].sum(dim=0)
        positive = (1 - smoothing) * (scaled * all_b[own_columns]).sum(dim=1)
        to_b, to_a = (row_lse - positive).mean(), (column_lse[own_columns] - positive).mean()
        if smoothing:
            to_b -= smoothing * (row_sum / row_count).mean()
            to_a -= smoothing * (column_sum / column_count)[own_columns].mean()
        ctx.save_for_backward(a, all_b, scale, texts, all_texts, row_lse, column_lse, row_count, column_count)
        ctx.smoothing = smoothing
        return to_b, to_a

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, all_b, scale, texts, all_texts, row_lse, column_lse, row_count, column_count = ctx.saved_tensors
        grad_to_b, grad_to_a = (grad / len(a) for grad in grads)
        first = offset(len(a))
        own_columns = slice(first, first + len(a))
        scaled = scale * a
        weighted = torch.zeros_like(a)  # G b, where G is the gradient with respect to the logits
        grad_b = torch.zeros_like(all_b)
        for rows, columns, logits, _ in tiles(scaled, all_b, texts, all_texts):
            slope = (logits - row_lse[rows, None]).exp_().mul_(grad_to_b)
            if ctx.smoothing:
                counted = logits > -torch.inf
                flat = grad_to_b / row_count[rows, None] + grad_to_a / column_count[None, columns]
                slope -= ctx.smoothing * flat * counted
            # The logits' memory is used up last: nothing above may come after this line.
            slope += logits.sub_(column_lse[columns]).exp_().mul_(grad_to_a)
            weighted[rows].addmm_(slope, all_b[columns])
            grad_b[columns].addmm_(slope.T, scaled[rows])
        pull = (1 - ctx.smoothing) * (grad_to_b + grad_to_a)
        weighted -= pull * all_b[own_columns]
        grad_b[own_columns] -= pull * scaled
        return scale * weighted, grad_b, (weighted * a).sum().to(scale.dtype), None, None, None


class TiledNtXent(torch.autograd.Function):
    """The loss of `nt_xent_loss`, equal to rounding, with the same gradient over all processes.

    Args:
        views: float [v, D], views of this process.
        all_views: float [V, D], views of all processes, gathered with gradient.
        partner: int64 [v], the column of each view's positive.
        scale: multiplies the cosines.

    Returns:
        float scalar.
    """

    @staticmethod
    def forward(ctx: Any, views: Tensor, all_views: Tensor, partner: Tensor, scale: float) -> Tensor:
        lse = views.new_full((len(views),), -torch.inf)
        for rows, _, logits, own in tiles(scale * views, all_views):
            own.fill_(-torch.inf)  # a view is not its own negative
            lse[rows] = torch.logaddexp(lse[rows], logits.logsumexp(dim=1))
        ctx.save_for_backward(views, all_views, partner, lse)
        ctx.scale = scale
        return (lse - scale * (views * all_views[partner]).sum(dim=1)).mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        views, all_views, partner, lse = ctx.saved_tensors
        pull = grads[0] * ctx.scale / len(views)
        grad_views = -pull * all_views[partner]
        grad_all = torch.zeros_like(all_views).index_add_(0, partner, -pull * views)
        for rows, columns, logits, own in tiles(ctx.scale * views, all_views):
            own.fill_(-torch.inf)
            slope = (logits - lse[rows, None]).exp_().mul_(pull)
            grad_views[rows].addmm_(slope, all_views[columns])
            grad_all[columns].addmm_(slope.T, views[rows])
        return grad_views, grad_all, None, None
