"""Figures by name, of scores and labels: `mean_auroc`, `auroc/Edema`, `mean_f1`, `class_accuracy` and so on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from cxrcl.evaluation.choices.choice import Choice, Stage, Variant
from cxrcl.evaluation.choices.labels import Truth
from cxrcl.evaluation.choices.scoring import Scored
from cxrcl.evaluation.metrics import METRICS, is_labelled
from cxrcl.evaluation.metrics.label_metrics import LabelColumn, LabelMetrics
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.score_report import Score
from cxrcl.evaluation.scores.scoring import Predicted, score_images
from cxrcl.evaluation.scores.thresholds import ThresholdRule, fit_threshold

CLASS_ACCURACY = "class_accuracy"
MEAN = "mean_"
Cut = Callable[[np.ndarray, np.ndarray], np.ndarray]  # probabilities, labels [N, C] -> thresholds [C]


@dataclass(frozen=True)
class Decisions:
    """Where an image is called positive.

    Attributes:
        cut: probabilities and labels, float [N, C] each -> thresholds, float [C].
    """

    cut: Cut


def at_one_half(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One half for each label."""
    return np.full(probabilities.shape[1], 0.5)


def fitted(rule: ThresholdRule) -> Cut:
    """Thresholds that are fitted on the scored images themselves, as some published code does."""

    def cut(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        columns = zip(probabilities.T, labels.T, strict=True)
        return np.array([np.nan if np.isnan(p).any() else fit_threshold(rule, p, known) for p, known in columns])

    return cut


DECISION_CHOICE = Choice(
    "threshold",
    Stage.DECISIONS,
    Variant("0.5", lambda state: replace(state, cut=at_one_half), "threshold=0.5"),
    (
        Variant(
            "largest F1 on the scored images",
            lambda state: replace(state, cut=fitted(ThresholdRule("f1"))),
            "thresholds fitted on the images that are scored: too good by construction",
        ),
        Variant(
            "largest Youden's J on the scored images",
            lambda state: replace(state, cut=fitted(ThresholdRule("youden"))),
            "thresholds fitted on the images that are scored: too good by construction",
        ),
    ),
)


def check(names: Sequence[str], labels: Sequence[str]) -> None:
    """Check that figures exist.

    Raises:
        ValueError: a metric that there is not, or of a label that there is not.
    """
    for name in names:
        metric, _, label = name.removeprefix(MEAN).partition("/")
        if name != CLASS_ACCURACY and metric not in METRICS:
            raise ValueError(f"{name}: no such figure; there are mean_<metric> and <metric>/<label> of {METRICS}")
        if label and label not in labels:
            raise ValueError(f"{name}: no label {label}; there are {', '.join(labels)}")


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """`cxrcl.evaluation.metrics.auroc` of labelled images by ranks, ten times as fast: thousands are computed here."""
    count = int(positive.sum())
    if not count or count == len(positive) or np.isnan(scores).any():
        return float("nan")
    above = rankdata(scores)[positive].sum() - count * (count + 1) / 2
    return float(above / (count * (len(positive) - count)))


def figures(names: Sequence[str], scored: Scored, truth: Truth, decisions: Decisions) -> dict[str, float]:
    """The figures of these names; nan where one does not exist.

    A mean is over the labels of the mean that have both classes.

    Args:
        scored: of N images, columns as the labels of `truth`.
        truth: labels of the same images.
    """
    thresholds: np.ndarray | None = None
    known: dict[tuple[str, str], float] = {}

    def of(metric: str, label: str) -> float:
        nonlocal thresholds
        if (metric, label) not in known:
            k = truth.names.index(label)
            labelled = is_labelled(truth.values[:, k])
            positive, scores = truth.values[labelled, k] == 1, scored.scores[labelled, k]
            if metric == "auroc":
                known[metric, label] = auroc(scores, positive)
            elif not len(scores) or np.isnan(scores).any():
                known.update({(name, label): float("nan") for name in METRICS if name != "auroc"})
            else:
                thresholds = decisions.cut(scored.probabilities, truth.values) if thresholds is None else thresholds
                probabilities = scored.probabilities[labelled, k]
                column = LabelColumn(
                    scores, positive, np.zeros(len(scores), int), probabilities, probabilities >= thresholds[k]
                )
                every = LabelMetrics(column, 1).at(np.ones((1, 1)))
                known.update({(name, label): float(every[name][0]) for name in METRICS if name in every})
        return known[metric, label]

    found = {}
    for name in names:
        metric, _, label = name.partition("/")
        if name == CLASS_ACCURACY:
            found[name] = class_accuracy(scored.scores, truth)
        elif label:
            found[name] = of(metric, label)
        else:
            values = [of(metric.removeprefix(MEAN), one) for one in truth.mean_over]
            defined = [value for value in values if not np.isnan(value)]
            found[name] = float(np.mean(defined)) if defined else float("nan")
    return found


def class_accuracy(scores: np.ndarray, truth: Truth) -> float:
    """Share of the images with exactly one of the labels of the mean whose highest score is that label's."""
    columns = [truth.names.index(name) for name in truth.mean_over]
    columns = [k for k in columns if not np.isnan(scores[:, k]).any()]
    positive = truth.values[:, columns] == 1
    one = positive.sum(axis=1) == 1
    if len(columns) < 2 or not one.any():
        return float("nan")
    return float((scores[one][:, columns].argmax(axis=1) == positive[one].argmax(axis=1)).mean())


def with_intervals(
    names: Sequence[str], scored: Scored, truth: Truth, decisions: Decisions, patients: Patients
) -> Mapping[str, Score]:
    """The figures of these names with their intervals over resamples of the patients; accuracy of classes has none."""
    there = [k for k in range(len(truth.names)) if not np.isnan(scored.scores[:, k]).any()]
    kept = tuple(truth.names[k] for k in there)
    labels, probabilities = truth.values[:, there], scored.probabilities[:, there]
    predicted = Predicted(
        name="",
        labels=kept,
        scores=scored.scores[:, there],
        probabilities=probabilities,
        thresholds=decisions.cut(probabilities, labels),
        temperatures=np.full(len(kept), np.nan),
        threshold="",
        calibration="",
        order=scored.scores[:, there],
    )
    of = score_images(predicted, labels, patients, [name for name in truth.mean_over if name in kept])
    macro = next(average.scores for average in of.averages if average.name == "macro")
    by_label = {label.label: label.scores for label in of.labels}
    found: dict[str, Score] = {}
    for name in names:
        metric, _, label = name.partition("/")
        if name != CLASS_ACCURACY and (not label or label in by_label):
            found[name] = (by_label[label] if label else macro)[metric.removeprefix(MEAN)]
    return found
