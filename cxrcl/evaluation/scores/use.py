"""What a report says of the use of scores: operating points, rejection, decision curves, and models beside readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cxrcl.evaluation.scores import decision_curves, fixed_rates, readers, selective, statistics
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.fixed_rates import FixedRate
from cxrcl.evaluation.scores.reader_files import Readings
from cxrcl.evaluation.scores.score_report import ModelScores, ScoreReport
from cxrcl.evaluation.scores.scoring import Predicted


def with_use(
    report: ScoreReport,
    models: Sequence[Predicted],
    labels: np.ndarray,
    patients: Patients,
    mean_over: Sequence[str],
    rates: Sequence[FixedRate] = fixed_rates.DEFAULT,
    readings: Sequence[Readings] = (),
) -> ScoreReport:
    """The report of `score_models` with these parts.

    Args:
        models: those of the report that are no controls; the others get nothing more.
        labels: float [N, C] of 1, 0 and anything else for unknown; columns as the models' labels.
        patients: those of the N images.
        mean_over: the labels of averages.
        readings: of the N images and C labels.
    """
    by_name = {model.name: model for model in models}

    def used(scores: ModelScores) -> ModelScores:
        if scores.name not in by_name:
            return scores
        model = by_name[scores.name]
        columns = dict(zip(model.labels, model.columns(labels, patients), strict=True))
        return replace(
            scores,
            fixed_rates=fixed_rates.score_fixed_rates(columns, patients, mean_over, rates),
            selective=selective.score_selective(columns, patients, mean_over),
            decision_curves=decision_curves.score_decision_curves(columns, patients),
            against_readers=readers.against_readers(model, readings, labels, patients),
            roc=readers.roc_of_read(model, readings, labels) if readings else {},
        )

    rules = {"fixed rates": fixed_rates.RULE} if rates else {}
    rules |= {"AURC": selective.RULE, "net benefit": decision_curves.RULE}
    rules |= {"readers": readers.RULE} if readings else {}
    rules |= {f"intervals of {', '.join(rules)}": statistics.RULE} if patients.resamples else {}
    return replace(
        report,
        rules={**report.rules, **rules},
        models=[used(scores) for scores in report.models],
        readers=readers.score_readers(readings, models[0].labels, labels, patients) if readings else [],
    )
