"""Variances without resampling, with patients as clusters of images.

A metric is expanded to first order: each patient adds a deviation, and the squares of what patients add sum up to the
variance of the metric. Images of one patient may then depend on each other in any way. What a patient adds to several
labels or models is added up before it is squared, so that their covariances are in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Deviations:
    """A metric of one label, or the difference of two on the same images, with what each patient adds to its error.

    Attributes:
        value: the metric or difference.
        parts: float [P] each, what the patients add. Shares of images have one part; an AUROC has two, of positives
            and of negatives, whose errors are independent but for patients with images of both.
        counts: for each part, how many patients have images in it.
        patients: how many have images in any.
    """

    value: float
    parts: tuple[np.ndarray, ...]
    counts: tuple[int, ...]
    patients: int

    def minus(self, other: Deviations) -> Deviations:
        """The difference to another model's metric, of the same images with the same labels."""
        parts = tuple(own - others for own, others in zip(self.parts, other.parts, strict=True))
        return replace(self, value=self.value - other.value, parts=parts)


@dataclass(frozen=True)
class Estimate:
    """A number with its variance, and the degrees of freedom that the variance was estimated with."""

    value: float
    variance: float
    freedom: float


def weighted_mean(metrics: Sequence[Deviations], weights: Sequence[float] | None = None, added: float = 0) -> Estimate:
    """The weighted mean of a metric over labels of the same patients, with its variance; of one label, its metric.

    With one part the variance is I / (I - 1) times the sum of squares over I patients, with two it is Obuchowski's (see
    `delong`). Degrees of freedom as Satterthwaite's (1946, Biometrics Bulletin 2:110), from the variances of the parts.

    Args:
        metrics: [C], one a label.
        weights: [C]; None weighs all alike.
        added: number of patients that the variance of each part is computed with on top of those seen, with the largest
            variance that a value between 0 and 1 can have, value (1 - value). A few patients show too little of it
            where nearly all of them are right.

    Returns:
        Variance nan where a part is of one patient only and none is added: one tells nothing of the spread.
    """
    shares = np.ones(len(metrics)) if weights is None else np.asarray(weights, dtype=float)
    shares = shares / shares.sum()
    value = float(shares @ [each.value for each in metrics])
    counts = np.array([each.counts for each in metrics], dtype=float).T  # [parts, C]
    freedoms = counts - 1 + added
    if not (freedoms > 0).all():
        return Estimate(value, float("nan"), 0.0)
    parts = np.array([each.parts for each in metrics]).transpose(1, 0, 2) * shares[:, None]  # [parts, C, P]
    few = counts / np.maximum(counts - 1, 1)  # sums of squares underestimate a variance by (I - 1) / I
    seen = sum(float(((np.sqrt(factors) @ part) ** 2).sum()) for factors, part in zip(few, parts, strict=True))
    if len(parts) == 2:
        in_any = np.array([each.patients for each in metrics], dtype=float)
        both = np.sqrt(in_any / np.maximum(in_any - 1, 1))
        seen += 2 * float((both @ parts[0]) @ (both @ parts[1]))
    own = few * (parts**2).sum(axis=2)
    largest = shares**2 * np.array([each.value * (1 - each.value) for each in metrics]) / counts
    more = np.maximum(largest - own, 0) * added / freedoms
    squares = float(((own + more) ** 2 / freedoms).sum())
    freedom = float((own + more).sum() ** 2 / squares) if squares else float(freedoms.min())
    return Estimate(value, max(seen + float(more.sum()), 0.0), freedom)
