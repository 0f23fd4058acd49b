"""Predictions and labels -> scores of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cxrcl.evaluation.averages import weightings
from cxrcl.evaluation.bootstrap import Patients
from cxrcl.evaluation.calibration import reliability
from cxrcl.evaluation.columns import METRICS, Column, Films, figures, pooled
from cxrcl.evaluation.known import known
from cxrcl.evaluation.measured import Measured, average, measured
from cxrcl.evaluation.score_report import AverageScores, LabelScores, Score


@dataclass(frozen=True)
class Predicted:
    """A model's scores of N films for C labels, and how they become decisions and probabilities.

    Attributes:
        scores: float [N, C], as the model gave them.
        probabilities: float [N, C], or None where there are none.
        thresholds: float [C], of probabilities where there are any, else of scores; nan: none.
        threshold, calibration: the rules, in words.
        temperatures: float [C], nan: none.
        order: float [N, C], what films are ranked by where `scores` are rounded probabilities; None: by `scores`.
    """

    name: str
    labels: tuple[str, ...]
    scores: np.ndarray
    probabilities: np.ndarray | None
    thresholds: np.ndarray
    temperatures: np.ndarray
    threshold: str
    calibration: str
    order: np.ndarray | None = None

    def columns(self, truth: np.ndarray, patients: Patients, rows: np.ndarray | None = None) -> list[Column]:
        """One for each label, of all films or of those where bool `rows` [N] is true."""
        found = []
        for k in range(len(self.labels)):
            chosen = known(truth[:, k]) if rows is None else known(truth[:, k]) & rows
            scores = self.scores[chosen, k].astype(float)
            probabilities = None if self.probabilities is None else self.probabilities[chosen, k]
            decided = scores if probabilities is None else probabilities
            predicted = None if np.isnan(self.thresholds[k]) else decided >= self.thresholds[k]
            order = None if self.order is None else self.order[chosen, k]
            films = Films(scores, truth[chosen, k] == 1, patients.member[chosen], probabilities, predicted, order)
            found.append(Column(films, patients.count))
        return found


def ranked_only(name: str, labels: Sequence[str], scores: np.ndarray) -> Predicted:
    """Scores that are neither probabilities nor compared with a threshold."""
    nothing = np.full(len(labels), np.nan)
    return Predicted(name, tuple(labels), scores, None, nothing, nothing, "none", "none")


@dataclass(frozen=True)
class Scored:
    """Labels and averages of one set of films, as data and with their resamples."""

    labels: list[LabelScores]
    averages: list[AverageScores]
    by_label: Mapping[str, Measured]
    by_average: Mapping[str, Measured]


def score_films(
    predicted: Predicted,
    truth: np.ndarray,
    patients: Patients,
    mean_over: Sequence[str],
    rows: np.ndarray | None = None,
) -> Scored:
    """Every figure of every label and average.

    Args:
        truth: [N, C] of 1, 0 and anything else for unknown.
        patients: those of the N films.
        mean_over: the labels of the averages; those without both classes are left out.
        rows: bool [N], the films to score; None takes all.
    """
    columns = dict(zip(predicted.labels, predicted.columns(truth, patients, rows), strict=True))
    weights = weightings({name: columns[name].films.positive for name in predicted.labels if name in mean_over})
    chosen = list(weights["macro"])
    micro = Column(pooled([columns[name].films for name in chosen]), patients.count)
    plain, drawn = figures([*columns.values(), micro], patients)
    *each, pooled_one = (
        measured(column, {m: plain[m][k] for m in METRICS}, {m: drawn[m][:, k] for m in METRICS})
        for k, column in enumerate([*columns.values(), micro])
    )
    by_label = dict(zip(columns, each, strict=True))
    by_average = {"macro": Measured({}, {}, {}), "micro": pooled_one}
    over = {"micro": {metric: [] if metric in pooled_one.reasons else chosen for metric in METRICS}}
    for name, shares in weights.items():
        by_average[name], over[name] = average(by_label, shares)
    size = len(truth) if rows is None else int(rows.sum())
    labels = [_label(predicted, k, size, columns[n], by_label[n].scores()) for k, n in enumerate(predicted.labels)]
    averages = [AverageScores(name, over[name], part.scores()) for name, part in by_average.items()]
    return Scored(labels, averages, by_label, by_average)


def _label(predicted: Predicted, k: int, size: int, column: Column, scores: Mapping[str, Score]) -> LabelScores:
    films, cells = column.films, column.confusion()
    positives = int(films.positive.sum())
    return LabelScores(
        label=predicted.labels[k],
        films=len(films.positive),
        positives=positives,
        negatives=len(films.positive) - positives,
        unknown=size - len(films.positive),
        threshold=_or_none(predicted.thresholds[k]),
        temperature=_or_none(predicted.temperatures[k]),
        scores=scores,
        confusion=None if cells is None else {name: int(value) for name, value in cells._asdict().items()},
        reliability=None if films.probabilities is None else reliability(films.probabilities, films.positive),
    )


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
