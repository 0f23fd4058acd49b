"""Metrics of the order of scores: AUROC, average precision and ROC, for many weightings of the patients at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from cxrcl.evaluation.metrics.labels import known, labels_of_mean
from cxrcl.evaluation.metrics.operating import RocPoints


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve, as the Mann-Whitney statistic (Hanley and McNeil 1982).

    AUROC = 1 / (P N) * sum over positives i and negatives j of [s_i > s_j] + 1/2 [s_i = s_j].

    Args:
        scores: float [N].
        labels: float [N]; images labelled neither 1 nor 0 are left out.

    Returns:
        nan where only one class is present or a score is not a number.
    """
    return _unweighted(scores, labels)[0]


def auprc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision, sum over thresholds k of (recall_k - recall_(k-1)) * precision_k, without interpolation.

    A threshold is a distinct score; recall rises as thresholds fall. Linear interpolation between the points of the
    precision-recall curve would be too optimistic (Davis and Goadrich 2006).

    Args:
        scores: float [N].
        labels: float [N]; images labelled neither 1 nor 0 are left out.

    Returns:
        nan where `auroc` is.
    """
    return _unweighted(scores, labels)[1]


def mean_auroc(
    scores: np.ndarray, labels: np.ndarray, names: Sequence[str], mean_over: Sequence[str] | None = None
) -> float:
    """Mean AUROC over labels but `No Finding`, or over `mean_over`, of those that have both classes.

    Args:
        scores: float [N, C].
        labels: float [N, C] of 1, 0 and anything else for unknown.
        names: of the C labels.

    Returns:
        nan where no label has both classes.
    """
    chosen = labels_of_mean(names, mean_over)
    areas = [auroc(scores[:, k], labels[:, k]) for k, name in enumerate(names) if name in chosen]
    defined = [area for area in areas if not np.isnan(area)]
    return float(np.mean(defined)) if defined else float("nan")


def _unweighted(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    scores, positive = known(scores, labels)
    if np.isnan(scores).any():
        return float("nan"), float("nan")
    one_patient = np.zeros(len(scores), int)
    area, precision = Ranking(scores, positive, one_patient, 1).at(np.ones((1, 1)))
    return float(area[0]), float(precision[0])


class Ranking:
    """The images of one label, sorted once, for AUROC and average precision of any weighting of the patients.

    Both metrics depend on the negatives only through their number between one positive score and the next, so the
    images are reduced to these intervals: a resample of patients is then two products of a sparse matrix.

    Args:
        scores: float [N], none nan.
        positive: bool [N].
        patient_index: int [N], the patient of each image, 0 .. P - 1.
        patients: P.

    Attributes:
        levels: number L of distinct scores of positives.
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray, patient_index: np.ndarray, patients: int) -> None:
        levels, level_of_positive = np.unique(scores[positive], return_inverse=True)
        negative = scores[~positive]
        next_level = np.searchsorted(levels, negative, "right")  # the first level above a negative; L above all
        is_tied = np.searchsorted(levels, negative, "left") < next_level  # a negative exactly at the level below that
        self.levels = len(levels)
        self._positives = _sums(level_of_positive, patient_index[positive], (self.levels, patients))
        self._negatives = _sums(next_level, patient_index[~positive], (self.levels + 1, patients))
        self._tied = _sums(next_level[is_tied] - 1, patient_index[~positive][is_tied], (self.levels, patients))

    def at(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AUROC and average precision of R resamples.

        Args:
            counts: float [P, R], how often each patient was drawn.

        Returns:
            float [R] each; nan where a class was not drawn.
        """
        up = self._positives @ counts  # [L, R], positives at each level
        true, below, all_up, all_down = self._points(up, counts)
        # `below` counts the tied negatives not yet: their next level is the one above.
        wins = (up * (below + 0.5 * (self._tied @ counts))).sum(axis=0)
        called = true + (all_down - below)  # images at or above each level
        precision = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
        has_both = (all_up > 0) & (all_down > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            area = np.where(has_both, wins / (all_up * all_down), np.nan)
            return area, np.where(has_both, (up * precision).sum(axis=0) / all_up, np.nan)

    def roc(self, counts: np.ndarray) -> RocPoints:
        """The ROC curves of R resamples, whose thresholds are the levels.

        Args:
            counts: float [P, R], how often each patient was drawn.
        """
        return self._points(self._positives @ counts, counts)

    def _points(self, up: np.ndarray, counts: np.ndarray) -> RocPoints:
        negatives = np.cumsum(self._negatives @ counts, axis=0)
        # The last row counts the negatives above all positives as well: it is their total.
        true = np.cumsum(up[::-1], axis=0)[::-1]  # positives at or above each level
        return RocPoints(true, negatives[:-1], up.sum(axis=0), negatives[-1])

    def deviations(self) -> tuple[float, np.ndarray]:
        """Average precision of the images as they are, and what each patient adds to its error, float [P].

        The derivative by the patient's weight. A positive image counts in its own precision, and like a negative one
        as an image that is called in that of every lower level.
        """
        up, negatives = self._positives.sum(axis=1), np.cumsum(self._negatives.sum(axis=1))
        true = np.cumsum(up[::-1])[::-1]
        called = true + negatives[-1] - negatives[:-1]
        precision, positives = true / called, up.sum()
        value = float((up * precision).sum() / positives)
        gained = np.cumsum(up / called)  # one more positive at this level adds 1 / called to the precisions below
        lost = np.cumsum(up * precision / called)  # and one more image takes precision / called
        of_positives = self._positives.T @ (precision - value + gained - lost)
        of_negatives = self._negatives.T @ np.append(0, -lost)
        return value, (of_positives + of_negatives) / positives


def _sums(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    """The matrix of `shape` that adds up the images of each row, images being given by their patients (columns)."""
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
