"""Numbers of a set of images, for the images as they are and in every resample of their patients, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from cxrcl.evaluation.metrics.label_metrics import LabelColumn
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.comparisons import two_sided_p
from cxrcl.evaluation.scores.intervals import LEVEL, percentile
from cxrcl.evaluation.scores.score_report import Score
from cxrcl.evaluation.scores.scoring import with_interval

# How often each patient was drawn, float [P, r] -> K numbers of each resample, float [K, r].
Statistic = Callable[[np.ndarray], np.ndarray]
AT_ONCE = 32  # resamples; arrays of 25,000 images and so many resamples stay small
# Patients with positive images, and with negative ones, that an interval takes (docs/operating_points.md).
FEWEST = 10
RULE = (
    "expanded percentiles of the resamples of patients (Hesterberg 2015), of means over labels percentiles; none below "
    f"{FEWEST} patients with images of either class"
)


class Counted(NamedTuple):
    """Patients with positive images, and patients with negative ones."""

    positive: int
    negative: int


class Drawn(NamedTuple):
    """A number with its resamples.

    Attributes:
        value: of the images as they are; nan: none.
        drawn: float [R], nan where a resample has none.
        patients: those of the label; the fewest of any label, or reader, that it is a mean of.
        is_mean: whether it is a mean over labels.
    """

    value: float
    drawn: np.ndarray
    patients: Counted
    is_mean: bool = False

    def score(self, reason: str = "") -> Score:
        """The number with its interval, or with the reason why there is none.

        Percentiles are too narrow where patients are few, as an interval with the normal quantile in place of
        Student's is. They are taken further out by as much (Hesterberg 2015, "expanded percentile"): at the level of
        sqrt(n / (n - 1)) times Student's quantile with n - 1 degrees of freedom, n the patients of the rarer class.
        Those of a mean over labels are not: its errors average out.
        """
        found = with_interval(self.value, self.drawn, reason, self._too_few())
        if found.low is None or self.is_mean:
            return found
        n = min(self.patients)
        tail = norm.cdf(np.sqrt(n / (n - 1)) * student.ppf((1 - LEVEL) / 2, n - 1))
        low, high, _ = percentile(self.drawn, 1 - 2 * float(tail))
        return replace(found, low=low, high=high, method="expanded percentile")

    def p(self) -> float:
        """Two-sided p-value of a difference, below 0.05 where its interval leaves out 0; nan where it has none."""
        if self.score().low is None:
            return float("nan")
        n = min(self.patients)
        quantile = norm.ppf(two_sided_p(self.drawn) / 2)
        return float(2 * student.cdf(np.sqrt((n - 1) / n) * quantile, n - 1))

    def minus(self, other: Drawn) -> Drawn:
        """The difference, resample by resample."""
        return self._replace(value=self.value - other.value, drawn=self.drawn - other.drawn)

    def _too_few(self) -> str | None:
        for kind, count in self.patients._asdict().items():
            if count < FEWEST:
                of_label = " of a label" if self.is_mean else ""
                return f"{count} patients with {kind} images{of_label}, fewer than {FEWEST}"
        return None


def counted(column: LabelColumn) -> Counted:
    """The patients of a label."""
    of_class = (column.patient_index[column.positive], column.patient_index[~column.positive])
    return Counted(*(len(np.unique(patients)) for patients in of_class))


def over_resamples(statistics: Sequence[tuple[Statistic, LabelColumn]], patients: Patients) -> list[list[Drawn]]:
    """The K numbers of each statistic of a label's images; all of them in one pass over the resamples."""
    plain = [statistic(patients.everyone())[:, 0] for statistic, _ in statistics]
    parts = [[statistic(counts) for statistic, _ in statistics] for counts in patients.draws(AT_ONCE)]
    found = []
    for k, (_, column) in enumerate(statistics):
        drawn = np.concatenate([np.empty((len(plain[k]), 0)), *(part[k] for part in parts)], axis=1)
        found.append([Drawn(float(v), d, counted(column)) for v, d in zip(plain[k], drawn, strict=True)])
    return found


def mean_of(parts: Mapping[str, Drawn], names: Sequence[str]) -> tuple[Drawn, list[str]]:
    """The mean over those of the names that have the number, and these names.

    They are the same in all resamples: one that lacks a part has no mean.
    """
    having = [name for name in names if name in parts and not np.isnan(parts[name].value)]
    if not having:
        return Drawn(float("nan"), np.empty(0), Counted(0, 0)), []
    several = [parts[name] for name in having]
    fewest = Counted(*(min(counts) for counts in zip(*(part.patients for part in several), strict=True)))
    drawn = np.mean([part.drawn for part in several], axis=0)
    return Drawn(float(np.mean([part.value for part in several])), drawn, fewest), having


def mean_of_labels(parts: Mapping[str, Drawn], mean_over: Sequence[str]) -> tuple[Score, list[str]]:
    """The mean over those of the labels that have the number, with its interval, and these labels."""
    mean, having = mean_of(parts, mean_over)
    return mean._replace(is_mean=True).score("no label has it"), having


def why_unscored(column: LabelColumn) -> str:
    """Why a label has no metric at all; empty where it can have some."""
    positives = int(column.positive.sum())
    negatives = len(column.positive) - positives
    if not (positives and negatives):
        return f"{positives} positives, {negatives} negatives"
    return "a score is not a number" if np.isnan(column.scores).any() else ""


def none(reason: str) -> Score:
    """What does not exist."""
    return Score(None, reason=reason)


def rounded(values: Iterable[float | None]) -> list[float | None]:
    """Points of a curve for a report: four digits are finer than any picture."""
    return [None if value is None else round(float(value), 4) + 0.0 for value in values]
