"""Several models on the same images -> one report: paired bootstrap, and Holm's correction for many comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxrcl.evaluation.metrics.curves import BINS
from cxrcl.evaluation.metrics.label_metrics import METRICS
from cxrcl.evaluation.metrics.labels import HEAD, TAIL
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.intervals import LEVEL
from cxrcl.evaluation.scores.score_report import Comparison, ModelScores, ScoreReport, or_none
from cxrcl.evaluation.scores.scoring import ENOUGH, Measured, Predicted, score_images, with_interval
from cxrcl.evaluation.scores.subgroups import score_groups

RULES = {
    "labels": "1 and 0 are scored; blank is unknown and -1 uncertain, both are left out of their label",
    "null": "a label with one class present has no metric, and no part in averages; no interval where fewer than "
    f"{ENOUGH:.0%} of the resamples have the metric",
    "auroc": "ties count one half",
    "auprc": "average precision without interpolation; its macro average is mAP",
    "decisions": "an image is positive where its score is at or above the threshold",
    "ece": f"{BINS} bins of equal width over [0, 1], of the probability of the label; without interval",
    "brier": "mean squared error of the probabilities; mse is that of the scores as given",
    "frequency": f"head: above {HEAD:.0%} positives among the scored images; tail: below {TAIL:.0%}; medium: between",
    "comparisons": "paired bootstrap on the same resamples, two-sided; Holm's correction over the models and "
    "labels of one metric, and over its models and averages; controls are families of their own",
    "underdiagnosis": "share of images not labelled No Finding that are called No Finding",
}


def score_models(
    models: Sequence[Predicted],
    labels: np.ndarray,
    patients: Patients,
    mean_over: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    facts: Mapping[str, Any],
    notes: Sequence[str] = (),
    controls: Sequence[str] = (),
) -> ScoreReport:
    """Scores of each model, by group as well, and each model against the first.

    Args:
        labels: float [N, C] of 1, 0 and anything else for unknown; columns as the models' labels.
        patients: those of the N images.
        mean_over: the labels of averages.
        groups: column -> the group of each image, [N].
        facts: what the report says of its origin, added to what it counts itself.
        controls: names of models whose comparisons are a family of their own: p-values of the others must not depend
            on which controls stand beside them. The first model is none.
    """
    scored = {model.name: score_images(model, labels, patients, mean_over) for model in models}
    model_scores = []
    for model in models:
        parts, gaps = [], []
        for column, assigned in groups.items():
            in_groups, between = score_groups(model, labels, patients, mean_over, column, assigned)
            parts += in_groups
            gaps += between
        whole = scored[model.name]
        model_scores.append(
            ModelScores(
                name=model.name,
                threshold=model.threshold,
                calibration=model.calibration,
                labels=whole.labels,
                averages=whole.averages,
                groups=parts,
                gaps=gaps,
            )
        )
    rules = {
        **RULES,
        "averages": f"over {', '.join(mean_over)}",
        "intervals": f"{LEVEL:.0%} percentile intervals of {patients.resamples} resamples of the {patients.count} "
        f"patients, seed {patients.seed}"
        if patients.resamples
        else "none",
    }
    first, *others = scored
    comparisons = []
    for family in ([n for n in others if n not in controls], [n for n in others if n in controls]):
        of_family = {name: scored[name] for name in (first, *family)}
        comparisons += compare("label", {name: part.by_label for name, part in of_family.items()})
        comparisons += compare("average", {name: part.by_average for name, part in of_family.items()})
    counted = {
        "images": len(labels),
        "patients": patients.count,
        "resamples": patients.resamples,
        "seed": patients.seed,
    }
    return ScoreReport({**facts, **counted}, rules, list(notes), model_scores, comparisons)


def compare(kind: str, models: Mapping[str, Mapping[str, Measured]]) -> list[Comparison]:
    """Each model minus the first, for each metric and each label (or average).

    The p-values of one metric are one family, over labels and models. `Measured` of all must come from the same
    resamples of the same images: differences are taken resample by resample.

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
                first = base[label]
                values = part.drawn[metric] - first.drawn[metric]
                reason = part.reasons.get(metric) or first.reasons.get(metric, "")
                difference = with_interval(part.plain[metric] - first.plain[metric], values, reason)
                # Without an interval there is no p-value either: both would be of an unfair sample of the resamples.
                p = float("nan") if difference.low is None else two_sided_p(values)
                family.append((name, label, difference, p))
        corrected = holm([p for *_, p in family])
        comparisons += [
            Comparison(
                model=name,
                reference=reference,
                kind=kind,
                label=label,
                metric=metric,
                difference=difference,
                p=or_none(p),
                p_holm=or_none(p_holm),
            )
            for (name, label, difference, p), p_holm in zip(family, corrected, strict=True)
        ]
    return comparisons


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
