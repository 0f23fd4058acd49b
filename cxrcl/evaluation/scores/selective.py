"""Selective prediction: risk-coverage curves and their areas, of each label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cxrcl.evaluation.metrics.curves import thinned
from cxrcl.evaluation.metrics.label_metrics import LabelColumn
from cxrcl.evaluation.metrics.risk_coverage import RiskCoverage
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.score_report import SelectiveScores
from cxrcl.evaluation.scores.scoring import NO_PROBABILITY
from cxrcl.evaluation.scores.statistics import Statistic, mean_of_labels, none, over_resamples, rounded, why_unscored

MOST = 50  # points of a curve
RULE = (
    "area under the curve of the share of wrong decisions over the share of images decided on, the most confident ones "
    "first (Geifman et al. 2019); the confidence of a decision is its probability: p where it is positive, else 1 - p; "
    "E-AURC: minus the area of the best order of the same decisions"
)


def score_selective(
    columns: Mapping[str, LabelColumn], patients: Patients, mean_over: Sequence[str]
) -> list[SelectiveScores]:
    """The areas of each label, and last of their mean, `macro`.

    A decision is that at the threshold of the label. Its confidence is the probability of the class that it names
    (the softmax response of Geifman and El-Yaniv 2017), which is max(p, 1 - p) where the threshold is 0.5.

    Args:
        columns: label -> the images on which it is known.
        patients: those of all images.
        mean_over: the labels of the mean; those without a value are left out.
    """
    reasons = {name: why_unscored(column) or _lacking(column) for name, column in columns.items()}
    curves = {name: _curve(columns[name], patients.count) for name, reason in reasons.items() if not reason}
    numbers = over_resamples([(_areas(curve), columns[name]) for name, curve in curves.items()], patients)
    by_label = dict(zip(curves, numbers, strict=True))
    found = []
    for name, reason in reasons.items():
        if reason:
            found.append(SelectiveScores(name, none(reason), none(reason), none(reason)))
            continue
        coverage, risks = thinned(*curves[name].curve(np.ones(patients.count)), MOST)
        aurc, excess, risk = (one.score() for one in by_label[name])
        found.append(SelectiveScores(name, aurc, excess, risk, rounded(coverage), rounded(risks)))
    means = [mean_of_labels({name: each[k] for name, each in by_label.items()}, mean_over) for k in range(3)]
    aurc, excess, risk = (mean for mean, _ in means)
    return [*found, SelectiveScores("macro", aurc, excess, risk, over=means[0][1])]


def _lacking(column: LabelColumn) -> str:
    """What decisions or their confidence lack; empty where they lack nothing."""
    return NO_PROBABILITY if column.probabilities is None else "no threshold" if column.predicted is None else ""


def _curve(column: LabelColumn, patients: int) -> RiskCoverage:
    assert column.probabilities is not None and column.predicted is not None
    confidence = np.where(column.predicted, column.probabilities, 1 - column.probabilities)
    return RiskCoverage(confidence, column.predicted != column.positive, column.patient_index, patients)


def _areas(curve: RiskCoverage) -> Statistic:
    return lambda counts: np.stack(curve.at(counts))
