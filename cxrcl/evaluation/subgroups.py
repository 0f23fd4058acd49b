"""Scores by sex, age, view or any other column, the gaps between groups, and missed disease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cxrcl.evaluation.bootstrap import Patients
from cxrcl.evaluation.columns import ERRORS, METRICS
from cxrcl.evaluation.known import NO_FINDING
from cxrcl.evaluation.measured import Measured, score
from cxrcl.evaluation.score_report import Gap, GroupScores, Score
from cxrcl.evaluation.scoring import Predicted, Scored, score_films

MOST = 30
BLANK = "(blank)"
AGE_EDGES = (20, 40, 60, 80)  # years; the bands of Seyyed-Kalantari et al. 2021


def age_bands(values: Sequence[str]) -> list[str]:
    """`0-19`, `20-39`, ..., `80+`, and `(blank)` for what is no number of years; '063Y' of DICOM is 63."""
    bands = [f"{low}-{high - 1}" for low, high in zip((0, *AGE_EDGES), AGE_EDGES)] + [f"{AGE_EDGES[-1]}+"]
    found = []
    for text in values:
        try:
            years = float(text.strip().upper().removesuffix("Y"))
        except ValueError:
            years = float("nan")
        found.append(bands[int(np.searchsorted(AGE_EDGES, years, "right"))] if years >= 0 else BLANK)
    return found


def groups_of(name: str, values: Sequence[str]) -> list[str]:
    """The group of each film: bands of `age`, of other columns the values.

    Raises:
        ValueError: more than 30 groups.
    """
    found = age_bands(values) if name.lower() == "age" else [value.strip() or BLANK for value in values]
    if (count := len(set(found))) > MOST:
        raise ValueError(f"column {name} has {count} different values: at most {MOST} can be groups")
    return found


def score_groups(
    predicted: Predicted,
    truth: np.ndarray,
    patients: Patients,
    mean_over: Sequence[str],
    column: str,
    groups: Sequence[str],
) -> tuple[list[GroupScores], list[Gap]]:
    """Scores of each group, and of each metric the gap between the best and the worst (blank cells are no group).

    Args:
        truth: [N, C]; groups: [N].
    """
    assigned = np.asarray(groups)
    found: list[GroupScores] = []
    scored: dict[str, Scored] = {}
    for group in sorted(set(groups), key=lambda name: (name == BLANK, name)):
        rows = assigned == group
        scored[group] = score_films(predicted, truth, patients, mean_over, rows)
        found.append(
            GroupScores(
                column=column,
                group=group,
                films=int(rows.sum()),
                patients=len(np.unique(patients.member[rows])),
                labels=scored[group].labels,
                averages=scored[group].averages,
                underdiagnosis=underdiagnosis(scored[group].by_label),
            )
        )
    named = {group: part for group, part in scored.items() if group != BLANK}
    return found, _gaps(column, named, predicted.labels, mean_over)


def underdiagnosis(by_label: Mapping[str, Measured]) -> Score:
    """Share of films that are not `No Finding` and are called so: the rate at which disease is missed.

    The false positive rate of `No Finding` (Seyyed-Kalantari et al. 2021), 1 - its specificity.
    """
    if NO_FINDING not in by_label:
        return Score(None, reason=f"no scores for {NO_FINDING}")
    part = by_label[NO_FINDING]
    return score(1 - part.plain["specificity"], 1 - part.drawn["specificity"], part.reasons.get("specificity", ""))


def _gaps(column: str, scored: Mapping[str, Scored], labels: Sequence[str], mean_over: Sequence[str]) -> list[Gap]:
    """For each label, and for the mean over the labels that every group has: groups are compared on the same labels.

    Groups without the figure take no part; one group has no gap.
    """
    found = []
    for metric in METRICS:
        for label in labels:
            exist = {
                group: (part.by_label[label].plain[metric], part.by_label[label].drawn[metric])
                for group, part in scored.items()
                if not np.isnan(part.by_label[label].plain[metric])
            }
            found += _gap(column, label, metric, [label], exist)
        shared = [
            label
            for label in labels
            if label in mean_over and not any(np.isnan(p.by_label[label].plain[metric]) for p in scored.values())
        ]
        means = {group: _mean(part, shared, metric) for group, part in scored.items() if shared}
        found += _gap(column, "macro", metric, shared, means)
    return found


def _mean(part: Scored, labels: Sequence[str], metric: str) -> tuple[float, np.ndarray]:
    parts = [part.by_label[label] for label in labels]
    return float(np.mean([p.plain[metric] for p in parts])), np.mean([p.drawn[metric] for p in parts], axis=0)


def _gap(
    column: str, label: str, metric: str, over: list[str], values: Mapping[str, tuple[float, np.ndarray]]
) -> list[Gap]:
    if len(values) < 2:
        return []
    low, high = min(values, key=lambda group: values[group][0]), max(values, key=lambda group: values[group][0])
    best, worst = (low, high) if metric in ERRORS else (high, low)
    distance = score(values[high][0] - values[low][0], values[high][1] - values[low][1], "")
    return [Gap(column, label, metric, best, worst, over, distance)]
