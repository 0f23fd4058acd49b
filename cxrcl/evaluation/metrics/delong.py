"""Variance of areas under ROC curves without resampling: DeLong's method, with patients as clusters of images.

An AUROC is a mean of structural components (DeLong et al. 1988, Biometrics 44:837): V10 of a positive image is the
share of negative images that score lower (ties one half), V01 of a negative image the share of positive images that
score higher. Obuchowski (1997, Biometrics 53:567) adds them up by patient, so that images of one patient may depend on
each other in any way, and a patient may have images of both classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata


@dataclass(frozen=True)
class Area:
    """The AUROC of one label, or the difference of two on the same images, with what each patient adds to its error.

    Attributes:
        value: the AUROC or difference.
        of_positives: float [P], for each patient the sum over its positive images of V10 - AUROC, over the number of
            positive images of all patients.
        of_negatives: float [P], likewise of V01 and negative images.
        positives, negatives, either: numbers of patients with positive images, with negative ones, with any.
    """

    value: float
    of_positives: np.ndarray
    of_negatives: np.ndarray
    positives: int
    negatives: int
    either: int

    def minus(self, other: Area) -> Area:
        """The difference to another model's AUROC on the same images with the same labels."""
        return replace(
            self,
            value=self.value - other.value,
            of_positives=self.of_positives - other.of_positives,
            of_negatives=self.of_negatives - other.of_negatives,
        )


@dataclass(frozen=True)
class Estimate:
    """A number with its variance, and the degrees of freedom that the variance was estimated with."""

    value: float
    variance: float
    freedom: float


def area(scores: np.ndarray, positive: np.ndarray, patient_index: np.ndarray, patients: int) -> Area:
    """The AUROC of images and its structural components by patient; sorts once, O(N log N).

    Args:
        scores: float [N], none nan.
        positive: bool [N], of both classes.
        patient_index: int [N], the patient of each image, 0 .. P - 1.
        patients: P.
    """
    ranks = rankdata(scores)  # of equal scores the mean rank: a tie counts one half
    up, down = int(positive.sum()), int((~positive).sum())
    v10 = (ranks[positive] - rankdata(scores[positive])) / down
    v01 = 1 - (ranks[~positive] - rankdata(scores[~positive])) / up
    value = float(v10.mean())

    def by_patient(components: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        return np.bincount(patient_index[chosen], (components - value) / len(components), minlength=patients)

    return Area(
        value=value,
        of_positives=by_patient(v10, positive),
        of_negatives=by_patient(v01, ~positive),
        positives=len(np.unique(patient_index[positive])),
        negatives=len(np.unique(patient_index[~positive])),
        either=len(np.unique(patient_index)),
    )


def weighted_mean(areas: Sequence[Area], weights: Sequence[float] | None = None, added: float = 0.0) -> Estimate:
    """The weighted mean of areas of the same patients, with its variance; of one area, this area.

    Obuchowski's S10 / m + S01 / n + 2 S11 / (m n), in which the covariances of labels and models follow from adding up
    what a patient adds to each. Degrees of freedom as Satterthwaite's (1946, Biometrics Bulletin 2:110), from the
    variances of both classes in all labels.

    Args:
        areas: [C], one a label.
        weights: [C], of a fixed set of labels; None weighs all alike.
        added: number of patients of each class that the variances are computed with on top of those seen, with the
            largest variance that components between 0 and 1 can have, AUROC (1 - AUROC). A few patients show too little
            of it where most components are nearly 1.

    Returns:
        Variance nan where a class has one patient only and none is added: one tells nothing of the spread.
    """
    shares = np.ones(len(areas)) if weights is None else np.asarray(weights, dtype=float)
    shares = shares / shares.sum()
    value = float(shares @ [each.value for each in areas])
    counts = np.array([[each.positives, each.negatives, each.either] for each in areas], dtype=float).T
    # A sum of squares over I patients underestimates their variance by (I - 1) / I. Of one patient it is 0.
    few_up, few_down, few = shares * np.sqrt(counts / np.maximum(counts - 1, 1))
    ups, downs = (np.stack(parts) for parts in ([a.of_positives for a in areas], [a.of_negatives for a in areas]))
    seen = ((few_up @ ups) ** 2).sum() + ((few_down @ downs) ** 2).sum() + 2 * ((few @ ups) * (few @ downs)).sum()
    own = np.stack([few_up**2 * (ups**2).sum(axis=1), few_down**2 * (downs**2).sum(axis=1)])  # of classes and labels
    freedoms = counts[:2] - 1 + added
    if not freedoms.all():
        return Estimate(value, float("nan"), 0.0)
    largest = shares**2 * np.array([each.value * (1 - each.value) for each in areas]) / counts[:2]
    more = np.maximum(largest - own, 0) * added / freedoms
    squares = float(((own + more) ** 2 / freedoms).sum())
    freedom = float((own + more).sum() ** 2 / squares) if squares else float("inf")
    return Estimate(value, max(float(seen + more.sum()), 0.0), freedom)
