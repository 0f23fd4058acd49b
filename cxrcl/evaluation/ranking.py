"""Figures of the order of scores: AUROC and average precision, for many weightings of the patients at once."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from cxrcl.evaluation.known import known


class Ranking:
    """The films of one label, sorted once.

    Both figures depend on the negatives only through their number between one positive score and the next, so the
    films are reduced to these intervals: a resample of patients is then two products of a sparse matrix.

    Args:
        scores: float [N].
        positive: bool [N].
        member: int [N], the patient of each film, 0 .. P - 1.
        patients: P.
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray, member: np.ndarray, patients: int) -> None:
        levels, place = np.unique(scores[positive], return_inverse=True)
        negative = scores[~positive]
        above = np.searchsorted(levels, negative, "right")  # the first level that is higher
        tied = np.searchsorted(levels, negative, "left") < above
        self.size = len(levels)
        self.of_positives = _sums(place, member[positive], (self.size, patients))
        self.of_negatives = _sums(above, member[~positive], (self.size + 1, patients))
        self.of_tied = _sums(above[tied] - 1, member[~positive][tied], (self.size, patients))

    def at(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AUROC and average precision [R] each for `counts` float [P, R]: how often each patient was drawn.

        A tie between a positive and a negative counts one half in AUROC. Average precision is the sum over distinct
        scores of precision times the step in recall, without interpolation. nan where a class was not drawn.
        """
        up = self.of_positives @ counts
        negatives = np.cumsum(self.of_negatives @ counts, axis=0)
        below, all_down = negatives[:-1], negatives[-1]
        all_up = up.sum(axis=0)
        wins = (up * (below + 0.5 * (self.of_tied @ counts))).sum(axis=0)
        true = np.cumsum(up[::-1], axis=0)[::-1]  # drawn positives at or above each level
        chosen = true + (all_down - below)
        precision = np.divide(true, chosen, out=np.zeros_like(true), where=chosen > 0)
        some = (all_up > 0) & (all_down > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            area = np.where(some, wins / (all_up * all_down), np.nan)
            return area, np.where(some, (up * precision).sum(axis=0) / all_up, np.nan)


def _sums(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    """The matrix that adds up the films of each row, films being given by their patients."""
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve of scores [N]; nan where one class only is present or a score is not a number."""
    return _plain(scores, labels)[0]


def auprc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision of scores [N]; nan where `auroc` is."""
    return _plain(scores, labels)[1]


def _plain(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    chosen = known(labels)
    scores, positive = scores[chosen], labels[chosen] == 1
    if np.isnan(scores).any():
        return float("nan"), float("nan")
    area, precision = Ranking(scores, positive, np.zeros(len(scores), int), 1).at(np.ones((1, 1)))
    return float(area[0]), float(precision[0])
