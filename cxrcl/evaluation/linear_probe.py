"""What an image encoder has learnt, read off by logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cxrcl.evaluation.shared_pass import Request, SharedPass, pooled_request
from cxrcl.evaluation.supervised import Penalties, Supervised
from cxrcl.types import EncodesImages, EvalData


class LinearProbe(Supervised):
    """AUROC of one logistic regression a label on the encoder's standardised pooled features, images not augmented.

    Trained on the labels of `train`; the penalty with the best AUROC on held-out images is taken for each label.
    Compare with an encoder of random weights whose batch statistics were estimated (a run with optimizer.lr=0).

    Args:
        data: the splits (given by the application).
        splits: pooled before scoring.
        train: the split that gives the labels.
        choose_on: the split that chooses the penalty; None when every other split is scored.
        penalties: tried for each label; without `choose_on`, five folds of the training patients choose.
        labels: score these only; None scores all.
        mean_over, against_normal, resamples: as for `cxrcl.evaluation.zero_shot.ZeroShot`.
    """

    needs: ClassVar[tuple[type, ...]] = (EncodesImages,)

    def __init__(
        self,
        data: EvalData,
        splits: Sequence[str] = ("test",),
        train: str = "train",
        choose_on: str | None = "valid",
        penalties: Penalties = (1.0, 10.0, 100.0, 1e3),
        labels: Sequence[str] | None = None,
        mean_over: Sequence[str] | None = None,
        against_normal: Sequence[str] = (),
        resamples: int = 0,
    ) -> None:
        super().__init__(data, splits, train, choose_on, penalties, labels, mean_over, against_normal, resamples)

    def requests(self, model: nn.Module, device: torch.device) -> Sequence[Request]:
        return [pooled_request(self.all_splits)]

    def vectors(self, shared: SharedPass, splits: Sequence[str]) -> tuple[Tensor, Tensor]:
        return shared.rows("pooled", splits), shared.labels(splits)

    def estimator(self, penalty: float) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=1 / penalty, max_iter=300)
