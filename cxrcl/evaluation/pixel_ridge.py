"""A floor to stand on: ridge regression on small pictures, trained with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.evaluation.embed import over_images
from cxrcl.evaluation.metrics import auroc
from cxrcl.evaluation.scores import auroc_figures, labels_against_normal
from cxrcl.types import Batch, EvalData, Gathers


class PixelRidge:
    """AUROC of one ridge regression a label on standardised pixels; the model plays no part.

    Trained on the labels of `train`; the penalty with the best AUROC on `choose_on` is taken for each label. A model
    that has not seen labels should be compared with it: where the ridge does as well, so does a blurred picture.

    Args:
        data: the splits (given by the application).
        splits: pooled before scoring.
        train: the split that gives the labels; choose_on: the one that chooses the penalty (`train` itself when it
            is one of the scored ones would be a leak, so such a choice is an error).
        side_px: films are shrunk to this side.
        penalties: tried for each label.
        mean_over, against_normal, resamples: as for zero-shot.
    """

    needs: ClassVar[tuple[type, ...]] = ()
    selects: ClassVar[str] = "mean_auroc"
    higher_is_better: ClassVar[bool] = True

    def __init__(
        self,
        data: EvalData,
        splits: Sequence[str] = ("test",),
        train: str = "train",
        choose_on: str | None = "valid",
        side_px: int = 32,
        penalties: Sequence[float] = (1.0, 10.0, 100.0, 1e3, 1e4),
        mean_over: Sequence[str] | None = None,
        against_normal: Sequence[str] = (),
        resamples: int = 0,
    ) -> None:
        if train in splits or choose_on in splits:
            raise ValueError(f"the baseline learns from {train} and {choose_on}: it cannot be scored on them as well")
        self.data, self.splits, self.train, self.choose_on = data, tuple(splits), train, choose_on
        self.side_px, self.penalties = side_px, tuple(penalties)
        self.mean_over, self.against_normal, self.resamples = mean_over, against_normal, resamples

    def run(self, model: nn.Module, runtime: Gathers) -> dict[str, float]:
        x_train, y_train = self._pixels([self.train], runtime)
        x_test, y_test = self._pixels(self.splits, runtime)
        x_choose, y_choose = self._pixels([self.choose_on], runtime) if self.choose_on else (x_train, y_train)
        scores = np.zeros_like(y_test)
        for column in range(y_test.shape[1]):
            scores[:, column] = self._fit(x_train, y_train[:, column], x_choose, y_choose[:, column], x_test)
        return auroc_figures(
            self.data,
            self.splits,
            scores,
            y_test,
            self.data.labels,
            mean_over=self.mean_over,
            resamples=self.resamples,
        )

    def _pixels(self, splits: Sequence[str], runtime: Gathers) -> tuple[np.ndarray, np.ndarray]:
        def compute(batch: Batch) -> Tensor:
            assert batch.images is not None
            grey = batch.images[:, 0, :1]
            return F.interpolate(grey, size=(self.side_px,) * 2, mode="area").flatten(1)

        pixels, labels = over_images(self.data, splits, runtime, compute)
        return pixels.numpy(), labels_against_normal(self.data, labels.numpy(), self.against_normal)

    def _fit(
        self, x: np.ndarray, y: np.ndarray, x_choose: np.ndarray, y_choose: np.ndarray, x_test: np.ndarray
    ) -> np.ndarray:
        from sklearn.linear_model import Ridge

        known = (y == 0) | (y == 1)
        if len(np.unique(y[known])) < 2:
            return np.zeros(len(x_test))
        mean, std = x[known].mean(axis=0), x[known].std(axis=0) + 1e-6
        candidates = []
        for penalty in self.penalties:
            ridge = Ridge(alpha=penalty).fit((x[known] - mean) / std, y[known])
            chosen_by = auroc(ridge.predict((x_choose - mean) / std), y_choose)
            candidates.append((np.nan_to_num(chosen_by), ridge))
        best = max(candidates, key=lambda candidate: candidate[0])[1]
        return best.predict((x_test - mean) / std)
