"""AUROC of a classifier's logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import nn

from cxrcl.evaluation.look import Ask, Look
from cxrcl.evaluation.score_report import Scores
from cxrcl.evaluation.scorer import Scorer
from cxrcl.evaluation.scores import check_names
from cxrcl.types import Classifies, EvalData


class Classification(Scorer):
    """AUROC of each label.

    Args:
        data: the splits (given by the application).
        splits: pooled before scoring.
        mean_over: labels of the mean; None takes all but `No Finding`.
        resamples: bootstrap resamples of patients; 0 gives no intervals.
    """

    needs: ClassVar[tuple[type, ...]] = (Classifies,)

    def __init__(
        self,
        data: EvalData,
        splits: Sequence[str] = ("valid",),
        mean_over: Sequence[str] | None = None,
        resamples: int = 0,
    ) -> None:
        check_names(mean_over, data.labels, "mean_over")
        super().__init__(data, splits, mean_over, resamples)

    def asks(self, model: nn.Module, device: torch.device) -> Sequence[Ask]:
        return [Ask("logits", self.splits, cast(Classifies, model).classify)]

    @property
    def rule(self) -> str:
        return "probability = sigmoid of the classifier's log-odds; not calibrated"

    def score(self, look: Look, splits: Sequence[str]) -> Scores:
        logits = look.rows("logits", splits)
        return Scores(self.data.labels, logits.numpy(), look.labels(splits).numpy(), logits.double().sigmoid().numpy())
