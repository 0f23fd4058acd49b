"""Scores as plain data: computed once, and shown as Markdown, JSON or HTML.

None stands for a metric that does not exist; `reason` says why.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Scores of N images for C labels; the higher, the more likely.

    Attributes:
        names: of the labels, [C].
        scores: float [N, C].
        labels: float [N, C] of 1, 0, nan (unknown) and -1 (uncertain).
        probabilities: float [N, C], or None where scores have no such meaning.
        mean_over: labels of averages; None takes all but `No Finding`.
    """

    names: tuple[str, ...]
    scores: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray | None = None
    mean_over: Sequence[str] | None = None


@dataclass(frozen=True)
class Score:
    """The value of a metric with its interval.

    Attributes:
        value, low, high: None where there is none.
        resamples: the number of them in which the metric exists, where the interval is made of them; else 0.
        reason: why there is no value.
        method: of the interval (see `intervals`).
        withheld: why there is a value and no interval.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    resamples: int = 0
    reason: str | None = None
    method: str | None = None
    withheld: str | None = None


@dataclass(frozen=True)
class LabelScores:
    """One label on one set of images.

    Attributes:
        images: number of those whose label is known, `positives` + `negatives`.
        unknown: number of the others, which are left out.
        threshold, temperature: what decisions and probabilities were made with.
        scores: metric -> Score, every name of `label_metrics.METRICS`.
        confusion: numbers of images by decision and label.
        reliability: the reliability curve (see `metrics.reliability`).
    """

    label: str
    images: int
    positives: int
    negatives: int
    positive_patients: int
    negative_patients: int
    unknown: int
    threshold: float | None
    temperature: float | None
    temperature_at_bound: bool
    scores: Mapping[str, Score]
    confusion: Mapping[str, int] | None = None
    reliability: list[dict[str, float]] | None = None


@dataclass(frozen=True)
class AverageScores:
    """An average over labels.

    Attributes:
        over: metric -> the labels in it, those where the metric exists.
        fewest_positives, fewest_negatives: numbers of patients with images of the class in the label that has fewest.
    """

    name: str
    over: Mapping[str, list[str]]
    fewest_positives: int
    fewest_negatives: int
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class GroupScores:
    """The images with one value of a column. `images` and `patients` are numbers."""

    column: str
    group: str
    images: int
    patients: int
    labels: list[LabelScores]
    averages: list[AverageScores]
    underdiagnosis: Score


@dataclass(frozen=True)
class Gap:
    """The distance between the best and the worst group. `over`: the labels of the mean, or the label itself."""

    column: str
    label: str
    metric: str
    best: str
    worst: str
    over: list[str]
    gap: Score


@dataclass(frozen=True)
class FixedRateScores:
    """A rate read off the ROC curves of the scored images where the other rate is fixed (see `operating`).

    Attributes:
        metric, fixed: `sensitivity` and `specificity`, or the reverse.
        least: what the fixed rate is at least.
        labels: label -> the highest `metric` there.
        macro: their mean over the labels `over`.
    """

    metric: str
    fixed: str
    least: float
    labels: Mapping[str, Score]
    macro: Score
    over: list[str]


@dataclass(frozen=True)
class SelectiveScores:
    """Of one label, or `macro`: how much of its error a model knows of (see `metrics.risk_coverage`).

    Attributes:
        coverage, risks: points of the risk-coverage curve; empty for the macro average.
        over: the labels of the macro average.
    """

    label: str
    aurc: Score
    excess_aurc: Score
    risk: Score
    coverage: list[float | None] = field(default_factory=list)
    risks: list[float | None] = field(default_factory=list)
    over: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit of one label over the threshold probability (see `metrics.net_benefit`).

    Attributes:
        thresholds: the probabilities, of the points of all further lists.
        net_benefit, low, high: of acting on the probability, with its interval; None where there is none.
        treat_all: of acting on every image; that of acting on none is 0.
        reason: why there is no curve.
    """

    label: str
    thresholds: list[float] = field(default_factory=list)
    net_benefit: list[float | None] = field(default_factory=list)
    low: list[float | None] = field(default_factory=list)
    high: list[float | None] = field(default_factory=list)
    treat_all: list[float | None] = field(default_factory=list)
    reason: str | None = None


@dataclass(frozen=True)
class ReaderScores:
    """One reader, or the mean of all, on one label: a point of the ROC plane.

    Attributes:
        images: number of those that the reader read and whose label is known, `positives` + `negatives`.
        unknown: number of images that the reader read and whose label is not known; they are left out.
    """

    reader: str
    label: str
    images: int
    patients: int
    positives: int
    negatives: int
    unknown: int
    sensitivity: Score
    specificity: Score


@dataclass(frozen=True)
class AgainstReader:
    """A model's `metric` at the other rate of a reader, and minus the reader's own, on the images that he read."""

    reader: str
    label: str
    metric: str
    value: Score
    difference: Score
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class ModelScores:
    """One file of predictions, or one evaluator.

    Attributes:
        roc: label -> false positive rate and sensitivity of points of its ROC curve on the images of the readers.
    """

    name: str
    threshold: str
    calibration: str
    labels: list[LabelScores]
    averages: list[AverageScores]
    groups: list[GroupScores] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    fixed_rates: list[FixedRateScores] = field(default_factory=list)
    selective: list[SelectiveScores] = field(default_factory=list)
    decision_curves: list[DecisionCurve] = field(default_factory=list)
    against_readers: list[AgainstReader] = field(default_factory=list)
    roc: Mapping[str, tuple[list[float | None], list[float | None]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """`model` minus `reference` on the same images and the same resamples.

    Attributes:
        kind: `label` or `average`.
        positives, negatives: numbers of patients with images of the class; of an average, in the label that has fewest.
        p_holm: corrected (see `comparisons.holm`).
    """

    model: str
    reference: str
    kind: str
    label: str
    metric: str
    positives: int
    negatives: int
    difference: Score
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class ScoreReport:
    """Everything about one or several models on one set of images.

    Attributes:
        facts: what was scored: numbers of images and patients, files and their sha256.
        rules: each rule that metrics depend on, in words.
        notes: what a reader has to know of these data.
        readers: each reader and label, then the mean reader, where there are readings.
    """

    facts: Mapping[str, Any]
    rules: Mapping[str, str]
    notes: list[str]
    models: list[ModelScores]
    comparisons: list[Comparison]
    readers: list[ReaderScores] = field(default_factory=list)


def or_none(value: float) -> float | None:
    """A value; None where it is nan."""
    return None if math.isnan(value) else float(value)


def plain(value: Any) -> Any:
    """Plain values of dataclasses, which `json.dumps(..., allow_nan=False)` takes; nan and infinity become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name.name: plain(getattr(value, name.name)) for name in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
