"""Intervals of what is measured query by query, such as hits of a retrieval and right decisions, by patients.

A metric's interval is named after it: `accuracy_low` and `accuracy_high`, `recall_low/Edema` of `recall/Edema`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from cxrcl.evaluation.metrics.clusters import Deviations, weighted_mean
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.intervals import Interval, percentile, wilson
from cxrcl.evaluation.scores.scoring import ENOUGH

FEWEST = 10  # patients, below which shares have no interval: simulated ones begin there (docs/protocols.md)
AT_ONCE = 128  # resamples


def bounds(metric: str, interval: Interval, of: str = "") -> dict[str, float]:
    """The interval of the metric `metric + of`, by name."""
    return {f"{metric}_low{of}": interval.low, f"{metric}_high{of}": interval.high}


def of_resamples(drawn: np.ndarray) -> Interval:
    """The percentile interval of values in the resamples [R]; nan where fewer than nine in ten have one."""
    if (~np.isnan(drawn)).sum() < ENOUGH * len(drawn):
        return Interval(float("nan"), float("nan"), "percentile")
    return percentile(drawn)


class Queries:
    """Q queries and the patients that they are of, who are drawn; the gallery in which they search stays as it is.

    A query of several images, such as a text that several studies share, is of their patients in equal parts: in a
    resample it counts as often as its images do on average.

    Args:
        patients: of all images.
        images: int [n], places of images among these.
        query_of: int [n], the query that each is of, 0 .. Q - 1, each at least once; None: each its own.
    """

    def __init__(
        self, patients: Patients, images: Sequence[int] | np.ndarray, query_of: np.ndarray | None = None
    ) -> None:
        owners = patients.index[np.asarray(images, dtype=int)]
        query_of = np.arange(len(owners)) if query_of is None else query_of
        parts = 1 / np.bincount(query_of)[query_of]
        shape = (patients.count, int(query_of.max(initial=-1)) + 1)
        self.patients = patients
        self._parts = sparse.csr_array((parts, (owners, query_of)), shape=shape)  # sums up parts of one patient

    def share(self, values: np.ndarray) -> Interval:
        """Wilson's interval of the mean of values between 0 and 1, float [Q]; nan of fewer than 10 patients.

        The variance is that of a ratio of sums over patients (Cochran 1977, section 6.8).
        """
        weights = self._parts.sum(axis=1)  # of each patient
        count = int((weights > 0).sum())
        if count < FEWEST:
            return Interval(float("nan"), float("nan"), "Wilson")
        sums, total = self._parts @ values, weights.sum()
        mean = float(sums.sum() / total)
        found = Deviations(mean, ((sums - mean * weights) / total,), (count,), count)
        return wilson(weighted_mean([found]), count)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Weighted sums of values float [Q, M] in each resample, [M, R]."""
        of_patients = (self._parts @ values).T
        return np.concatenate([of_patients @ counts for counts in self.patients.draws(AT_ONCE)], axis=1)

    def mean(self, values: np.ndarray) -> Interval:
        """Percentile interval of the mean of values, float [Q]."""
        total, count = self.sums(np.column_stack([values, np.ones(len(values))]))
        return of_resamples(_ratio(total, count))

    def median(self, values: np.ndarray) -> Interval:
        """Percentile interval of the median of values, float [Q]; between two middle ones, their mean."""
        distinct, place = np.unique(values, return_inverse=True)
        each = sparse.csr_array((np.ones(len(values)), (place, np.arange(len(values)))))
        of_patients = each @ self._parts.T  # [distinct, P]
        drawn = []
        for counts in self.patients.draws(AT_ONCE):
            below = np.cumsum(of_patients @ counts, axis=0)
            # Parts of a text are no whole numbers: half of them is met within rounding.
            lower, upper = (distinct[(below >= below[-1] / 2 * (1 + shift)).argmax(axis=0)] for shift in (-1e-9, 1e-9))
            drawn.append(np.where(below[-1] > 0, (lower + upper) / 2, np.nan))
        return of_resamples(np.concatenate(drawn))


def macro_intervals(queries: Queries, actual: np.ndarray, chosen: np.ndarray, classes: int) -> dict[str, Interval]:
    """Percentile intervals of macro F1 and macro recall over the classes that are there; each resample has all of them.

    Args:
        queries: the N images.
        actual, chosen: int [N], classes 0 .. C - 1.
    """
    cells = np.zeros((len(actual), classes * classes))
    cells[np.arange(len(actual)), actual * classes + chosen] = 1
    drawn = queries.sums(cells).reshape(classes, classes, -1)
    present = np.unique(actual)
    right, images, called = (part[present] for part in (drawn.diagonal().T, drawn.sum(axis=1), drawn.sum(axis=0)))
    has_images = np.where(images > 0, images, np.nan)  # a class that was not drawn has no recall: nor has the mean
    return {
        "macro_f1": of_resamples((2 * right / (has_images + called)).mean(axis=0)),
        "macro_recall": of_resamples((right / has_images).mean(axis=0)),
    }


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
