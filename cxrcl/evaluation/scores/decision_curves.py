"""Decision curves: net benefit of each label over the threshold probability, beside acting on all images or none."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cxrcl.evaluation.metrics.label_metrics import LabelColumn
from cxrcl.evaluation.metrics.net_benefit import THRESHOLDS, NetBenefit
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.score_report import DecisionCurve
from cxrcl.evaluation.scores.scoring import NO_PROBABILITY
from cxrcl.evaluation.scores.statistics import Statistic, over_resamples, rounded, why_unscored

RULE = (
    "true positives per image minus false ones times t / (1 - t), of calling an image positive where its probability "
    "is t or more (Vickers and Elkin 2006); it presumes calibrated probabilities and the share of positives of the "
    "scored images"
)


def score_decision_curves(columns: Mapping[str, LabelColumn], patients: Patients) -> list[DecisionCurve]:
    """The curve of each label.

    Args:
        columns: label -> the images on which it is known.
        patients: those of all images.
    """
    reasons = {name: why_unscored(column) or _lacking(column) for name, column in columns.items()}
    scored = [name for name, reason in reasons.items() if not reason]
    numbers = over_resamples([(_statistic(columns[name], patients.count), columns[name]) for name in scored], patients)
    by_label = dict(zip(scored, numbers, strict=True))
    found = []
    for name, reason in reasons.items():
        if reason:
            found.append(DecisionCurve(name, reason=reason))
            continue
        of_model, of_all = by_label[name][: len(THRESHOLDS)], by_label[name][len(THRESHOLDS) :]
        scores = [one.score() for one in of_model]
        curve = DecisionCurve(
            label=name,
            thresholds=list(THRESHOLDS),
            net_benefit=rounded([one.value for one in of_model]),
            low=rounded([one.low for one in scores]),
            high=rounded([one.high for one in scores]),
            treat_all=rounded([one.value for one in of_all]),
        )
        found.append(curve)
    return found


def _lacking(column: LabelColumn) -> str:
    return NO_PROBABILITY if column.probabilities is None else ""


def _statistic(column: LabelColumn, patients: int) -> Statistic:
    assert column.probabilities is not None
    benefit = NetBenefit(column.probabilities, column.positive, column.patient_index, patients)
    return lambda counts: np.concatenate(benefit.at(counts))
