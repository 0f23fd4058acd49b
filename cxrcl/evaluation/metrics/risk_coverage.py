"""Selective prediction: how the share of wrong decisions falls where the least certain ones are left to a person."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import digamma

from cxrcl.evaluation.metrics.decisions import ratio


class Selective(NamedTuple):
    """Float [R] each, nan without images.

    Attributes:
        aurc: area under the risk-coverage curve.
        excess_aurc: the same minus that of the best order of the same decisions.
        risk: share of wrong decisions among all.
    """

    aurc: np.ndarray
    excess_aurc: np.ndarray
    risk: np.ndarray


class RiskCoverage:
    """The decisions of one label, sorted once by confidence, for any weighting of the patients.

    Args:
        confidence: float [N], of the decisions.
        wrong: bool [N].
        patient_index: int [N], the patient of each image, 0 .. P - 1.
        patients: P.
    """

    def __init__(self, confidence: np.ndarray, wrong: np.ndarray, patient_index: np.ndarray, patients: int) -> None:
        order = np.argsort(-confidence, kind="stable")
        self._patients, wrong = patient_index[order], wrong[order]
        self._patients_of_wrong = self._patients[wrong]
        # Images of equal confidence are a run, known by its last image.
        self._ends = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, len(order) > 0))
        self._wrong_before = np.cumsum(wrong)[self._ends]  # wrong decisions in each run and all before it

    def at(self, counts: np.ndarray) -> Selective:
        """The areas of R resamples.

        AURC = 1/n sum over images i of risk(i), with risk(i) the share of wrong decisions among the images whose
        confidence is that of i or higher (Geifman and El-Yaniv 2017, equations 1 and 2; the area is Geifman, Uziel and
        El-Yaniv 2019, section 3). Images of equal confidence are accepted together.

        E-AURC subtracts the AURC of the best order, all k wrong decisions last: 1/n sum over i = 1 .. k of
        i / (n - k + i). The paper's r + (1 - r) ln(1 - r), r = k / n, is its limit for many images.

        Args:
            counts: float [P, R], how often each patient was drawn.
        """
        # One resample after another: what one needs stays in a processor's cache, and no sparse product is as fast.
        sums = np.array([self._sums(drawn) for drawn in np.ascontiguousarray(counts.T)]).reshape(-1, 3)
        areas, n, k = sums.T
        # sum of i / (n - k + i) = k - (n - k) * (1 / (n - k + 1) + ... + 1 / n), a difference of digamma functions.
        best = k - (n - k) * (digamma(n + 1) - digamma(n - k + 1))
        return Selective(ratio(areas, n), ratio(areas - best, n), ratio(k, n))

    def curve(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coverage and risk from the most confident images to all, float [L] each.

        Args:
            counts: float [P], none of them 0.
        """
        accepted, _, wrong = self._accepted(counts)
        return accepted / accepted[-1:], wrong / accepted

    def _sums(self, drawn: np.ndarray) -> tuple[float, float, float]:
        """n * AURC, n, and the number of wrong decisions, of one resample [P]."""
        if not len(self._ends):
            return 0.0, 0.0, 0.0
        accepted, images, wrong = self._accepted(drawn)
        return float(images / np.maximum(accepted, 1) @ wrong), float(accepted[-1]), float(wrong[-1])

    def _accepted(self, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images as confident as each run or more, images of the run, and the first's wrong decisions: float [L]."""
        images = drawn.take(self._patients)
        accepted = np.cumsum(images)
        if len(self._ends) < len(images):
            accepted = accepted[self._ends]
            images = np.diff(accepted, prepend=0)
        wrong = np.concatenate([[0.0], np.cumsum(drawn.take(self._patients_of_wrong))])
        return accepted, images, wrong.take(self._wrong_before)
