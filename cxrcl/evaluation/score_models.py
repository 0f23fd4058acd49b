"""Several models on the same films -> one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxrcl.evaluation.averages import HEAD, TAIL
from cxrcl.evaluation.bootstrap import LEVEL, Patients
from cxrcl.evaluation.calibration import BINS
from cxrcl.evaluation.comparing import compare
from cxrcl.evaluation.measured import ENOUGH
from cxrcl.evaluation.score_report import ModelScores, ScoreReport
from cxrcl.evaluation.scoring import Predicted, score_films
from cxrcl.evaluation.subgroups import score_groups

RULES = {
    "labels": "1 and 0 are scored; blank is unknown and -1 uncertain, both are left out of their label",
    "null": "a label with one class present has no figure, and no part in averages; no interval where fewer than "
    f"{ENOUGH:.0%} of the resamples have the figure",
    "auroc": "ties count one half",
    "auprc": "average precision without interpolation; its macro average is mAP",
    "decisions": "a film is positive where its score is at or above the threshold",
    "ece": f"{BINS} bins of equal width over [0, 1], of the probability of the label; without interval",
    "brier": "mean squared error of the probabilities; mse is that of the scores as given",
    "frequency": f"head: above {HEAD:.0%} positives among the scored films; tail: below {TAIL:.0%}; medium: between",
    "comparisons": "paired bootstrap on the same resamples, two-sided; Holm's correction over the models and "
    "labels of one metric, and over its models and averages; controls are families of their own",
    "underdiagnosis": "share of films not labelled No Finding that are called No Finding",
}


def score_models(
    models: Sequence[Predicted],
    truth: np.ndarray,
    patients: Patients,
    mean_over: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    facts: Mapping[str, Any],
    notes: Sequence[str] = (),
    controls: Sequence[str] = (),
) -> ScoreReport:
    """Scores of each model, by group as well, and each model against the first.

    Args:
        truth: [N, C] of 1, 0 and anything else for unknown; columns as the models' labels.
        groups: column -> the group of each film.
        facts: what the report says of its origin, added to what it counts itself.
        controls: names of models whose comparisons are a family of their own: p-values of the others do not hang on
            which controls stand beside them. The first model is none.
    """
    scored = {model.name: score_films(model, truth, patients, mean_over) for model in models}
    found = []
    for model in models:
        parts, gaps = [], []
        for column, assigned in groups.items():
            in_groups, between = score_groups(model, truth, patients, mean_over, column, assigned)
            parts += in_groups
            gaps += between
        own = scored[model.name]
        found.append(ModelScores(model.name, model.threshold, model.calibration, own.labels, own.averages, parts, gaps))
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
        parts_of = {name: scored[name] for name in (first, *family)}
        comparisons += compare("label", {name: part.by_label for name, part in parts_of.items()})
        comparisons += compare("average", {name: part.by_average for name, part in parts_of.items()})
    counted = {"films": len(truth), "patients": patients.count, "resamples": patients.resamples, "seed": patients.seed}
    return ScoreReport({**facts, **counted}, rules, list(notes), found, comparisons)
