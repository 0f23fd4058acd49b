"""Figures of a label or an average with their values in the resamples: what intervals and comparisons are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cxrcl.evaluation.averages import mean_over_labels
from cxrcl.evaluation.bootstrap import interval
from cxrcl.evaluation.columns import DECISIONS, METRICS, PROBABILITY, Column
from cxrcl.evaluation.known import one_class
from cxrcl.evaluation.score_report import Score

NO_PROBABILITY = "the scores are not probabilities: some lie outside [0, 1]"


ENOUGH = 0.9


@dataclass(frozen=True)
class Measured:
    """Of each metric the value (nan: none), [R] values in resamples, and why there is none."""

    plain: Mapping[str, float]
    drawn: Mapping[str, np.ndarray]
    reasons: Mapping[str, str]

    def scores(self) -> dict[str, Score]:
        return {name: score(self.plain[name], self.drawn[name], self.reasons.get(name, "")) for name in self.plain}


def score(value: float, drawn: np.ndarray, reason: str) -> Score:
    """A value with its percentile interval; None with the reason where it is nan.

    A value that fewer than nine resamples in ten have, such as a rare label's, gets no interval: those that have it
    are no fair sample.
    """
    if np.isnan(value):
        return Score(None, reason=reason)
    exist = int((~np.isnan(drawn)).sum())
    if not exist or exist < ENOUGH * len(drawn):
        return Score(float(value), resamples=exist)
    return Score(float(value), *interval(drawn), exist)


def measured(column: Column, plain: Mapping[str, float], drawn: Mapping[str, np.ndarray]) -> Measured:
    return Measured(plain, drawn, {name: _reason(column, name) for name in METRICS if np.isnan(plain[name])})


def _reason(column: Column, metric: str) -> str:
    films = column.films
    positives = int(films.positive.sum())
    if why := one_class(positives, len(films.positive) - positives):
        return why
    if not column.is_valid:
        return "a score is not a number"
    if metric in PROBABILITY and films.probabilities is None:
        return NO_PROBABILITY
    if metric in DECISIONS and films.predicted is None:
        return "no threshold"
    return "no film is called positive" if metric == "ppv" else "no film is called negative"


def average(parts: Mapping[str, Measured], weights: Mapping[str, float]) -> tuple[Measured, dict[str, list[str]]]:
    """The weighted mean over labels, of each metric over those that have it, and which these are.

    In a resample it is likewise the mean over those that have it there: a rare label may be missing.
    """
    plain: dict[str, float] = {}
    drawn: dict[str, np.ndarray] = {}
    over: dict[str, list[str]] = {}
    for metric in METRICS:
        over[metric] = [name for name in weights if not np.isnan(parts[name].plain[metric])]
        share = [weights[name] for name in over[metric]]
        plain[metric] = float(mean_over_labels(_stacked([parts[n].plain[metric] for n in over[metric]]), share))
        drawn[metric] = mean_over_labels(_stacked([parts[n].drawn[metric] for n in over[metric]]), share)
    reasons = {metric: _no_label(parts, weights, metric) for metric in METRICS if not over[metric]}
    return Measured(plain, drawn, reasons), over


def _stacked(values: Sequence[float] | Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([np.asarray(value) for value in values], axis=-1) if values else np.empty(0)


def _no_label(parts: Mapping[str, Measured], weights: Mapping[str, float], metric: str) -> str:
    reasons = {parts[name].reasons[metric] for name in weights}
    return reasons.pop() if len(reasons) == 1 else "no label has it" if weights else "no label with both classes"
