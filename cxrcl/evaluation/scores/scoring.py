"""The predictions of one model and the labels of the same images -> its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cxrcl.evaluation.metrics.curves import reliability
from cxrcl.evaluation.metrics.label_metrics import DECISIONS, METRICS, PROBABILITY, LabelColumn, LabelMetrics, pooled
from cxrcl.evaluation.metrics.labels import is_labelled, mean_over_labels, weightings
from cxrcl.evaluation.scores.bootstrap import Patients, resampled
from cxrcl.evaluation.scores.intervals import percentile
from cxrcl.evaluation.scores.score_report import AverageScores, LabelScores, Score, or_none

NO_PROBABILITY = "the scores are not probabilities: some lie outside [0, 1]"
ENOUGH = 0.9  # of the resamples must have a value for an interval


@dataclass(frozen=True)
class Predicted:
    """A model's scores of N images for C labels, and how they become decisions and probabilities.

    Attributes:
        scores: float [N, C], as the model gave them.
        probabilities: float [N, C], or None where there are none.
        thresholds: float [C], of probabilities where there are any, else of scores; nan: none.
        temperatures: float [C], nan: none.
        threshold, calibration: the rules, in words.
        order: float [N, C], what images are ranked by where `scores` are rounded probabilities; None: by `scores`.
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

    def columns(self, labels: np.ndarray, patients: Patients, rows: np.ndarray | None = None) -> list[LabelColumn]:
        """The images on which each label is known, one column for each label.

        Args:
            labels: float [N, C] of 1, 0 and anything else for unknown.
            patients: those of the N images.
            rows: bool [N], the images to take; None takes all.
        """
        columns = []
        for k in range(len(self.labels)):
            chosen = is_labelled(labels[:, k]) if rows is None else is_labelled(labels[:, k]) & rows
            scores = self.scores[chosen, k].astype(float)
            probabilities = None if self.probabilities is None else self.probabilities[chosen, k]
            decided_by = scores if probabilities is None else probabilities
            column = LabelColumn(
                scores=scores,
                positive=labels[chosen, k] == 1,
                patient_index=patients.index[chosen],
                probabilities=probabilities,
                predicted=None if np.isnan(self.thresholds[k]) else decided_by >= self.thresholds[k],
                order=None if self.order is None else self.order[chosen, k],
            )
            columns.append(column)
        return columns


def ranked_only(name: str, labels: Sequence[str], scores: np.ndarray) -> Predicted:
    """Scores [N, C] that are neither probabilities nor compared with a threshold."""
    none = np.full(len(labels), np.nan)
    return Predicted(
        name=name,
        labels=tuple(labels),
        scores=scores,
        probabilities=None,
        thresholds=none,
        temperatures=none,
        threshold="none",
        calibration="none",
    )


@dataclass(frozen=True)
class Measured:
    """The metrics of a label or an average: what intervals and comparisons are made of.

    Attributes:
        plain: metric -> its value; nan: none.
        drawn: metric -> float [R], its values in the resamples.
        reasons: metric -> why there is none.
    """

    plain: Mapping[str, float]
    drawn: Mapping[str, np.ndarray]
    reasons: Mapping[str, str]

    def scores(self) -> dict[str, Score]:
        """Metric -> its value with its interval."""
        return {
            name: with_interval(self.plain[name], self.drawn[name], self.reasons.get(name, "")) for name in self.plain
        }


def with_interval(value: float, drawn: np.ndarray, reason: str) -> Score:
    """A value with its percentile interval; None with the reason where it is nan.

    A value that fewer than nine resamples in ten have, such as a rare label's, gets no interval: those that have it
    are no fair sample.

    Args:
        drawn: float [R], the values in the resamples.
    """
    if np.isnan(value):
        return Score(None, reason=reason)
    exist = int((~np.isnan(drawn)).sum())
    if not exist or exist < ENOUGH * len(drawn):
        few = f"{exist} of {len(drawn)} resamples have a value, fewer than {ENOUGH:.0%}" if len(drawn) else None
        return Score(float(value), resamples=exist, withheld=few)
    low, high, method = percentile(drawn)
    return Score(float(value), low, high, exist, method=method)


@dataclass(frozen=True)
class ImageSetScores:
    """Labels and averages of one set of images: as plain data for reports, and with their resamples."""

    labels: list[LabelScores]
    averages: list[AverageScores]
    by_label: Mapping[str, Measured]
    by_average: Mapping[str, Measured]


def score_images(
    predicted: Predicted,
    labels: np.ndarray,
    patients: Patients,
    mean_over: Sequence[str],
    rows: np.ndarray | None = None,
) -> ImageSetScores:
    """Every metric of every label and average.

    Args:
        labels: float [N, C] of 1, 0 and anything else for unknown.
        patients: those of the N images.
        mean_over: the labels of the averages; those without both classes are left out.
        rows: bool [N], the images to score; None takes all.
    """
    columns = dict(zip(predicted.labels, predicted.columns(labels, patients, rows), strict=True))
    weights = weightings({name: columns[name].positive for name in predicted.labels if name in mean_over})
    with_both_classes = list(weights["macro"])
    micro_column = pooled([columns[name] for name in with_both_classes])
    label_metrics = [LabelMetrics(column, patients.count) for column in (*columns.values(), micro_column)]
    plain, drawn = resampled(label_metrics, patients)
    *measured_labels, micro = (
        Measured(
            plain={metric: plain[metric][k] for metric in METRICS},
            drawn={metric: drawn[metric][:, k] for metric in METRICS},
            reasons={metric: _reason(part, metric) for metric in METRICS if np.isnan(plain[metric][k])},
        )
        for k, part in enumerate(label_metrics)
    )
    by_label = dict(zip(columns, measured_labels, strict=True))
    # Macro comes first in every report, before micro; the loop below fills it.
    by_average = {"macro": Measured({}, {}, {}), "micro": micro}
    over = {"micro": {metric: [] if metric in micro.reasons else with_both_classes for metric in METRICS}}
    for name, shares in weights.items():
        by_average[name], over[name] = _average(by_label, shares)
    size = len(labels) if rows is None else int(rows.sum())
    return ImageSetScores(
        labels=[
            _label_scores(predicted, k, size, label_metrics[k], by_label[name].scores())
            for k, name in enumerate(predicted.labels)
        ],
        averages=[AverageScores(name, over[name], part.scores()) for name, part in by_average.items()],
        by_label=by_label,
        by_average=by_average,
    )


def _label_scores(
    predicted: Predicted, k: int, size: int, metrics: LabelMetrics, scores: Mapping[str, Score]
) -> LabelScores:
    column, confusion = metrics.column, metrics.confusion()
    positives = int(column.positive.sum())
    return LabelScores(
        label=predicted.labels[k],
        images=len(column.positive),
        positives=positives,
        negatives=len(column.positive) - positives,
        unknown=size - len(column.positive),
        threshold=or_none(predicted.thresholds[k]),
        temperature=or_none(predicted.temperatures[k]),
        scores=scores,
        confusion=None if confusion is None else {name: int(value) for name, value in confusion._asdict().items()},
        reliability=None if column.probabilities is None else reliability(column.probabilities, column.positive),
    )


def _reason(metrics: LabelMetrics, metric: str) -> str:
    """Why a label has no value of a metric."""
    column = metrics.column
    positives = int(column.positive.sum())
    negatives = len(column.positive) - positives
    if not (positives and negatives):
        return f"{positives} positives, {negatives} negatives"
    if not metrics.is_valid:
        return "a score is not a number"
    if metric in PROBABILITY and column.probabilities is None:
        return NO_PROBABILITY
    if metric in DECISIONS and column.predicted is None:
        return "no threshold"
    return "no image is called positive" if metric == "ppv" else "no image is called negative"


def _average(parts: Mapping[str, Measured], weights: Mapping[str, float]) -> tuple[Measured, dict[str, list[str]]]:
    """The weighted mean over labels, of each metric over those that have it, and metric -> these labels.

    In a resample it is likewise the mean over those that have it there: a rare label may be missing.
    """
    plain: dict[str, float] = {}
    drawn: dict[str, np.ndarray] = {}
    over: dict[str, list[str]] = {}
    for metric in METRICS:
        over[metric] = [name for name in weights if not np.isnan(parts[name].plain[metric])]
        shares = [weights[name] for name in over[metric]]
        plain[metric] = float(mean_over_labels(_stacked([parts[n].plain[metric] for n in over[metric]]), shares))
        drawn[metric] = mean_over_labels(_stacked([parts[n].drawn[metric] for n in over[metric]]), shares)
    reasons = {metric: _reason_of_average(parts, weights, metric) for metric in METRICS if not over[metric]}
    return Measured(plain, drawn, reasons), over


def _stacked(values: Sequence[float] | Sequence[np.ndarray]) -> np.ndarray:
    """Values of C labels along a new last axis: [C] of numbers, [R, C] of arrays [R]."""
    return np.stack([np.asarray(value) for value in values], axis=-1) if values else np.empty(0)


def _reason_of_average(parts: Mapping[str, Measured], weights: Mapping[str, float], metric: str) -> str:
    reasons = {parts[name].reasons[metric] for name in weights}
    return reasons.pop() if len(reasons) == 1 else "no label has it" if weights else "no label with both classes"
