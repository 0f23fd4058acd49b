"""Running a model over the images of a split, shared among processes, and over texts; the cosines of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from cxrcl.types import Batch, EmbedsText, EvalData, Gathers, ProjectsText, Tokenizer


def share(runtime: Gathers, count: int, batch_size: int) -> range:
    """Positions of this process among `count`: whole batches, contiguous, disjoint, covering.

    A matrix product rounds a row differently in batches of different sizes. So that metrics are the same for any number
    of processes, each image is encoded in the same batch, whichever process encodes it.
    """
    batches = runtime.shard(-(-count // batch_size))
    return range(batches.start * batch_size, min(batches.stop * batch_size, count))


def over_images(
    data: EvalData, split: str, runtime: Gathers, compute: Callable[[Batch], Mapping[str, Tensor]], batch_size: int
) -> dict[str, Tensor]:
    """Rows of all images of a split by name, in its order.

    Every process computes its share; the result is the same in each and does not depend on their number.

    Args:
        compute: batch of B images -> float [B, ...] by name.

    Returns:
        float32 [N, ...] on the CPU.
    """
    parts: list[dict[str, Tensor]] = []
    for batch in data.batches(split, share(runtime, data.size(split), batch_size), batch_size):
        parts.append({name: rows.float() for name, rows in compute(batch).items()})
    if not parts:
        # A process without a share still takes part in the gather: it needs the shape of a row.
        example = next(iter(data.batches(split, range(1), 1)))
        parts.append({name: rows[:0].float() for name, rows in compute(example).items()})
    return {name: runtime.gather_rows(torch.cat([part[name] for part in parts])).cpu() for name in parts[0]}


def embed_texts(model: EmbedsText, texts: Sequence[str], device: torch.device, batch_size: int = 128) -> Tensor:
    """Unit vectors of N texts, float32 [N, D] on the CPU; texts of similar length are encoded together."""
    return _over_texts(model.embed_text, model.tokenizer, texts, device, batch_size)


def project_texts(model: ProjectsText, texts: Sequence[str], device: torch.device, batch_size: int = 128) -> Tensor:
    """Projections of N texts before they are normalised, float32 [N, D] on the CPU."""
    return _over_texts(model.project_text, model.tokenizer, texts, device, batch_size)


def _over_texts(
    encode: Callable[[Tensor, Tensor], Tensor],
    tokenizer: Tokenizer,
    texts: Sequence[str],
    device: torch.device,
    batch_size: int,
) -> Tensor:
    order = sorted(range(len(texts)), key=lambda k: len(texts[k]))
    rows: list[Tensor] = []
    for start in range(0, len(order), batch_size):
        tokens = tokenizer([texts[k] for k in order[start : start + batch_size]])
        ids, mask = (torch.tensor(part, dtype=torch.int64, device=device) for part in (tokens.ids, tokens.mask))
        rows.append(encode(ids, mask).float().cpu())
    return torch.cat(rows)[torch.argsort(torch.tensor(order))]


def cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosines [N, M] of unit vectors [N, D] and [M, D], in their own precision."""
    with torch.autocast(rows.device.type, enabled=False):  # bf16 would make ties of near neighbours
        return rows @ columns.T
