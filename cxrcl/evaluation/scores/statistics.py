"""Numbers of a set of images, for the images as they are and in every resample of their patients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cxrcl.evaluation.metrics.label_metrics import LabelColumn
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.score_report import Score
from cxrcl.evaluation.scores.scoring import with_interval

# How often each patient was drawn, float [P, r] -> K numbers of each resample, float [K, r].
Statistic = Callable[[np.ndarray], np.ndarray]
AT_ONCE = 32  # resamples; arrays of 25,000 images and so many resamples stay small


class Drawn(NamedTuple):
    """A number of the images as they are, nan: none, and in the resamples, float [R]."""

    value: float
    drawn: np.ndarray

    def score(self, reason: str = "") -> Score:
        """With its interval, or with the reason why there is none."""
        return with_interval(self.value, self.drawn, reason)

    def minus(self, other: Drawn) -> Drawn:
        """The difference, resample by resample."""
        return Drawn(self.value - other.value, self.drawn - other.drawn)


def over_resamples(statistics: Sequence[Statistic], patients: Patients) -> list[list[Drawn]]:
    """The K numbers of each statistic; all of them in one pass over the resamples."""
    plain = [statistic(patients.everyone())[:, 0] for statistic in statistics]
    parts = [[statistic(counts) for statistic in statistics] for counts in patients.draws(AT_ONCE)]
    drawn = [
        np.concatenate([np.empty((len(values), 0)), *(part[k] for part in parts)], axis=1)
        for k, values in enumerate(plain)
    ]
    return [[Drawn(float(v), d) for v, d in zip(*pair, strict=True)] for pair in zip(plain, drawn, strict=True)]


def mean_of(parts: Mapping[str, Drawn], over: Sequence[str]) -> tuple[Drawn, list[str]]:
    """The mean over those of the labels that have the number, and these labels.

    The labels are the same in all resamples: one that lacks a label has no mean.
    """
    having = [name for name in over if name in parts and not np.isnan(parts[name].value)]
    if not having:
        return Drawn(float("nan"), np.empty(0)), []
    drawn = np.mean([parts[name].drawn for name in having], axis=0)
    return Drawn(float(np.mean([parts[name].value for name in having])), drawn), having


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
