"""Several models on the same images -> one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxrcl.evaluation.metrics.curves import BINS
from cxrcl.evaluation.metrics.labels import HEAD, TAIL
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.calibration import at_a_bound
from cxrcl.evaluation.scores.comparisons import (
    MOST_RESAMPLES,
    cannot_be_rejected,
    compare,
    families_of,
    resamples_for,
)
from cxrcl.evaluation.scores.intervals import LEVEL
from cxrcl.evaluation.scores.score_report import ModelScores, ScoreReport
from cxrcl.evaluation.scores.scoring import ENOUGH, FEWEST, FEWEST_IN_MEAN, Predicted, score_images
from cxrcl.evaluation.scores.subgroups import score_groups

RULES = {
    "labels": "1 and 0 are scored; blank is unknown and -1 uncertain, both are left out of their label",
    "null": "a label with one class present has no metric, and no part in averages",
    "auroc": "ties count one half",
    "auprc": "average precision without interpolation; its macro average is mAP",
    "decisions": "an image is positive where its score is at or above the threshold",
    "ece": f"{BINS} bins of equal width over [0, 1], of the probability of the label; without interval",
    "brier": "mean squared error of the probabilities; mse is that of the scores as given",
    "frequency": f"head: above {HEAD:.0%} positives among the scored images; tail: below {TAIL:.0%}; medium: between",
    "comparisons": "paired and two-sided: of AUROC DeLong's test with patients as clusters, of other metrics the share "
    "of resamples on the other side of 0; Holm's correction over the models and labels of one metric, and over its "
    "models and averages; controls are families of their own",
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
    reference: str | None = None,
) -> ScoreReport:
    """Scores of each model, by group as well, and each model against the reference.

    Args:
        labels: float [N, C] of 1, 0 and anything else for unknown; columns as the models' labels.
        patients: those of the N images.
        mean_over: the labels of averages.
        groups: column -> the group of each image, [N].
        facts: what the report says of its origin, added to what it counts itself.
        controls: names of models whose comparisons are a family of their own: p-values of the others must not depend
            on which controls stand beside them. The reference is none.
        reference: the name of the model that the others are compared with; None takes the first.
    """
    reference = models[0].name if reference is None else reference
    families = families_of([model.name for model in models if model.name != reference], controls)
    averages = 6  # macro, micro, weighted, head, medium, tail
    drawn = {
        name: resamples_for(len(family) * max(len(models[0].labels), averages), patients.resamples)
        for family in families
        for name in family
    }
    drawn[reference] = max(drawn.values(), default=patients.resamples)
    scored = {
        model.name: score_images(
            model, labels, patients.with_resamples(drawn[model.name]), mean_over, resamples=patients.resamples
        )
        for model in models
    }
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
        "intervals": _rule_of_intervals(patients) if patients.resamples else "none",
    }
    comparisons = []
    for family in families:
        of_family = {name: scored[name] for name in (reference, *family)}
        comparisons += compare("label", {name: part.by_label for name, part in of_family.items()})
        comparisons += compare("average", {name: part.by_average for name, part in of_family.items()})
    counted = {
        "images": len(labels),
        "patients": patients.count,
        "resamples": patients.resamples,
        "seed": patients.seed,
    }
    said = [*notes, *_at_a_bound(models), *cannot_be_rejected(comparisons, controls)]
    return ScoreReport({**facts, **counted}, rules, said, model_scores, comparisons)


def _rule_of_intervals(patients: Patients) -> str:
    return (
        f"{LEVEL:.0%}; of AUROC from DeLong's variance with patients as clusters, on the scale of log-odds; of AUPRC "
        "and shares of images Wilson's with such a variance; of MCC, Brier, MSE and differences other than AUROC's "
        f"percentiles of {patients.resamples} resamples of the {patients.count} patients, seed {patients.seed} (of "
        f"comparisons up to {MOST_RESAMPLES}), {ENOUGH:.0%} of which must have the metric; none below {FEWEST} "
        f"patients with images of either class, in any of the labels of an average (AUROC: {FEWEST_IN_MEAN}); an "
        "average is over the same labels in all resamples"
    )


def _at_a_bound(models: Sequence[Predicted]) -> list[str]:
    """Notes on temperatures that were looked for as far as they are looked for."""
    notes = []
    for model in models:
        stuck = [name for name, t in zip(model.labels, model.temperatures, strict=True) if at_a_bound(t)]
        if stuck:
            notes.append(
                f"{model.name}: the temperature is at its bound, and its probabilities tell nothing, of: "
                f"{', '.join(stuck)}"
            )
    return notes
