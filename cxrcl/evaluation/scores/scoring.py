"""The predictions of one model and the labels of the same images -> its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cxrcl.evaluation.metrics.clusters import Deviations, weighted_mean
from cxrcl.evaluation.metrics.curves import reliability
from cxrcl.evaluation.metrics.label_metrics import DECISIONS, METRICS, PROBABILITY, LabelColumn, LabelMetrics, pooled
from cxrcl.evaluation.metrics.labels import is_labelled, weightings
from cxrcl.evaluation.scores import intervals
from cxrcl.evaluation.scores.bootstrap import Patients, resampled
from cxrcl.evaluation.scores.calibration import at_a_bound
from cxrcl.evaluation.scores.score_report import AverageScores, LabelScores, Score, or_none

NO_PROBABILITY = "the scores are not probabilities: some lie outside [0, 1]"
ENOUGH = 0.9  # of the resamples must have a value for an interval of them
# Patients with positive images, and patients with negative ones, that an interval takes: below, simulated intervals do
# not cover or tell nothing (docs/statistics.md). The mean AUROC over labels covers with fewer in some of them.
FEWEST, FEWEST_IN_MEAN = 5, 2
OF_LABEL = dict.fromkeys(METRICS, FEWEST)
OF_MEAN = {**OF_LABEL, "auroc": FEWEST_IN_MEAN}
ADDED = 0.5  # patients that the variance of AUROC is computed with on top of those seen, chosen likewise


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
        terms: metric -> label -> its deviations and its weight, of the metrics that have a variance.
        positives, negatives: label -> patients with images of the class; of an average, its labels.
        fewest: metric -> how many of them an interval takes.
    """

    plain: Mapping[str, float]
    drawn: Mapping[str, np.ndarray]
    reasons: Mapping[str, str]
    terms: Mapping[str, Mapping[str, tuple[Deviations, float]]]
    positives: Mapping[str, int]
    negatives: Mapping[str, int]
    fewest: Mapping[str, int]

    @property
    def fewest_positives(self) -> int:
        return min(self.positives.values(), default=0)

    @property
    def fewest_negatives(self) -> int:
        return min(self.negatives.values(), default=0)

    def scores(self, resamples: int) -> dict[str, Score]:
        """Metric -> its value with its interval, of the first so many resamples; 0: without intervals."""
        return {name: self._score(name, resamples) for name in self.plain}

    def _score(self, metric: str, resamples: int) -> Score:
        value, terms, few = self.plain[metric], self.terms.get(metric), self.too_few(metric)
        if not terms or not resamples or few or np.isnan(value):
            score = with_interval(value, self.drawn[metric][:resamples], self.reasons.get(metric, ""), few)
            if score.low is not None and score.low == score.high:
                return Score(score.value, resamples=score.resamples, withheld="it is the same in all resamples")
            return score
        deviations, weights = zip(*terms.values(), strict=True)
        if metric == "auroc":
            rarer = min(min(each.counts) for each in deviations)
            found = intervals.log_odds(weighted_mean(deviations, weights, ADDED), rarer)
        else:
            counted = min(min(each.counts) for each in deviations)
            found = intervals.wilson(weighted_mean(deviations, weights), counted)
        if np.isnan(found.low):
            return Score(value, withheld="the share is of images of one patient")
        return Score(float(value), found.low, found.high, method=found.method)

    def too_few(self, metric: str) -> str | None:
        """Why a metric has no interval, in words, where a class has too few patients."""
        return self.fewer_than(self.fewest[metric])

    def fewer_than(self, fewest: int) -> str | None:
        """Which class has fewer patients than these, in words."""
        for name, counts in (("positive", self.positives), ("negative", self.negatives)):
            for label, count in counts.items():
                if count < fewest:
                    of_label = f"{label}: " if len(counts) > 1 else ""
                    patients = "patient" if count == 1 else "patients"
                    return f"{of_label}{count} {patients} with {name} images, fewer than {fewest}"
        return None


def with_interval(value: float, drawn: np.ndarray, reason: str, withheld: str | None = None) -> Score:
    """A value with its percentile interval; None with the reason where it is nan.

    A value that fewer than nine resamples in ten have gets no interval: those that have it are no fair sample.

    Args:
        drawn: float [R], the values in the resamples.
        withheld: why there is no interval, whatever the resamples say.
    """
    if np.isnan(value):
        return Score(None, reason=reason)
    exist = int((~np.isnan(drawn)).sum())
    if not exist or withheld:
        return Score(float(value), resamples=exist, withheld=withheld if len(drawn) else None)
    if exist < ENOUGH * len(drawn):
        few = f"{exist} of {len(drawn)} resamples have a value, fewer than {ENOUGH:.0%}"
        return Score(float(value), resamples=exist, withheld=few)
    low, high, method = intervals.percentile(drawn)
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
    resamples: int | None = None,
) -> ImageSetScores:
    """Every metric of every label and average.

    Args:
        labels: float [N, C] of 1, 0 and anything else for unknown.
        patients: those of the N images.
        mean_over: the labels of the averages; those without both classes are left out.
        rows: bool [N], the images to score; None takes all.
        resamples: how many of those of `patients` the intervals are of; None takes all. Comparisons may need more.
    """
    resamples = patients.resamples if resamples is None else resamples
    columns = dict(zip(predicted.labels, predicted.columns(labels, patients, rows), strict=True))
    weights = weightings({name: columns[name].positive for name in predicted.labels if name in mean_over})
    with_both_classes = list(weights["macro"])
    micro_column = pooled([columns[name] for name in with_both_classes])
    label_metrics = [LabelMetrics(column, patients.count) for column in (*columns.values(), micro_column)]
    plain, drawn = resampled(label_metrics, patients)
    *measured_labels, micro = (
        _measured(name, part, {m: plain[m][k] for m in METRICS}, {m: drawn[m][:, k] for m in METRICS})
        for k, (name, part) in enumerate(zip((*columns, "micro"), label_metrics, strict=True))
    )
    by_label = dict(zip(columns, measured_labels, strict=True))
    # Macro comes first in every report, before micro; the loop below fills it.
    by_average = {"macro": micro, "micro": micro}
    over = {"micro": {metric: [] if metric in micro.reasons else with_both_classes for metric in METRICS}}
    for name, shares in weights.items():
        by_average[name], over[name] = _average(by_label, shares)
    size = len(labels) if rows is None else int(rows.sum())
    return ImageSetScores(
        labels=[
            _label_scores(predicted, k, size, label_metrics[k], by_label[name], resamples)
            for k, name in enumerate(predicted.labels)
        ],
        averages=[
            AverageScores(
                name=name,
                over=over[name],
                fewest_positives=part.fewest_positives,
                fewest_negatives=part.fewest_negatives,
                scores=part.scores(resamples),
            )
            for name, part in by_average.items()
        ],
        by_label=by_label,
        by_average=by_average,
    )


def _measured(
    name: str, metrics: LabelMetrics, plain: Mapping[str, float], drawn: Mapping[str, np.ndarray]
) -> Measured:
    positives, negatives = metrics.with_class()
    return Measured(
        plain=plain,
        drawn=drawn,
        reasons={metric: _reason(metrics, metric) for metric in METRICS if np.isnan(plain[metric])},
        terms={metric: {name: (each, 1.0)} for metric, each in metrics.deviations().items()},
        positives={name: positives},
        negatives={name: negatives},
        fewest=OF_LABEL,
    )


def _label_scores(
    predicted: Predicted, k: int, size: int, metrics: LabelMetrics, measured: Measured, resamples: int
) -> LabelScores:
    column, confusion = metrics.column, metrics.confusion()
    positives = int(column.positive.sum())
    return LabelScores(
        label=predicted.labels[k],
        images=len(column.positive),
        positives=positives,
        negatives=len(column.positive) - positives,
        positive_patients=measured.fewest_positives,
        negative_patients=measured.fewest_negatives,
        unknown=size - len(column.positive),
        threshold=or_none(predicted.thresholds[k]),
        temperature=or_none(predicted.temperatures[k]),
        temperature_at_bound=at_a_bound(predicted.temperatures[k]),
        scores=measured.scores(resamples),
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

    A resample that lacks one of them has no mean: that of the others would be another metric.
    """
    plain: dict[str, float] = {}
    drawn: dict[str, np.ndarray] = {}
    over: dict[str, list[str]] = {}
    terms: dict[str, dict[str, tuple[Deviations, float]]] = {}
    for metric in METRICS:
        over[metric] = [name for name in weights if not np.isnan(parts[name].plain[metric])]
        if not over[metric]:
            plain[metric], drawn[metric] = float("nan"), np.empty(0)
            continue
        shares = np.array([weights[name] for name in over[metric]])
        plain[metric] = float(np.average([parts[name].plain[metric] for name in over[metric]], weights=shares))
        drawn[metric] = np.average([parts[name].drawn[metric] for name in over[metric]], axis=0, weights=shares)
        if all(metric in parts[name].terms for name in over[metric]):
            terms[metric] = {n: (parts[n].terms[metric][n][0], weights[n]) for n in over[metric]}
    return Measured(
        plain=plain,
        drawn=drawn,
        reasons={metric: _reason_of_average(parts, weights, metric) for metric in METRICS if not over[metric]},
        terms=terms,
        positives={name: parts[name].positives[name] for name in weights},
        negatives={name: parts[name].negatives[name] for name in weights},
        fewest=OF_MEAN if len(weights) > 1 else OF_LABEL,
    ), over


def _reason_of_average(parts: Mapping[str, Measured], weights: Mapping[str, float], metric: str) -> str:
    reasons = {parts[name].reasons[metric] for name in weights}
    return reasons.pop() if len(reasons) == 1 else "no label has it" if weights else "no label with both classes"
