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

TILE_CPU, TILE_ACCELERATOR = 1024, 8192  # a CPU wants a tile in its cache, an accelerator few launches


def tiled_info_nce(
    a: Tensor,
    all_b: Tensor,
    scale: Tensor,
    texts: Tensor | None = None,
    all_texts: Tensor | None = None,
    smoothing: float = 0.0,
    tile: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The losses of `cxrcl.objectives.losses.info_nce`, equal to rounding, with the same gradient over all processes.

    Args:
        a: [b, D] rows of this process.
        all_b: [B, D] of all processes, gathered with gradient.
        texts, all_texts: identities int64 [b, n] and [B, m].
        tile: side of a tile.
    """
    # The sum over processes of these gradients is that of the global loss, not that of each process's own part.
    return _Tiled.apply(a, all_b, scale, texts, all_texts, smoothing, tile or tile_side(a))


def _cuts(count: int, tile: int) -> list[slice]:
    return [slice(start, min(start + tile, count)) for start in range(0, count, tile)]


def tile_side(rows: Tensor) -> int:
    return TILE_CPU if rows.device.type == "cpu" else TILE_ACCELERATOR


def tiles(
    scaled: Tensor, all_b: Tensor, texts: Tensor | None, all_texts: Tensor | None, first: int, tile: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows, columns and logits of each tile of `scaled` [b, D] times `all_b` [B, D]; the logits lie in one place.

    Pairs that share a text and are not of the same sample are at -inf; row k's own column is `first` + k.
    """
    space = scaled.new_empty(min(tile, len(scaled)) * min(tile, len(all_b)))
    for rows in _cuts(len(scaled), tile):
        for columns in _cuts(len(all_b), tile):
            height, width = rows.stop - rows.start, columns.stop - columns.start
            logits = torch.mm(scaled[rows], all_b[columns].T, out=space[: height * width].view(height, width))
            if texts is not None and all_texts is not None:
                shared = excluded(texts[rows], all_texts[columns], first + rows.start - columns.start)
                logits.masked_fill_(shared, -torch.inf)
            yield rows, columns, logits


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        all_b: Tensor,
        scale: Tensor,
        texts: Tensor | None,
        all_texts: Tensor | None,
        smoothing: float,
        tile: int,
    ) -> tuple[Tensor, Tensor]:
        first = offset(len(a))
        mine = slice(first, first + len(a))
        row_lse = a.new_full((len(a),), -torch.inf)
        column_lse = a.new_full((len(all_b),), -torch.inf)
        row_sum, row_count = torch.zeros_like(row_lse), torch.zeros_like(row_lse)
        column_sum, column_count = torch.zeros_like(column_lse), torch.zeros_like(column_lse)
        scaled = scale * a
        for rows, columns, logits in tiles(scaled, all_b, texts, all_texts, first, tile):
            row_lse[rows] = torch.logaddexp(row_lse[rows], logits.logsumexp(dim=1))
            column_lse[columns] = torch.logaddexp(column_lse[columns], logits.logsumexp(dim=0))
            if smoothing:
                counted = logits > -torch.inf
                kept = logits.masked_fill(~counted, 0)
                row_sum[rows] += kept.sum(dim=1)
                row_count[rows] += counted.sum(dim=1)
                column_sum[columns] += kept.sum(dim=0)
                column_count[columns] += counted.sum(dim=0)
        parts = rows_of_all(torch.stack([column_lse, column_sum, column_count])[None])
        column_lse = parts[:, 0].logsumexp(dim=0)
        column_sum, column_count = parts[:, 1].sum(dim=0), parts[:, 2].sum(dim=0)
        positive = (1 - smoothing) * (scaled * all_b[mine]).sum(dim=1)
        to_b, to_a = (row_lse - positive).mean(), (column_lse[mine] - positive).mean()
        if smoothing:
            to_b -= smoothing * (row_sum / row_count).mean()
            to_a -= smoothing * (column_sum / column_count)[mine].mean()
        ctx.save_for_backward(a, all_b, scale, texts, all_texts, row_lse, column_lse, row_count, column_count)
        ctx.smoothing, ctx.tile = smoothing, tile
        return to_b, to_a

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, all_b, scale, texts, all_texts, row_lse, column_lse, row_count, column_count = ctx.saved_tensors
        grad_to_b, grad_to_a = (grad / len(a) for grad in grads)
        first = offset(len(a))
        mine = slice(first, first + len(a))
        scaled = scale * a
        weighted = torch.zeros_like(a)  # G b, where G is the gradient with respect to the logits
        grad_b = torch.zeros_like(all_b)
        for rows, columns, logits in tiles(scaled, all_b, texts, all_texts, first, ctx.tile):
            by_row = (logits - row_lse[rows, None]).exp_().mul_(grad_to_b)
            if ctx.smoothing:
                counted = logits > -torch.inf
                flat = grad_to_b / row_count[rows, None] + grad_to_a / column_count[None, columns]
                by_row -= ctx.smoothing * flat * counted
            by_row += logits.sub_(column_lse[columns]).exp_().mul_(grad_to_a)
            weighted[rows].addmm_(by_row, all_b[columns])
            grad_b[columns].addmm_(by_row.T, scaled[rows])
        pull = (1 - ctx.smoothing) * (grad_to_b + grad_to_a)
        weighted -= pull * all_b[mine]
        grad_b[mine] -= pull * scaled
        return scale * weighted, grad_b, (weighted * a).sum().to(scale.dtype), None, None, None, None


def tiled_nt_xent(own: Tensor, everyone: Tensor, partner: Tensor, scale: float, tile: int | None = None) -> Tensor:
    """The loss of `cxrcl.objectives.simclr.nt_xent`.

    Args:
        own: views [v, D] of this process.
        everyone: [V, D] of all processes, gathered with gradient.
        partner: int64 [v], the column of each view's positive.
        scale: multiplies the cosines.
        tile: side of a tile.
    """
    return _TiledSelf.apply(own, everyone, partner, scale, tile or tile_side(own))


class _TiledSelf(torch.autograd.Function):
    @staticmethod
    def _tiles(own: Tensor, everyone: Tensor, scale: float, tile: int) -> Iterator[tuple[slice, slice, Tensor]]:
        first = offset(len(own))
        for rows, columns, logits in tiles(scale * own, everyone, None, None, first, tile):
            logits.diagonal(first + rows.start - columns.start).fill_(-torch.inf)  # a view is not its own negative
            yield rows, columns, logits

    @staticmethod
    def forward(ctx: Any, own: Tensor, everyone: Tensor, partner: Tensor, scale: float, tile: int) -> Tensor:
        lse = own.new_full((len(own),), -torch.inf)
        for rows, _, logits in _TiledSelf._tiles(own, everyone, scale, tile):
            lse[rows] = torch.logaddexp(lse[rows], logits.logsumexp(dim=1))
        ctx.save_for_backward(own, everyone, partner, lse)
        ctx.scale, ctx.tile = scale, tile
        return (lse - scale * (own * everyone[partner]).sum(dim=1)).mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        own, everyone, partner, lse = ctx.saved_tensors
        pull = grads[0] * ctx.scale / len(own)
        grad_own = -pull * everyone[partner]
        grad_everyone = torch.zeros_like(everyone).index_add_(0, partner, -pull * own)
        for rows, columns, logits in _TiledSelf._tiles(own, everyone, ctx.scale, ctx.tile):
            push = (logits - lse[rows, None]).exp_().mul_(pull)
            grad_own[rows].addmm_(push, everyone[columns])
            grad_everyone[columns].addmm_(push.T, own[rows])
        return grad_own, grad_everyone, None, None, None
