"""Decision curves: what acting on a probability is worth, over the probability at which one would act."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from cxrcl.evaluation.metrics.decisions import ratio

# Dense where findings are rare.
THRESHOLDS = tuple(k / 100 for k in (*range(1, 11), 12, 15, *range(20, 95, 5)))


class NetBenefit:
    """Net benefit of one label at K threshold probabilities, for any weighting of the patients.

    NB(t) = TP / n - FP / n * t / (1 - t), an image being positive where its probability is t or more: true positives
    minus false ones, these weighed by the odds of t, at which acting and not acting are worth the same (Vickers and
    Elkin 2006).

    Args:
        probabilities: float [N].
        positive: bool [N].
        patient_index: int [N], the patient of each image, 0 .. P - 1.
        patients: P.
        thresholds: [K] in (0, 1), rising.
    """

    def __init__(
        self,
        probabilities: np.ndarray,
        positive: np.ndarray,
        patient_index: np.ndarray,
        patients: int,
        thresholds: tuple[float, ...] = THRESHOLDS,
    ) -> None:
        self._odds = np.array([t / (1 - t) for t in thresholds])[:, None]
        # How many of the thresholds call an image positive: 0 .. K.
        called = np.searchsorted(np.array(thresholds), probabilities.astype(float), "right")
        count, places = len(thresholds) + 1, np.where(positive, 0, len(thresholds) + 1) + called
        ones = np.ones(len(places))
        self._sums = sparse.csr_array((ones, (places, patient_index)), shape=(2 * count, patients))

    def at(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Net benefit of the probabilities and of acting on every image; that of acting on none is 0.

        Args:
            counts: float [P, R], how often each patient was drawn.

        Returns:
            float [K, R] each; nan without images.
        """
        # [2, K + 1, R]: at each place the images that so many thresholds, or more, call positive.
        sums = (self._sums @ counts).reshape(2, len(self._odds) + 1, -1)
        positives, negatives = np.cumsum(sums[:, ::-1], axis=1)[:, ::-1]
        n = positives[0] + negatives[0]
        return (
            ratio(positives[1:] - self._odds * negatives[1:], np.broadcast_to(n, positives[1:].shape)),
            ratio(positives[:1] - self._odds * negatives[:1], np.broadcast_to(n, positives[1:].shape)),
        )
