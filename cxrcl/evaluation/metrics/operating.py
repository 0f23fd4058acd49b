"""Operating points: the points of ROC curves, and sensitivity or specificity where the other one is fixed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cxrcl.evaluation.metrics.decisions import ratio


class RocPoints(NamedTuple):
    """The points of R ROC curves, with L thresholds in rising order: the distinct scores of positives.

    Between two of them only the specificity changes, and it is highest at the upper one. The point above all scores
    (sensitivity 0, specificity 1) is not among them.

    Attributes:
        true_positives: float [L, R], positives at or above each threshold.
        true_negatives: float [L, R], negatives below it.
        positives, negatives: float [R].
    """

    true_positives: np.ndarray
    true_negatives: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    def sensitivity(self, true_negatives: np.ndarray) -> np.ndarray:
        """The highest sensitivity of the thresholds that leave so many negatives uncalled, or more.

        No point between two thresholds is made up: images with equal scores are called together.

        Args:
            true_negatives: float [R], of at most `negatives`.

        Returns:
            float [R]; nan where a class is missing.
        """
        if not len(self.true_positives):
            return np.full(len(self.positives), np.nan)
        reached = self.true_negatives >= true_negatives
        found = self.true_positives[reached.argmax(axis=0), np.arange(reached.shape[1])]
        return self._of_both(np.where(reached[-1], found, 0), self.positives)

    def specificity(self, true_positives: np.ndarray) -> np.ndarray:
        """The highest specificity of the thresholds that call so many positives, or more.

        Args:
            true_positives: float [R], of at most `positives`.

        Returns:
            float [R]; nan where a class is missing.
        """
        if not len(self.true_positives):
            return np.full(len(self.positives), np.nan)
        highest = (self.true_positives >= true_positives).sum(axis=0) - 1
        found = self.true_negatives[highest, np.arange(len(highest))]
        return self._of_both(np.where(true_positives > 0, found, self.negatives), self.negatives)

    def _of_both(self, part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return ratio(part, np.where((self.positives > 0) & (self.negatives > 0), whole, 0))


def least_count(rate: float, totals: np.ndarray) -> np.ndarray:
    """The smallest number k of a total with k / total >= rate, as floats compare: 9 of 10 are a rate of 0.9.

    Args:
        totals: float [R] of whole numbers.
    """
    count = np.maximum(np.floor(rate * totals) - 1, 0)  # the product is rounded: it may be one too many
    for _ in range(2):
        count = count + (ratio(count, totals) < rate)
    return count
