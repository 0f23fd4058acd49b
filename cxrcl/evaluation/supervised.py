"""Linear models trained with labels on fixed vectors of images: a baseline, or a probe of what an encoder learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import Tensor

from cxrcl.evaluation.metrics import auroc, is_labelled
from cxrcl.evaluation.scorer import Scorer
from cxrcl.evaluation.scores.score_report import Scores
from cxrcl.evaluation.shared_pass import SharedPass
from cxrcl.types import EvalData, Natural, Positive

Penalties = Annotated[Sequence[Positive], Field(min_length=1)]
LinearModel = Callable[[np.ndarray], np.ndarray]  # vectors [N, D] -> scores [N]


class Supervised(Scorer):
    """AUROC of one linear model a label, trained on `train`; of several penalties the best on held-out images is taken.

    Args:
        train: the split that gives the labels.
        choose_on: the split that chooses the penalty by its AUROC, for each label; None, such as where every other
            split is scored: five folds of the training patients do.
        penalties: tried for each label.
        labels, against_normal, mean_over, resamples: see `Scorer`.
    """

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
        resamples: Natural = 0,
    ) -> None:
        self.learns_from = [train] if choose_on is None else [train, choose_on]
        if train == choose_on or not set(self.learns_from).isdisjoint(splits):
            raise ValueError(
                f"train={train}, choose_on={choose_on}: a model learns from them, so that it cannot be scored on them "
                "as well, and each is another split; choose_on=null lets folds of the training patients choose"
            )
        if empty := [name for name in self.learns_from if not data.size(name)]:
            raise ValueError(f"no row has the split {', '.join(empty)}, and a linear model learns from it")
        super().__init__(data, splits, mean_over, resamples)
        self.score_only(labels, against_normal)
        self.train, self.choose_on, self.penalties = train, choose_on, tuple(penalties)

    def vectors(self, shared: SharedPass, splits: Sequence[str]) -> Tensor:
        """What the linear models take of the images of the splits, float32 [N, D]."""
        raise TypeError(f"{type(self).__name__} does not define vectors()")

    def estimator(self, penalty: float) -> Any:
        """An unfitted scikit-learn model: a classifier, or a regression of the label."""
        raise TypeError(f"{type(self).__name__} does not define estimator()")

    def score(self, shared: SharedPass, splits: Sequence[str]) -> Scores:
        models = shared.once(self, lambda: self._fit(shared))  # the same for scored and held-out splits
        x, y = self._vectors_and_labels(shared, splits)
        return Scores(names=self.labels, scores=np.stack([model(x) for model in models], axis=1), labels=y)

    def _fit(self, shared: SharedPass) -> list[LinearModel]:
        """One model for each label."""
        x, y = self._vectors_and_labels(shared, [self.train])
        if self.choose_on is None:
            return [self._fit_best(x, y[:, k], None) for k in range(len(self.labels))]
        chooser, known = self._vectors_and_labels(shared, [self.choose_on])
        return [self._fit_best(x, y[:, k], (chooser, known[:, k])) for k in range(len(self.labels))]

    def _vectors_and_labels(self, shared: SharedPass, splits: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """float32 [N, D] and [N, C]."""
        return self.vectors(shared, splits).numpy(), self.truth(shared, splits)

    def _fit_best(self, x: np.ndarray, y: np.ndarray, held_out: tuple[np.ndarray, np.ndarray] | None) -> LinearModel:
        """The model of one label with the penalty whose AUROC is best on `held_out`, or over folds of the patients.

        Args:
            x: float [N, D]; y: float [N].
            held_out: x and y of the split `choose_on`, or None.
        """
        labelled = is_labelled(y)
        if len(np.unique(y[labelled])) < 2:
            return lambda vectors: np.zeros(len(vectors))
        if not np.isfinite(x).all():  # of an encoder that has diverged
            return lambda vectors: np.full(len(vectors), np.nan)
        x, y = x[labelled], y[labelled]
        models = [self._fit_one(penalty, x, y) for penalty in self.penalties]
        if held_out is not None:
            quality = [auroc(model(held_out[0]), held_out[1]) for model in models]
        else:
            patients = np.asarray(self.data.column(self.train, "patient"))[labelled]
            quality = [auroc(self._scores_by_folds(penalty, x, y, patients), y) for penalty in self.penalties]
        best = models[int(np.argmax(np.nan_to_num(quality)))]
        return lambda vectors: best(vectors) if np.isfinite(vectors).all() else np.full(len(vectors), np.nan)

    def _scores_by_folds(self, penalty: float, x: np.ndarray, y: np.ndarray, patients: np.ndarray) -> np.ndarray:
        """Scores [N] of each image by a model fitted without its patient; 0 where that would see one class only.

        Args:
            x: float [N, D]; y: float [N]; patients: [N].
        """
        from sklearn.model_selection import GroupKFold

        scores, count = np.zeros(len(y)), min(5, len(np.unique(patients)))
        for fitted, rest in GroupKFold(count).split(x, y, patients) if count > 1 else ():
            if len(np.unique(y[fitted])) == 2:
                scores[rest] = self._fit_one(penalty, x[fitted], y[fitted])(x[rest])
        return scores

    def _fit_one(self, penalty: float, x: np.ndarray, y: np.ndarray) -> LinearModel:
        """A model whose scores are a classifier's log-odds, or a regression's values."""
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), self.estimator(penalty)).fit(x, y)
        return getattr(model, "decision_function", model.predict)
