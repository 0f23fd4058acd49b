"""Scores by sex, age, view or any other column, the gaps between groups, and missed disease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cxrcl.evaluation.metrics.label_metrics import ERRORS, METRICS
from cxrcl.evaluation.metrics.labels import NO_FINDING
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.score_report import Gap, GroupScores, LabelScores, Score
from cxrcl.evaluation.scores.scoring import ImageSetScores, Predicted, score_images, with_interval

MOST_GROUPS = 30
LEAST_PATIENTS = 10  # of a group that is scored; of fewer only the counts are shown
AND = "*"  # between the columns of an intersection
BLANK = "(blank)"
AGE_EDGES = (20, 40, 60, 80)  # years; the bands of Seyyed-Kalantari et al. 2021


def age_bands(values: Sequence[str]) -> list[str]:
    """The age band of each image: `0-19`, `20-39`, ..., `80+`, and `(blank)` for what is no number of years.

    '063Y', as DICOM writes ages, is 63.
    """
    names = [f"{low}-{high - 1}" for low, high in zip((0, *AGE_EDGES), AGE_EDGES)] + [f"{AGE_EDGES[-1]}+"]
    bands = []
    for text in values:
        try:
            years = float(text.strip().upper().removesuffix("Y"))
        except ValueError:
            years = float("nan")
        bands.append(names[int(np.searchsorted(AGE_EDGES, years, "right"))] if years >= 0 else BLANK)
    return bands


def columns_of(name: str) -> list[str]:
    """The columns whose values make groups: `sex*age` are those of both, `sex` is itself."""
    return [part.strip() for part in name.split(AND)]


def groups_of(name: str, *columns: Sequence[str]) -> list[str]:
    """The group of each image: bands of a column `age`, of other columns the values; intersections of several.

    Args:
        columns: the values of each of `columns_of(name)`, [N].

    Returns:
        [N], `F` or, of an intersection, `F, 40-59`; `(blank)` where any of the cells is.

    Raises:
        ValueError: more than 30 groups.
    """
    each = [
        age_bands(values) if part.lower() == "age" else [value.strip() or BLANK for value in values]
        for part, values in zip(columns_of(name), columns, strict=True)
    ]
    groups = [BLANK if BLANK in values else ", ".join(values) for values in zip(*each)]
    if (count := len(set(groups))) > MOST_GROUPS:
        what = f"columns {' and '.join(columns_of(name))} have" if len(each) > 1 else f"column {name} has"
        raise ValueError(f"{what} {count} different values: at most {MOST_GROUPS} can be groups")
    return groups


def score_groups(
    predicted: Predicted,
    labels: np.ndarray,
    patients: Patients,
    mean_over: Sequence[str],
    column: str,
    groups: Sequence[str],
) -> tuple[list[GroupScores], list[Gap]]:
    """Scores of each group, and of each metric the gap between the best and the worst.

    Blank cells, and groups of fewer than `LEAST_PATIENTS` patients, have no part in gaps.

    Args:
        labels: float [N, C] of 1, 0 and anything else for unknown.
        patients: those of the N images.
        mean_over: the labels of averages.
        groups: [N], the group of each image.
    """
    assigned = np.asarray(groups)
    group_scores: list[GroupScores] = []
    scored: dict[str, ImageSetScores] = {}
    for group in sorted(set(groups), key=lambda name: (name == BLANK, name)):
        rows = assigned == group
        part = score_images(predicted, labels, patients, mean_over, rows)
        count = len(np.unique(patients.index[rows]))
        of_group = GroupScores(
            column=column,
            group=group,
            images=int(rows.sum()),
            patients=count,
            labels=part.labels,
            averages=part.averages,
            underdiagnosis=underdiagnosis(part.labels),
        )
        if count < LEAST_PATIENTS:
            of_group = _counts_only(of_group)
        elif group != BLANK:
            scored[group] = part
        group_scores.append(of_group)
    return group_scores, _gaps(column, scored, predicted.labels, mean_over)


def _counts_only(group: GroupScores) -> GroupScores:
    """A group with its numbers of images, patients and positives, and the reason in place of each metric."""
    none = Score(None, reason=f"{group.patients} patients, fewer than {LEAST_PATIENTS}")
    labels = [
        replace(label, scores=dict.fromkeys(label.scores, none), confusion=None, reliability=None)
        for label in group.labels
    ]
    averages = [replace(one, scores=dict.fromkeys(one.scores, none)) for one in group.averages]
    return replace(group, labels=labels, averages=averages, underdiagnosis=none)


def underdiagnosis(labels: Sequence[LabelScores]) -> Score:
    """Share of images that are not `No Finding` and are called so: the rate at which disease is missed.

    The false positive rate of `No Finding` (Seyyed-Kalantari et al. 2021), 1 - its specificity.
    """
    for label in labels:
        if label.label == NO_FINDING:
            found = label.scores["specificity"]
            value, low, high = (None if one is None else 1 - one for one in (found.value, found.high, found.low))
            return replace(found, value=value, low=low, high=high)
    return Score(None, reason=f"no scores for {NO_FINDING}")


def _gaps(
    column: str, scored: Mapping[str, ImageSetScores], labels: Sequence[str], mean_over: Sequence[str]
) -> list[Gap]:
    """For each label, and for the mean over the labels that every group has: groups are compared on the same labels.

    Groups without the metric take no part; one group has no gap.
    """
    gaps = []
    for metric in METRICS:
        having = {
            label: {group: part for group, part in scored.items() if not np.isnan(part.by_label[label].plain[metric])}
            for label in labels
        }
        for label, parts in having.items():
            gaps += _gap(column, label, metric, [label], parts)
        shared = [label for label in labels if label in mean_over and len(having[label]) == len(scored)]
        gaps += _gap(column, "macro", metric, shared, scored if shared else {})
    return gaps


def _gap(column: str, label: str, metric: str, over: list[str], scored: Mapping[str, ImageSetScores]) -> list[Gap]:
    """The gap in the mean over labels, as a list of one; empty where there are fewer than two groups."""
    if len(scored) < 2:
        return []
    by_group = {group: [part.by_label[name] for name in over] for group, part in scored.items()}
    values = {group: float(np.mean([part.plain[metric] for part in parts])) for group, parts in by_group.items()}
    drawn = {group: np.mean([part.drawn[metric] for part in parts], axis=0) for group, parts in by_group.items()}
    low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    best, worst = (low, high) if metric in ERRORS else (high, low)
    few = (part.too_few(metric) for group in (low, high) for part in by_group[group])
    withheld = next((f"{label}: {reason}" for label, reason in zip(over * 2, few) if reason), None)
    distance = with_interval(values[high] - values[low], drawn[high] - drawn[low], "", withheld)
    return [Gap(column=column, label=label, metric=metric, best=best, worst=worst, over=over, gap=distance)]
