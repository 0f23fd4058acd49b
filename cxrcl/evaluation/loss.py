"""The objective's own loss on held-out data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch

from cxrcl.evaluation.evaluator import Evaluator, EvaluatorResult
from cxrcl.evaluation.shared_pass import SharedPass
from cxrcl.types import ComputesLoss, EvalData


class Loss(Evaluator):
    """Mean loss over fixed batches: no shuffling, no augmentation, the fixed text of each study.

    Objectives over several views or texts see augmentations of the image or draws of the text that are the same at
    every evaluation. A contrastive loss depends on the batch size, so it is part of the definition: batches hold
    `batch_size` images over all processes. Incomplete batches are left out; a split smaller than one is one batch (cut
    to a multiple of the processes). Objectives that read text see images that have one. Of a sum of objectives it is
    the loss of the primary part.

    Args:
        batch_size: that of training.
        splits: each is cut into batches of its own.
    """

    needs: ClassVar[tuple[type, ...]] = (ComputesLoss,)
    selects: ClassVar[str] = "total"
    higher_is_better: ClassVar[bool] = False

    def __init__(self, data: EvalData, batch_size: int, splits: Sequence[str] = ("valid",)) -> None:
        self.data, self.batch_size, self.splits = data, batch_size, tuple(splits)
        if not any(data.size(split) for split in self.splits):
            raise ValueError(f"the splits {', '.join(self.splits)} have no image")

    def run(self, shared: SharedPass) -> EvaluatorResult:
        objective, runtime = cast(ComputesLoss, shared.model), shared.runtime
        takes_text = objective.num_texts > 0
        losses, shares = [], []
        for split in self.splits:
            texts = self.data.texts(split) if takes_text else None
            positions = [k for k in range(self.data.size(split)) if texts is None or texts[k]]
            size = min(self.batch_size, len(positions)) // runtime.world * runtime.world
            if size == 1 and not objective.per_sample:  # nothing to contrast with
                continue
            for start in range(0, len(positions) - size + 1, size) if size else ():
                mine = [positions[start + k] for k in runtime.shard(size)]
                for batch in shared.data.batches(split, mine, len(mine), objective.num_texts, objective.num_views):
                    losses.append(objective(batch).loss.detach().float())
                    # A batch counts by the samples that the loss can use.
                    shares.append(objective.learns_from(batch.labels).float().mean().to(losses[-1].device))
        if not losses:
            return EvaluatorResult({"total": float("nan")})
        means, weights = runtime.mean(torch.stack(losses)), runtime.mean(torch.stack(shares))
        return EvaluatorResult({"total": float((means * weights).sum() / weights.sum())})
