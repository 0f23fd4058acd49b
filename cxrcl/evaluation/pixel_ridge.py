"""A floor to stand on: ridge regression on small pictures, trained with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.evaluation.embed import over_images
from cxrcl.evaluation.metrics import auroc
from cxrcl.evaluation.scores import NO_FINDING, auroc_figures, check_names, labels_against_normal
from cxrcl.types import Batch, EvalData, Gathers


class PixelRidge:
    """AUROC of one ridge regression a label on standardised pixels; the model plays no part.

    Trained on the labels of `train`; the penalty with the best AUROC on held-out films is taken for each label. A model
    that has not seen labels should be compared with it: where the ridge does as well, so does a blurred picture.

    Args:
        data: the splits (given by the application).
        splits: pooled before scoring.
        train: the split that gives the labels.
        choose_on: the split that chooses the penalty; None when every other split is scored.
        side_px: films are shrunk to this side.
        penalties: tried for each label; without `choose_on`, five folds of the training patients choose.
        labels: score these only; None scores all.
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
        labels: Sequence[str] | None = None,
        mean_over: Sequence[str] | None = None,
        against_normal: Sequence[str] = (),
        resamples: int = 0,
        batch_size: int = 64,
    ) -> None:
        if train in splits or choose_on in splits:
            raise ValueError(f"the baseline learns from {train} and {choose_on}: it cannot be scored on them as well")
        self.data, self.splits, self.train, self.choose_on = data, tuple(splits), train, choose_on
        self.side_px, self.penalties = side_px, tuple(penalties)
        self.labels = tuple(data.labels if labels is None else labels)
        check_names(self.labels, data.labels, "labels")
        check_names(mean_over, self.labels, "mean_over")
        check_names((*against_normal, NO_FINDING) if against_normal else (), data.labels, "against_normal")
        self.mean_over, self.against_normal, self.resamples = mean_over, against_normal, resamples
        self.batch_size = batch_size

    def run(self, model: nn.Module, runtime: Gathers) -> dict[str, float]:
        x_train, y_train = self._pixels([self.train], runtime)
        x_test, y_test = self._pixels(self.splits, runtime)
        x_choose, y_choose = self._pixels([self.choose_on], runtime) if self.choose_on else (None, None)
        scores = np.zeros((len(x_test), len(self.labels)))
        columns = [self.data.labels.index(name) for name in self.labels]
        for k, column in enumerate(columns):
            held_out = None if x_choose is None or y_choose is None else (x_choose, y_choose[:, column])
            scores[:, k] = self._predict(x_train, y_train[:, column], held_out, x_test)
        return auroc_figures(
            self.data,
            self.splits,
            scores,
            y_test[:, columns],
            self.labels,
            mean_over=self.mean_over,
            resamples=self.resamples,
        )

    def _pixels(self, splits: Sequence[str], runtime: Gathers) -> tuple[np.ndarray, np.ndarray]:
        def compute(batch: Batch) -> Tensor:
            assert batch.images is not None
            grey = batch.images[:, 0, :1]
            return F.interpolate(grey, size=(self.side_px,) * 2, mode="area").flatten(1)

        pixels, labels = over_images(self.data, splits, runtime, compute, self.batch_size)
        return pixels.numpy(), labels_against_normal(self.data, labels.numpy(), self.against_normal)

    def _predict(
        self, x: np.ndarray, y: np.ndarray, held_out: tuple[np.ndarray, np.ndarray] | None, x_test: np.ndarray
    ) -> np.ndarray:
        from sklearn.linear_model import Ridge
        from sklearn.model_selection import GroupKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        known = (y == 0) | (y == 1)
        if len(np.unique(y[known])) < 2:
            return np.zeros(len(x_test))
        quality, models = [], []
        for penalty in self.penalties:
            model = make_pipeline(StandardScaler(), Ridge(alpha=penalty)).fit(x[known], y[known])
            if held_out is not None:
                found = auroc(model.predict(held_out[0]), held_out[1])
            else:
                groups = np.asarray(self.data.column(self.train, "patient"))[known]
                folds = GroupKFold(min(5, len(np.unique(groups))))
                found = auroc(cross_val_predict(model, x[known], y[known], groups=groups, cv=folds), y[known])
            quality.append(np.nan_to_num(found))
            models.append(model)
        return models[int(np.argmax(quality))].predict(x_test)
