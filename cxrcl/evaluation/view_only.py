"""How far labels can be told without looking at the film."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from cxrcl.evaluation.known import known
from cxrcl.evaluation.look import Look
from cxrcl.evaluation.score_report import Scores
from cxrcl.evaluation.scorer import Scorer
from cxrcl.types import EvalData


class ViewOnly(Scorer):
    """AUROC of the share of positives among training films of the same view position: no film is looked at.

    Sick patients are filmed lying (AP), so the view alone tells something of most labels: a model that is no better
    than this score may have learnt no more.

    Args:
        data: the splits (given by the application).
        splits: pooled before scoring.
        train: the split whose labels are counted.
        columns: columns of the manifest; a film's group is its values of all of them. A group without training films
            has the share of all.
        mean_over: labels of the mean; None takes all but `No Finding`.
        resamples: bootstrap resamples of patients; 0 gives no intervals.
    """

    needs: ClassVar[tuple[type, ...]] = ()

    def __init__(
        self,
        data: EvalData,
        splits: Sequence[str] = ("test",),
        train: str = "train",
        columns: Sequence[str] = ("view",),
        mean_over: Sequence[str] | None = None,
        resamples: int = 0,
    ) -> None:
        super().__init__(data, splits, mean_over, resamples)
        if train in splits or not data.size(train):
            raise ValueError(f"train={train}: expected a split with films that is not scored")
        if not columns:
            raise ValueError("columns=[]: expected one or more columns of the manifest")
        self.train, self.columns = train, tuple(columns)

    def score(self, look: Look, splits: Sequence[str]) -> Scores:
        counted = self.data.truth(self.train).numpy()
        groups, films = self._groups([self.train]), self._groups(splits)
        of_all = _share(counted)
        scores = np.tile(of_all, (len(films), 1))
        for group in set(films) & set(groups):
            share = _share(counted[[found == group for found in groups]])
            scores[[found == group for found in films]] = np.where(np.isnan(share), of_all, share)
        return Scores(self.data.labels, np.nan_to_num(scores), look.labels(splits).numpy())

    def _groups(self, splits: Sequence[str]) -> list[tuple[str, ...]]:
        return [group for split in splits for group in zip(*(self.data.column(split, name) for name in self.columns))]

    @property
    def rule(self) -> str:
        return f"share of positives among films of the split {self.train} with the same {' and '.join(self.columns)}"


def _share(labels: np.ndarray) -> np.ndarray:
    """[N, C] -> share of positives among the known, [C]; nan where nothing is known."""
    counts = known(labels).sum(axis=0)
    return np.divide((labels == 1).sum(axis=0), counts, out=np.full(labels.shape[1], np.nan), where=counts > 0)
