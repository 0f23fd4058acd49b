"""Running a model over a split, shared among processes, each image exactly once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cxrcl.types import Batch, EmbedsText, EvalData, Gathers


def share(runtime: Gathers, count: int, batch_size: int) -> range:
    """Positions of this process among `count`: whole batches, contiguous, disjoint, covering.

    A matrix product rounds a row differently in batches of different sizes. So that metrics are the same for any number
    of processes, each image is encoded in the same batch, whichever process encodes it.
    """
    batches = runtime.shard(-(-count // batch_size))
    return range(batches.start * batch_size, min(batches.stop * batch_size, count))


def over_images(
    data: EvalData, splits: Sequence[str], runtime: Gathers, compute: Callable[[Batch], Tensor], batch_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Rows of `compute` and labels for all images of the splits, in their order.

    Every process computes its share; the result is the same in each and does not depend on their number.

    Args:
        compute: batch of B images -> float [B, ...].

    Returns:
        float32 [N, ...] and labels float32 [N, C], on the CPU.
    """
    rows, labels = [], []
    for split in splits:
        parts, label_parts = [], []
        for batch in data.batches(split, share(runtime, data.size(split), batch_size), batch_size):
            parts.append(compute(batch).float())
            label_parts.append(batch.labels)
        rows.append(runtime.gather_rows(_stack(parts, compute, data, split, batch_size, runtime)).cpu())
        labels.append(runtime.gather_rows(torch.cat(label_parts) if label_parts else _no_labels(data, runtime)).cpu())
    return torch.cat(rows), torch.cat(labels)


def _no_labels(data: EvalData, runtime: Gathers) -> Tensor:
    return torch.empty((0, len(data.labels)), device=runtime.device)


def _stack(
    parts: list[Tensor],
    compute: Callable[[Batch], Tensor],
    data: EvalData,
    split: str,
    batch_size: int,
    runtime: Gathers,
) -> Tensor:
    if parts:
        return torch.cat(parts)
    # A process without a share still takes part in the gather: it needs the shape of a row.
    example = next(iter(data.batches(split, range(1), batch_size)))
    return compute(example).float()[:0]


def embed_texts(model: EmbedsText, texts: Sequence[str], device: torch.device, batch_size: int = 128) -> Tensor:
    """Unit vectors of N texts, float32 [N, D] on the CPU; texts of similar length are encoded together."""
    order = sorted(range(len(texts)), key=lambda k: len(texts[k]))
    rows: list[Tensor] = []
    for start in range(0, len(order), batch_size):
        tokens = model.tokenizer([texts[k] for k in order[start : start + batch_size]])
        ids, mask = (torch.tensor(part, dtype=torch.int64, device=device) for part in (tokens.ids, tokens.mask))
        rows.append(model.embed_text(ids, mask).float().cpu())
    embedded = torch.cat(rows)
    return embedded[torch.argsort(torch.tensor(order))]
