"""Intervals of a metric from its variance or its resamples. Which metric has which was chosen by simulated coverage.

`scripts/interval_coverage.py` simulates; docs/statistics.md has its figures.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from cxrcl.evaluation.metrics.delong import Estimate

LEVEL = 0.95


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


def bca(value: float, drawn: np.ndarray, influence: np.ndarray, level: float = LEVEL) -> Interval:
    """Percentiles corrected for bias and skewness (Efron 1987; Efron and Tibshirani 1993, section 14.3).

    Args:
        drawn: float [R], nan where a resample has none.
        influence: float [P], what each patient adds to the value: the value less that without this patient, in any
            unit. Its skewness is the acceleration.
    """
    exist = drawn[~np.isnan(drawn)]
    if not len(exist):
        return Interval(float("nan"), float("nan"), "BCa")
    below = ((exist < value).sum() + 0.5 * (exist == value).sum()) / len(exist)
    bias = norm.ppf(np.clip(below, 1 / (len(exist) + 1), len(exist) / (len(exist) + 1)))
    spread = float((influence**2).sum())
    acceleration = float((influence**3).sum()) / (6 * spread**1.5) if spread else 0.0
    shifted = bias + norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(exist, norm.cdf(bias + shifted / (1 - acceleration * shifted)))
    return Interval(float(low), float(high), "BCa")


def log_odds(estimate: Estimate, level: float = LEVEL) -> Interval:
    """Student's interval of the log-odds of a value between 0 and 1, whose bounds stay there; nan at 0 and 1."""
    value = estimate.value
    if not 0 < value < 1:
        return Interval(float("nan"), float("nan"), "logit")
    centre = np.log(value) - np.log1p(-value)
    reach = student.ppf((1 + level) / 2, estimate.freedom) * np.sqrt(estimate.variance) / (value * (1 - value))
    low, high = 1 / (1 + np.exp(-np.array([centre - reach, centre + reach])))
    return Interval(float(low), float(high), "logit")


def wilson(estimate: Estimate, patients: int, level: float = LEVEL) -> Interval:
    """Wilson's interval (1927) of a share of images, with as many independent images as its variance tells.

    The effective number is share (1 - share) / variance; of a share of 0 or 1, which has no variance, that of the
    patients.

    Args:
        patients: number of patients with images that the share is of.
    """
    share = estimate.value
    count = share * (1 - share) / estimate.variance if estimate.variance > 0 else float(patients)
    quantile = student.ppf((1 + level) / 2, estimate.freedom)
    centre = (share + quantile**2 / (2 * count)) / (1 + quantile**2 / count)
    reach = quantile * np.sqrt(share * (1 - share) / count + (quantile / (2 * count)) ** 2) / (1 + quantile**2 / count)
    return Interval(float(max(centre - reach, 0)), float(min(centre + reach, 1)), "Wilson")
