"""How well labels can be predicted without looking at the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxrcl.evaluation.metrics import is_labelled
from cxrcl.evaluation.scorer import Scorer
from cxrcl.evaluation.scores.score_report import Scores
from cxrcl.evaluation.shared_pass import SharedPass
from cxrcl.types import EvalData, Natural


class ViewOnly(Scorer):
    """AUROC of the share of positives among training images of the same view position: no image is looked at.

    Sick patients are X-rayed lying down (AP), so the view alone says something about most labels: a model that is no
    better than this score may have learnt no more.

    Args:
        train: the split whose labels are counted.
        columns: columns of the manifest; an image's group is its values of all of them. A group without training
            images has the share of all.
        mean_over, resamples: see `Scorer`.
    """

    def __init__(
        self,
        data: EvalData,
        splits: Sequence[str] = ("test",),
        train: str = "train",
        columns: Sequence[str] = ("view",),
        mean_over: Sequence[str] | None = None,
        resamples: Natural = 0,
    ) -> None:
        super().__init__(data, splits, mean_over, resamples)
        if train in splits or not data.size(train):
            raise ValueError(f"train={train}: expected a split with images that is not scored")
        if not columns:
            raise ValueError("columns=[]: expected one or more columns of the manifest")
        self.train, self.columns = train, tuple(columns)

    def score(self, shared: SharedPass, splits: Sequence[str]) -> Scores:
        train_labels = self.data.truth(self.train).numpy()
        train_groups, groups = self._groups([self.train]), self._groups(splits)
        share_of_all = _share_of_positives(train_labels)
        scores = np.tile(share_of_all, (len(groups), 1))
        for name in set(groups) & set(train_groups):
            share = _share_of_positives(train_labels[[group == name for group in train_groups]])
            scores[[group == name for group in groups]] = np.where(np.isnan(share), share_of_all, share)
        # A label that no training image has: all scores equal, an AUROC of one half.
        return Scores(names=self.data.labels, scores=np.nan_to_num(scores), labels=shared.labels(splits).numpy())

    def _groups(self, splits: Sequence[str]) -> list[tuple[str, ...]]:
        """The group of each image of the splits, [N]."""
        return [group for split in splits for group in zip(*(self.data.column(split, name) for name in self.columns))]

    @property
    def rule(self) -> str:
        return f"share of positives among images of the split {self.train} with the same {' and '.join(self.columns)}"


def _share_of_positives(labels: np.ndarray) -> np.ndarray:
    """Labels float [N, C] -> share of positives among the known ones, float [C]; nan where none is known."""
    counts = is_labelled(labels).sum(axis=0)
    return np.divide((labels == 1).sum(axis=0), counts, out=np.full(labels.shape[1], np.nan), where=counts > 0)
