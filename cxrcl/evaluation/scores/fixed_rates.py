"""Sensitivity at a fixed specificity, and specificity at a fixed sensitivity, of each label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cxrcl.evaluation.metrics.label_metrics import LabelColumn
from cxrcl.evaluation.metrics.operating import least_count
from cxrcl.evaluation.metrics.ranking import Ranking
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.score_report import FixedRateScores
from cxrcl.evaluation.scores.statistics import Statistic, mean_of_labels, none, over_resamples, why_unscored

OTHER = {"sensitivity": "specificity", "specificity": "sensitivity"}
RULE = (
    "the highest sensitivity at a specificity of at least the named one, or the reverse, on the ROC curve of the "
    "scored images, without interpolation: what the ranking allows, not what a threshold from other images reaches; "
    "the threshold is found anew in each resample"
)


class FixedRate(NamedTuple):
    """A rate that is held: `sensitivity` or `specificity`, and its least value, in (0, 1)."""

    fixed: str
    least: float


DEFAULT = (FixedRate("specificity", 0.9), FixedRate("sensitivity", 0.9))


def parse(text: str) -> list[FixedRate]:
    """The rates that a user wrote as `specificity=0.9,sensitivity=0.95`; none of an empty text.

    Raises:
        ValueError: anything else.
    """
    rates = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        fixed, _, number = (word.strip() for word in part.partition("="))
        try:
            least = float(number)
        except ValueError:
            least = float("nan")
        if fixed not in OTHER or not 0 < least < 1:
            raise ValueError(f"{part!r}: expected specificity=0.9 or sensitivity=0.95, of numbers between 0 and 1")
        rates.append(FixedRate(fixed, least))
    return list(dict.fromkeys(rates))


def score_fixed_rates(
    columns: Mapping[str, LabelColumn], patients: Patients, mean_over: Sequence[str], rates: Sequence[FixedRate]
) -> list[FixedRateScores]:
    """Each rate of each label and of their mean.

    Args:
        columns: label -> the images on which it is known.
        patients: those of all images.
        mean_over: the labels of the mean; those without both classes are left out.
    """
    if not rates:
        return []
    reasons = {name: why_unscored(column) for name, column in columns.items()}
    scored = [name for name, reason in reasons.items() if not reason]
    statistics = [(_statistic(columns[name], patients.count, rates), columns[name]) for name in scored]
    numbers = over_resamples(statistics, patients)
    found = []
    for k, rate in enumerate(rates):
        by_label = {name: drawn[k] for name, drawn in zip(scored, numbers, strict=True)}
        macro, over = mean_of_labels(by_label, mean_over)
        found.append(
            FixedRateScores(
                metric=OTHER[rate.fixed],
                fixed=rate.fixed,
                least=rate.least,
                labels={name: by_label[name].score() if name in by_label else none(reasons[name]) for name in columns},
                macro=macro,
                over=over,
            )
        )
    return found


def _statistic(column: LabelColumn, patients: int, rates: Sequence[FixedRate]) -> Statistic:
    order = column.scores if column.order is None else column.order
    ranking = Ranking(order, column.positive, column.patient_index, patients)

    def at(counts: np.ndarray) -> np.ndarray:
        points = ranking.roc(counts)
        return np.stack(
            [
                points.sensitivity(least_count(rate.least, points.negatives))
                if rate.fixed == "specificity"
                else points.specificity(least_count(rate.least, points.positives))
                for rate in rates
            ]
        )

    return at
