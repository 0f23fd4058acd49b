"""AUROC of a classifier's logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import nn

from cxrcl.evaluation.evaluator import check_label_names
from cxrcl.evaluation.scorer import Scorer
from cxrcl.evaluation.scores.score_report import Scores
from cxrcl.evaluation.shared_pass import Request, SharedPass
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
        check_label_names(mean_over, data.labels, "mean_over")
        super().__init__(data, splits, mean_over, resamples)

    def requests(self, model: nn.Module, device: torch.device) -> Sequence[Request]:
        return [Request("logits", self.splits, cast(Classifies, model).classify)]

    @property
    def rule(self) -> str:
        return "probability = sigmoid of the classifier's log-odds; not calibrated"

    def score(self, shared: SharedPass, splits: Sequence[str]) -> Scores:
        logits = shared.rows("logits", splits)
        return Scores(
            names=self.data.labels,
            scores=logits.numpy(),  # ranked as they are: large logits round to equal probabilities
            labels=shared.labels(splits).numpy(),
            probabilities=logits.double().sigmoid().numpy(),
        )
