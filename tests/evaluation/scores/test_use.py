"""Fixed rates, rejection and decision curves of a model's labels, each against a slow form of its definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from score_data import LABELS, awkward

from cxrcl.evaluation.metrics.labels import is_labelled
from cxrcl.evaluation.metrics.net_benefit import THRESHOLDS
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.fixed_rates import DEFAULT, FixedRate, parse
from cxrcl.evaluation.scores.models import score_models
from cxrcl.evaluation.scores.score_report import ModelScores, ScoreReport
from cxrcl.evaluation.scores.scoring import NO_PROBABILITY, ranked_only
from cxrcl.evaluation.scores.statistics import Counted, Drawn
from cxrcl.evaluation.scores.thresholds import ThresholdRule, predicted_from_scores
from cxrcl.evaluation.scores.use import with_use

RATES = [FixedRate("specificity", 0.8), FixedRate("sensitivity", 0.95)]
SCORES, TRUTH, IDS = awkward(4, count=150)
CUT = 0.4


def reported(resamples: int = 0, rates: list[FixedRate] = RATES, shift: float = 0.0) -> ScoreReport:
    model = predicted_from_scores("m", LABELS, SCORES + shift, None, ThresholdRule("given", CUT), False)
    patients = Patients(IDS, resamples)
    control = ranked_only("shuffled", LABELS, SCORES[::-1])
    report = score_models([model, control], TRUTH, patients, LABELS[1:], {}, {}, controls=["shuffled"])
    return with_use(report, [model], TRUTH, patients, LABELS[1:], rates)


def used(resamples: int = 0, rates: list[FixedRate] = RATES, shift: float = 0.0) -> ModelScores:
    return reported(resamples, rates, shift).models[0]


def slow(scores: np.ndarray, positive: np.ndarray) -> dict[str, float]:
    """Each number of one label, image by image and threshold by threshold."""
    points = [((scores >= t)[positive].mean(), (scores < t)[~positive].mean()) for t in [*np.unique(scores), np.inf]]
    called = scores >= CUT
    wrong, confidence = called != positive, np.where(called, scores, 1 - scores)
    tp, fp = ((scores >= 0.2) & positive).mean(), ((scores >= 0.2) & ~positive).mean()
    return {
        "sensitivity": max(sensitivity for sensitivity, specificity in points if specificity >= 0.8),
        "specificity": max(specificity for sensitivity, specificity in points if sensitivity >= 0.95),
        "aurc": float(np.mean([wrong[confidence >= one].mean() for one in confidence])),
        "risk": float(wrong.mean()),
        "net benefit at 0.2": float(tp - fp * 0.2 / 0.8),
        "treat all at 0.2": float(positive.mean() - (~positive).mean() * 0.2 / 0.8),
    }


def numbers(model: ModelScores, k: int) -> dict[str, tuple[float | None, ...]]:
    """The same of a report: value, low and high."""
    scores = {part.metric: part.labels[LABELS[k]] for part in model.fixed_rates}
    scores |= {"aurc": model.selective[k].aurc, "risk": model.selective[k].risk}
    curve, place = model.decision_curves[k], THRESHOLDS.index(0.2)
    return {
        **{name: (score.value, score.low, score.high) for name, score in scores.items()},
        "net benefit at 0.2": (curve.net_benefit[place], curve.low[place], curve.high[place]),
        "treat all at 0.2": (curve.treat_all[place], None, None),
    }


def test_every_number_is_its_definition_and_its_interval_that_of_each_resample_computed_alone() -> None:
    patients = Patients(IDS, 60)
    model = used(60)
    counts = np.concatenate(list(patients.draws(60)), axis=1)
    for k in (0, 1, 2):
        chosen = is_labelled(TRUTH[:, k])
        expected = slow(SCORES[chosen, k], TRUTH[chosen, k] == 1)
        drawn = []
        for resample in range(60):
            rows = np.repeat(np.flatnonzero(chosen), counts[patients.index[chosen], resample].astype(int))
            drawn.append(slow(SCORES[rows, k], TRUTH[rows, k] == 1))
        of_class = (chosen & (TRUTH[:, k] == 1), chosen & (TRUTH[:, k] == 0))
        whose = Counted(*(len(set(patients.index[rows])) for rows in of_class))
        found = numbers(model, k)
        assert found.keys() == expected.keys()
        for name, (value, low, high) in found.items():
            of_resamples = Drawn(expected[name], np.array([one[name] for one in drawn]), whose).score()
            assert value == pytest.approx(expected[name], abs=6e-5)  # points of curves have four digits
            if name != "treat all at 0.2":
                assert (low, high) == pytest.approx((of_resamples.low, of_resamples.high), abs=6e-5)


def test_means_are_over_the_labels_of_averages_that_have_a_value() -> None:
    model = used(40)
    for part in model.fixed_rates:
        assert part.over == ["Edema", "Fracture"]
        assert part.macro.value == pytest.approx(np.mean([part.labels[name].value for name in part.over]))
        assert part.macro.low < part.macro.value < part.macro.high
    macro = model.selective[-1]
    assert macro.label == "macro" and macro.over == ["Edema", "Fracture"] and not macro.coverage
    assert macro.aurc.value == pytest.approx(np.mean([model.selective[k].aurc.value for k in (1, 2)]))
    assert macro.excess_aurc.value < macro.aurc.value < macro.risk.value
    nothing = score_models([ranked_only("m", LABELS[3:], SCORES[:, 3:])], TRUTH[:, 3:], Patients(IDS, 0), [], {}, {})
    model = ranked_only("m", LABELS[3:], SCORES[:, 3:])
    empty = with_use(nothing, [model], TRUTH[:, 3:], Patients(IDS, 5), LABELS[3:]).models[0]
    assert empty.fixed_rates[0].macro.reason == empty.selective[-1].aurc.reason == "no label has it"


def test_what_does_not_exist_has_a_reason() -> None:
    model = used()
    for k, reason in ((3, "150 positives, 0 negatives"), (4, "0 positives, 0 negatives")):
        assert model.fixed_rates[0].labels[LABELS[k]].reason == reason
        assert model.selective[k].aurc.reason == model.decision_curves[k].reason == reason
    logits = used(shift=3.0)
    assert logits.decision_curves[1].reason == logits.selective[1].aurc.reason == NO_PROBABILITY
    assert logits.decision_curves[1].net_benefit == [] and logits.fixed_rates[0].labels["Edema"].value is not None
    undecided = replace(ranked_only("m", LABELS, SCORES), probabilities=SCORES)
    patients = Patients(IDS, 0)
    report = score_models([undecided], TRUTH, patients, LABELS[1:], {}, {})
    part = with_use(report, [undecided], TRUTH, patients, LABELS[1:]).models[0]
    assert part.selective[1].aurc.reason == "no threshold" and part.decision_curves[1].reason is None


def test_controls_have_no_curves_and_each_part_has_its_rule() -> None:
    report = reported()
    assert report.models[1].name == "shuffled"
    assert report.models[1].fixed_rates == report.models[1].selective == report.models[1].decision_curves == []
    assert {"fixed rates", "AURC", "net benefit"} <= report.rules.keys() and "readers" not in report.rules
    assert used(rates=[]).fixed_rates == [] and report.readers == []


def test_curves_hold_few_points() -> None:
    model = used()
    for part, curve in zip(model.selective[:3], model.decision_curves[:3], strict=True):
        assert part.coverage[-1] == 1 and part.risks[-1] == pytest.approx(part.risk.value, abs=6e-5)
        assert len(part.coverage) == len(part.risks) <= 50
        assert len(curve.thresholds) == len(curve.treat_all) == len(curve.net_benefit) <= 50


def test_images_are_ranked_by_the_scores_where_probabilities_are_rounded() -> None:
    rounded = replace(
        predicted_from_scores("m", LABELS, np.round(SCORES), None, ThresholdRule("given", CUT), False), order=SCORES
    )
    patients = Patients(IDS, 0)
    report = score_models([rounded], TRUTH, patients, LABELS[1:], {}, {})
    found = with_use(report, [rounded], TRUTH, patients, LABELS[1:], RATES).models[0]
    assert found.fixed_rates[0].labels == used().fixed_rates[0].labels


def test_rates_are_read_from_a_text() -> None:
    assert parse("specificity=0.9, sensitivity = .95,specificity=0.9") == [("specificity", 0.9), ("sensitivity", 0.95)]
    assert parse("") == [] and {rate.fixed for rate in DEFAULT} == {"specificity", "sensitivity"}
    for wrong in ("specificity", "spec=0.9", "sensitivity=1", "sensitivity=0", "specificity=90%", "0.9"):
        with pytest.raises(ValueError, match=r"expected specificity=0\.9 or sensitivity=0\.95"):
            parse(wrong)
