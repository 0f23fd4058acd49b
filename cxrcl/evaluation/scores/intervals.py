"""Intervals of a metric from its variance or its resamples. Which metric has which was chosen by simulated coverage.

`scripts/interval_coverage.py` simulates; docs/statistics.md has its figures.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from cxrcl.evaluation.metrics.clusters import Estimate

LEVEL = 0.95
ROUNDING = 1e-10


class Interval(NamedTuple):
    """Bounds of the true value; nan where there are none. `method` is named in reports."""

    low: float
    high: float
    method: str


def percentile(drawn: np.ndarray, level: float = LEVEL) -> Interval:
    """Percentiles of the values in the resamples (Efron and Tibshirani 1993, section 13.3).

    Args:
        drawn: float [R], nan where a resample has none.
    """
    exist = drawn[~np.isnan(drawn)]
    low, high = np.quantile(exist, [(1 - level) / 2, (1 + level) / 2]) if len(exist) else (np.nan, np.nan)
    return Interval(float(low), float(high), "percentile")


def log_odds(estimate: Estimate, patients: int, level: float = LEVEL) -> Interval:
    """Student's interval of the log-odds of an AUROC, whose bounds stay between 0 and 1.

    An AUROC of 1 (or 0) has no variance. Then min(positive, negative patients) pairs of different patients can be
    formed, all of which are in order, which has a probability of at most AUROC to the power of their number: the bound
    is where that is (1 - level) / 2.

    Args:
        patients: number of those who have images of the rarer class.
    """
    value, tail = estimate.value, (1 - level) / 2
    if value in (0, 1):
        bound = tail ** (1 / patients)
        return Interval(bound, 1.0, "exact") if value else Interval(0.0, 1 - bound, "exact")
    centre = np.log(value) - np.log1p(-value)
    reach = student.ppf(1 - tail, estimate.freedom) * np.sqrt(estimate.variance) / (value * (1 - value))
    low, high = 1 / (1 + np.exp(-np.array([centre - reach, centre + reach])))
    return Interval(float(low), float(high), "DeLong, logit")


def wilson(estimate: Estimate, patients: int, level: float = LEVEL) -> Interval:
    """Wilson's interval (1927) of a share of images, with as many independent images as its variance tells.

    Their number is share (1 - share) / variance; of a share of 0 or 1, which has no variance, that of the patients.
    Student's quantile stands for the normal one.

    Args:
        patients: number of those who have images that the share is of.
    """
    share = estimate.value
    count = share * (1 - share) / estimate.variance if estimate.variance > 0 else float(patients)
    squared = student.ppf((1 + level) / 2, estimate.freedom) ** 2
    centre = share + squared / (2 * count)
    reach = np.sqrt(squared * (share * (1 - share) / count + squared / (4 * count**2)))
    low, high = (centre - reach) / (1 + squared / count), (centre + reach) / (1 + squared / count)
    return Interval(float(max(low, 0)), float(min(high, 1)), "Wilson")


def of_difference(estimate: Estimate, level: float = LEVEL) -> tuple[Interval, float]:
    """Student's interval of a difference of AUROCs, and the two-sided p-value of its being 0.

    nan where the difference has no variance and is not 0.
    """
    if estimate.variance < ROUNDING**2:
        same = abs(estimate.value) < ROUNDING
        return Interval(*((0.0, 0.0) if same else (np.nan, np.nan)), "DeLong"), 1.0 if same else float("nan")
    error = np.sqrt(estimate.variance)
    reach = student.ppf((1 + level) / 2, estimate.freedom) * error
    low, high = max(estimate.value - reach, -1.0), min(estimate.value + reach, 1.0)
    p = 2 * student.sf(abs(estimate.value) / error, estimate.freedom)
    return Interval(float(low), float(high), "DeLong"), float(p)
