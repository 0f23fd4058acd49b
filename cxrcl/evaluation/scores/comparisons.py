"""Each model against a reference on the same images: differences, p-values, and Holm's correction for many of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cxrcl.evaluation.metrics.clusters import weighted_mean
from cxrcl.evaluation.metrics.label_metrics import METRICS
from cxrcl.evaluation.scores.intervals import of_difference
from cxrcl.evaluation.scores.score_report import Comparison, Score, or_none
from cxrcl.evaluation.scores.scoring import FEWEST, Measured, with_interval

SIGNIFICANT = 0.05
MOST_RESAMPLES = 10_000


def families_of(names: Sequence[str], controls: Sequence[str]) -> list[list[str]]:
    """Models that are corrected for each other: controls apart."""
    families = [[n for n in names if n not in controls], [n for n in names if n in controls]]
    return [family for family in families if family]


def resamples_for(comparisons: int, least: int) -> int:
    """Resamples with which the smallest possible p-value, times the comparisons of its family, is 0.04.

    At most 10,000, and not fewer than `least`; 0 where that is 0.
    """
    return least and max(least, min(50 * comparisons, MOST_RESAMPLES))


def compare(kind: str, models: Mapping[str, Mapping[str, Measured]]) -> list[Comparison]:
    """Each model minus the first, for each metric and each label (or average).

    The p-values of one metric are one family, over labels and models. `Measured` of all must come from the same
    resamples of the same images: differences are taken resample by resample, as many as both have.

    Args:
        kind: `label` or `average`.
        models: model -> label or average -> Measured.
    """
    (reference, base), *others = models.items()
    comparisons = []
    for metric in METRICS:
        family = []
        for name, parts in others:
            for label, part in parts.items():
                difference, p = _difference(part, base[label], metric)
                family.append((name, label, part, difference, p))
        corrected = holm([p for *_, p in family])
        comparisons += [
            Comparison(
                model=name,
                reference=reference,
                kind=kind,
                label=label,
                metric=metric,
                positives=part.fewest_positives,
                negatives=part.fewest_negatives,
                difference=difference,
                p=or_none(p),
                p_holm=or_none(p_holm),
            )
            for (name, label, part, difference, p), p_holm in zip(family, corrected, strict=True)
        ]
    return comparisons


def _difference(part: Measured, first: Measured, metric: str) -> tuple[Score, float]:
    """The difference of a metric with its interval, and its p-value; nan where there is no interval."""
    resamples = min(len(part.drawn[metric]), len(first.drawn[metric]))
    values = part.drawn[metric][:resamples] - first.drawn[metric][:resamples]
    reason = part.reasons.get(metric) or first.reasons.get(metric, "")
    value = part.plain[metric] - first.plain[metric]
    few = part.fewer_than(FEWEST)  # of each label of a mean, too: the variance of differences has no patients added
    terms, others = part.terms.get(metric, {}), first.terms.get(metric, {})
    if terms.keys() != others.keys() and not np.isnan(value):
        return Score(None, reason="the averages are over different labels"), float("nan")
    if metric == "auroc" and resamples and not few and not np.isnan(value):
        differences = [terms[name][0].minus(others[name][0]) for name in terms]
        found, p = of_difference(weighted_mean(differences, [weight for _, weight in terms.values()]))
        if np.isnan(p):
            return Score(value, withheld="the difference has no variance"), p
        return Score(value, found.low, found.high, method=found.method), p
    difference = with_interval(value, values, reason, few)
    # Without an interval there is no p-value either: both would be of an unfair sample of the resamples.
    return difference, float("nan") if difference.low is None else two_sided_p(values)


def two_sided_p(differences: np.ndarray) -> float:
    """Share of resamples in which the difference is not on its side of 0, twice; nan where no resample has one.

    p = 2 (k + 1) / (R + 1) with k the resamples on the rarer side of 0. Where p < 0.05, 0 lies outside the 95 %
    percentile interval. The sample itself counts as one more resample, so that p is never 0 (Davison and Hinkley 1997,
    section 4.2).

    Args:
        differences: float [R], nan: none.
    """
    exist = differences[~np.isnan(differences)]
    if not len(exist):
        return float("nan")
    tail = min((exist <= 0).sum(), (exist >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(exist) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of a family after the step-down correction of Holm (1979); nan are no part of it."""
    values = np.asarray(p_values, dtype=float)
    corrected = np.full(len(values), np.nan)
    ascending = [k for k in np.argsort(values, kind="stable") if not np.isnan(values[k])]
    largest = 0.0  # a corrected value is never below that of a smaller p-value
    for step, k in enumerate(ascending):
        largest = max(largest, min(1.0, (len(ascending) - step) * values[k]))
        corrected[k] = largest
    return corrected.tolist()


def cannot_be_rejected(comparisons: Sequence[Comparison], controls: Sequence[str]) -> list[str]:
    """Notes on families that are too large for their resamples: no corrected p-value can be below 0.05."""
    families: dict[tuple[str, str, bool], list[Comparison]] = {}
    for one in comparisons:
        if one.p is not None and one.metric != "auroc":
            families.setdefault((one.kind, one.metric, one.model in controls), []).append(one)
    found: dict[tuple[str, int, int], list[str]] = {}
    for (kind, metric, _), family in families.items():
        resamples = max(one.difference.resamples for one in family)
        if 2 * len(family) / (resamples + 1) >= SIGNIFICANT:
            found.setdefault((kind, len(family), resamples), []).append(metric)
    return [
        f"no difference of a{'n average' if kind == 'average' else ' label'} in {', '.join(metrics)} can be rejected: "
        f"{count} comparisons need {round(2 * count / SIGNIFICANT)} resamples, and there are {resamples}"
        for (kind, count, resamples), metrics in found.items()
    ]
