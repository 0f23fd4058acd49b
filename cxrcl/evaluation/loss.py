"""The objective's own loss on held-out data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import nn

from cxrcl.types import EvalData, Gathers, Objective


class Loss:
    """Mean loss over fixed batches: no augmentation, no shuffling, the fixed text of each study.

    A contrastive loss depends on the batch size, so it is part of the definition: batches hold `batch_size` images
    over all processes. Incomplete batches are left out; when the split is smaller than one, it is one batch.

    Args:
        data: the splits (given by the application).
        batch_size: by default that of training (given by the application).
        splits: scored splits, each cut into batches of its own.
        without_text: keep images that have no text (for objectives that need none).
    """

    needs: ClassVar[tuple[type, ...]] = (Objective,)
    selects: ClassVar[str] = "total"
    higher_is_better: ClassVar[bool] = False

    def __init__(
        self, data: EvalData, batch_size: int, splits: Sequence[str] = ("valid",), without_text: bool = False
    ) -> None:
        self.data, self.batch_size = data, batch_size
        self.positions: dict[str, list[int]] = {}
        for split in splits:
            everything = range(data.size(split))
            texts = [] if without_text else data.texts(split)
            self.positions[split] = [k for k in everything if without_text or texts[k]]
        if not any(self.positions.values()):
            raise ValueError(f"the splits {', '.join(splits)} have no image{'' if without_text else ' with a text'}")

    def run(self, model: nn.Module, runtime: Gathers) -> dict[str, float]:
        objective = cast(Objective, model)
        losses = []
        for split, positions in self.positions.items():
            size = min(self.batch_size, len(positions)) // runtime.world * runtime.world
            for start in range(0, len(positions) - size + 1, max(size, 1)) if size else ():
                mine = [positions[start + k] for k in runtime.shard(size)]
                for batch in self.data.batches(split, mine, len(mine), texts=objective.num_texts > 0):
                    losses.append(objective(batch).loss.detach())
        return {"total": float(runtime.mean(torch.stack(losses).mean())) if losses else float("nan")}
