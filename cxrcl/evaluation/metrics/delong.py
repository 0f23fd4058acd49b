"""Variance of AUROC without resampling, and a test of two AUROCs of the same images, with patients as clusters.

An AUROC is a mean of structural components (DeLong et al. 1988, Biometrics 44:837): V10 of a positive image is the
share of negative images that score lower (ties one half), V01 of a negative image the share of positive images that
score higher. Obuchowski (1997, Biometrics 53:567) adds them up by patient: the variance is S10 / m + S01 / n +
2 S11 / (m n) of m positive and n negative images, which `clusters.weighted_mean` computes.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from cxrcl.evaluation.metrics.clusters import Deviations


def area(scores: np.ndarray, positive: np.ndarray, patient_index: np.ndarray, patients: int) -> Deviations:
    """The AUROC of images and its structural components by patient; sorts once, O(N log N).

    Args:
        scores: float [N], none nan.
        positive: bool [N], of both classes.
        patient_index: int [N], the patient of each image, 0 .. P - 1.
        patients: P.
    """
    ranks = rankdata(scores)  # of equal scores the mean rank: a tie counts one half
    v10 = (ranks[positive] - rankdata(scores[positive])) / (~positive).sum()
    v01 = 1 - (ranks[~positive] - rankdata(scores[~positive])) / positive.sum()
    value = float(v10.mean())

    def by_patient(components: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        return np.bincount(patient_index[chosen], (components - value) / len(components), minlength=patients)

    return Deviations(
        value=value,
        parts=(by_patient(v10, positive), by_patient(v01, ~positive)),
        counts=tuple(len(np.unique(patient_index[chosen])) for chosen in (positive, ~positive)),
        patients=len(np.unique(patient_index)),
    )
