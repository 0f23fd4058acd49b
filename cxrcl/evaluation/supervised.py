"""Linear models trained with labels on fixed vectors of films: what labels alone can do, or what a tower has learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from cxrcl.evaluation.look import Look
from cxrcl.evaluation.ranking import auroc
from cxrcl.evaluation.score_report import Scores
from cxrcl.evaluation.scorer import Scorer
from cxrcl.evaluation.scores import NO_FINDING, check_names, labels_against_normal
from cxrcl.types import EvalData

Model = Callable[[np.ndarray], np.ndarray]  # vectors [N, D] -> scores [N]


class Supervised(Scorer):
    """AUROC of one linear model a label, trained on `train`; of several penalties the best on held-out films is taken.

    Args:
        data: the splits.
        splits: pooled before scoring.
        train: the split that gives the labels.
        choose_on: the split that chooses the penalty; None: five folds of the training patients do.
        penalties: tried for each label.
        labels: score these only; None scores all.
        mean_over, against_normal, resamples: as for zero-shot.
    """

    def __init__(
        self,
        data: EvalData,
        splits: Sequence[str],
        train: str,
        choose_on: str | None,
        penalties: Sequence[float],
        labels: Sequence[str] | None,
        mean_over: Sequence[str] | None,
        against_normal: Sequence[str],
        resamples: int,
    ) -> None:
        learns_from = [train] if choose_on is None else [train, choose_on]
        if train == choose_on or not set(learns_from).isdisjoint(splits):
            raise ValueError(
                f"train={train}, choose_on={choose_on}: a model learns from them, so that it cannot be scored on them "
                "as well, and each is another split; choose_on=null lets folds of the training patients choose"
            )
        if empty := [name for name in learns_from if not data.size(name)]:
            raise ValueError(f"no row has the split {', '.join(empty)}, and a linear model learns from it")
        if not penalties or not all(penalty > 0 for penalty in penalties):
            raise ValueError(f"penalties={list(penalties)}: expected numbers above 0")
        super().__init__(data, splits, mean_over, resamples)
        self.train, self.choose_on = train, choose_on
        self.penalties = tuple(penalties)
        self.labels = tuple(data.labels if labels is None else labels)
        check_names(self.labels, data.labels, "labels")
        check_names(mean_over, self.labels, "mean_over")
        check_names((*against_normal, NO_FINDING) if against_normal else (), data.labels, "against_normal")
        self.against_normal = against_normal

    @property
    def reads(self) -> tuple[str, ...]:
        """All splits that are looked at."""
        return (self.train, *([self.choose_on] if self.choose_on else []), *self.splits)

    def vectors(self, look: Look, splits: Sequence[str]) -> tuple[Tensor, Tensor]:
        """[N, D] that the linear models see, and labels [N, C]."""
        raise TypeError(f"{type(self).__name__} does not define vectors()")

    def estimator(self, penalty: float) -> Any:
        """An unfitted scikit-learn model: a classifier, or a regression of the label."""
        raise TypeError(f"{type(self).__name__} does not define estimator()")

    def score(self, look: Look, splits: Sequence[str]) -> Scores:
        models = look.once(self, lambda: self._learn(look))  # scored splits and held-out ones ask for the same
        x, y = self._read(splits, look)
        columns = [self.data.labels.index(name) for name in self.labels]
        return Scores(self.labels, np.stack([model(x) for model in models], axis=1), y[:, columns])

    def _learn(self, look: Look) -> list[Model]:
        """One for each label."""
        x, y = self._read([self.train], look)
        chooser = self._read([self.choose_on], look) if self.choose_on else None
        columns = [self.data.labels.index(name) for name in self.labels]
        return [
            self._chosen(x, y[:, column], None if chooser is None else (chooser[0], chooser[1][:, column]))
            for column in columns
        ]

    def _read(self, splits: Sequence[str], look: Look) -> tuple[np.ndarray, np.ndarray]:
        rows, labels = self.vectors(look, splits)
        return rows.numpy(), labels_against_normal(self.data, labels.numpy(), self.against_normal)

    def _chosen(self, x: np.ndarray, y: np.ndarray, held_out: tuple[np.ndarray, np.ndarray] | None) -> Model:
        known = (y == 0) | (y == 1)
        if len(np.unique(y[known])) < 2:
            return lambda films: np.zeros(len(films))
        if not np.isfinite(x).all():  # a model that has diverged
            return lambda films: np.full(len(films), np.nan)
        x, y = x[known], y[known]
        models = [self._learnt(penalty, x, y) for penalty in self.penalties]
        if held_out is not None:
            quality = [auroc(model(held_out[0]), held_out[1]) for model in models]
        else:
            patients = np.asarray(self.data.column(self.train, "patient"))[known]
            quality = [auroc(self._by_folds(penalty, x, y, patients), y) for penalty in self.penalties]
        best = models[int(np.argmax(np.nan_to_num(quality)))]
        return lambda films: best(films) if np.isfinite(films).all() else np.full(len(films), np.nan)

    def _by_folds(self, penalty: float, x: np.ndarray, y: np.ndarray, patients: np.ndarray) -> np.ndarray:
        """Scores of each film by a model that has not seen its patient; 0 where that one would know one class only."""
        from sklearn.model_selection import GroupKFold

        scores, count = np.zeros(len(y)), min(5, len(np.unique(patients)))
        for seen, rest in GroupKFold(count).split(x, y, patients) if count > 1 else ():
            if len(np.unique(y[seen])) == 2:
                scores[rest] = self._learnt(penalty, x[seen], y[seen])(x[rest])
        return scores

    def _learnt(self, penalty: float, x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Vectors -> a classifier's log-odds, or a regression's values."""
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), self.estimator(penalty)).fit(x, y)
        return getattr(model, "decision_function", model.predict)
