"""AUROC of a classifier's logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import nn

from cxrcl.evaluation.scorer import Scorer
from cxrcl.evaluation.scores.score_report import Scores
from cxrcl.evaluation.shared_pass import Request, SharedPass
from cxrcl.types import Classifies


class Classification(Scorer):
    """AUROC of each label."""

    needs: ClassVar[tuple[type, ...]] = (Classifies,)

    def requests(self, model: nn.Module, device: torch.device) -> Sequence[Request]:
        return [Request("logits", self.splits, cast(Classifies, model).classify)]

    @property
    def rule(self) -> str:
        return "probability = sigmoid of the classifier's log-odds; not calibrated"

    def score(self, shared: SharedPass, splits: Sequence[str]) -> Scores:
        logits = shared.rows("logits", splits)
        return Scores(
            names=self.labels,
            scores=logits.numpy(),  # ranked as they are: large logits round to equal probabilities
            labels=self.truth(shared, splits),
            probabilities=logits.double().sigmoid().numpy(),
        )
