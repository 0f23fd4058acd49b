"""Two models on the same images."""

from __future__ import annotations

import numpy as np
import pytest
from score_data import LABELS, awkward

from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.comparisons import cannot_be_rejected, compare, holm, resamples_for, two_sided_p
from cxrcl.evaluation.scores.intervals import percentile
from cxrcl.evaluation.scores.models import score_models
from cxrcl.evaluation.scores.score_report import Comparison, Score
from cxrcl.evaluation.scores.scoring import Predicted, ranked_only, score_images
from cxrcl.evaluation.scores.thresholds import predicted_from_scores


def test_holm_corrects_by_steps_and_leaves_out_what_does_not_exist() -> None:
    # Holm 1979: smallest times 4, then 3, 2, 1, never decreasing, at most 1.
    assert holm([0.01, 0.04, np.nan, 0.03, 0.005]) == pytest.approx([0.03, 0.06, np.nan, 0.06, 0.02], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_the_p_value_is_twice_the_smaller_tail() -> None:
    assert two_sided_p(np.array([1.0] * 97 + [-1.0] * 2)) == 2 * 3 / 100
    assert two_sided_p(-np.array([1.0] * 97 + [-1.0] * 2)) == 2 * 3 / 100
    assert two_sided_p(np.zeros(99)) == 1.0 and two_sided_p(np.array([1.0, np.nan] * 99)) == 2 / 100
    assert np.isnan(two_sided_p(np.array([np.nan])))


def test_a_small_p_and_an_interval_without_0_go_together() -> None:
    for seed in range(40):
        drawn = np.random.default_rng(seed).normal(seed / 12, 1, size=999)
        low, high, _ = percentile(drawn)
        p, excluded = two_sided_p(drawn), low > 0 or high < 0
        assert excluded if p < 0.05 else not excluded or p < 0.055


def test_differences_are_paired_and_corrected_within_a_metric() -> None:
    scores, labels, ids = awkward(0, count=300)
    rng = np.random.default_rng(5)
    offered = {
        "first": scores,
        "alike": scores + 1e-3 * rng.normal(size=scores.shape),
        "better": scores + np.array([0, 0.5, 0, 0, 0]) * (labels == 1),
    }
    patients = Patients(ids, 300)
    parts = {n: score_images(ranked_only(n, LABELS, s), labels, patients, LABELS).by_label for n, s in offered.items()}
    found = {(one.model, one.metric, one.label): one for one in compare("label", parts)}
    best = found["better", "auroc", "Edema"]
    assert best.reference == "first" and best.kind == "label"
    assert best.difference.value == pytest.approx(
        parts["better"]["Edema"].plain["auroc"] - parts["first"]["Edema"].plain["auroc"], abs=1e-12
    )
    assert best.difference.low > 0 and best.p < 0.01
    family = [one for one in found.values() if one.metric == "auroc" and one.p is not None]
    assert len(family) == 6  # two models, three labels with both classes
    assert [one.p_holm for one in family] == holm([one.p for one in family])
    # Nearly equal scores: unpaired, the interval would be as wide as that of either.
    for metric, method in (("auroc", "DeLong"), ("auprc", "percentile")):
        alike = found["alike", metric, "Fracture"].difference
        own = percentile(parts["first"]["Fracture"].drawn[metric])
        assert alike.high - alike.low < 0.4 * (own.high - own.low) and alike.method == method
    assert (best.positives, best.negatives) == (
        parts["first"]["Edema"].fewest_positives,
        parts["first"]["Edema"].fewest_negatives,
    )
    none = found["better", "auroc", "Only ones"]
    assert none.difference.value is none.p is none.p_holm is None
    assert none.difference.reason == "300 positives, 0 negatives"


def test_a_difference_without_an_interval_is_not_tested_and_in_no_family() -> None:
    scores, labels, _ = awkward(0)
    labels[:, 2] = 0
    labels[4, 2] = 1
    patients = Patients([str(k) for k in range(len(labels))], 100)
    parts = {
        name: score_images(ranked_only(name, LABELS, s), labels, patients, LABELS).by_label
        for name, s in (("first", scores), ("other", scores[:, ::-1]))
    }
    found = {one.label: one for one in compare("label", parts) if one.metric == "auroc"}
    rare = found["Fracture"]
    assert rare.difference.value is not None and rare.difference.low is rare.p is rare.p_holm is None
    assert rare.difference.withheld == "1 patient with positive images, fewer than 5"
    tested = [one for one in found.values() if one.p is not None]
    assert [one.label for one in tested] == ["No Finding", "Edema"]
    assert [one.p_holm for one in tested] == holm([one.p for one in tested])


def many_labels(models: int, better: float, count: int = 250) -> tuple[list[Predicted], np.ndarray, list[str]]:
    """Models of fifteen labels; the last one separates the first label better than the others do."""
    rng = np.random.default_rng(8)
    labels = (rng.random((count, 15)) < 0.3).astype(float)
    shared = rng.normal(size=labels.shape) + labels
    offered = []
    for k in range(models):
        scores = shared + 0.3 * rng.normal(size=labels.shape)
        scores[:, 0] += (better if k == models - 1 else 0) * labels[:, 0]
        offered.append(ranked_only(f"m{k}", [f"L{c}" for c in range(15)], scores))
    return offered, labels, [str(k) for k in range(count)]


def test_a_real_difference_among_more_than_25_comparisons_is_rejected() -> None:
    models, labels, ids = many_labels(3, better=2.0)
    patients = Patients(ids, 1000)
    report = score_models(models, labels, patients, [f"L{c}" for c in range(15)], {}, {})
    found = {(one.model, one.label, one.metric): one for one in report.comparisons}
    family = [one for one in report.comparisons if one.kind == "label" and one.metric == "auprc"]
    assert len(family) == 30 and {one.difference.resamples for one in family} == {1500}
    for metric in ("auroc", "auprc", "mse"):
        real = found["m2", "L0", metric]
        assert real.p_holm < 0.05 and real.p_holm == pytest.approx(30 * real.p)
        assert found["m1", "L0", metric].p_holm > 0.05
    assert found["m2", "L0", "auprc"].p < found["m2", "L0", "auprc"].p_holm / 25  # 1,000 resamples could not say so
    assert 2 / 1001 * 30 > 0.05
    assert all(label.scores["mse"].resamples == 1000 for model in report.models for label in model.labels)
    assert not any("can be rejected" in note for note in report.notes)


def test_resamples_grow_with_the_family_up_to_a_bound_and_beyond_it_the_report_says_what_cannot_be_seen() -> None:
    assert [resamples_for(count, 1000) for count in (1, 20, 30, 199, 200, 900)] == [
        1000,
        1000,
        1500,
        9950,
        10000,
        10000,
    ]
    assert resamples_for(30, 0) == 0 and resamples_for(900, 20_000) == 20_000
    for count in (1, 7, 30, 200):
        assert count * 2 / (resamples_for(count, 10) + 1) < 0.05

    def of(count: int, resamples: int, metric: str = "f1") -> list[Comparison]:
        score = Score(0.1, 0.0, 0.2, resamples)
        return [Comparison(f"m{k}", "first", "label", "Edema", metric, 9, 9, score, 0.5, 1.0) for k in range(count)]

    assert cannot_be_rejected(of(240, 10_000), ()) == cannot_be_rejected(of(900, 10_000, "auroc"), ()) == []
    (note,) = cannot_be_rejected([*of(300, 10_000), *of(300, 10_000, "mcc")], ())
    assert all(text in note for text in ("f1, mcc", "300 comparisons", "12000 resamples", "10000"))
    assert cannot_be_rejected(of(300, 10_000), [f"m{k}" for k in range(150)]) == []  # two families of 150


def test_any_model_can_be_the_reference() -> None:
    models, labels, ids = many_labels(3, better=2.0, count=120)
    names = [f"L{c}" for c in range(15)]
    report = score_models(models, labels, Patients(ids, 50), names, {}, {}, reference="m2")
    assert [model.name for model in report.models] == ["m0", "m1", "m2"]
    assert {(one.model, one.reference) for one in report.comparisons} == {("m0", "m2"), ("m1", "m2")}
    default = score_models(models, labels, Patients(ids, 50), names, {}, {})
    turned, plain = (
        next(c for c in r.comparisons if {c.model, c.reference} == {"m0", "m2"} and c.metric == "auroc")
        for r in (report, default)
    )
    assert turned.difference.value == -plain.difference.value and turned.p == pytest.approx(plain.p)
    assert report.models == default.models


def test_averages_over_different_labels_are_not_compared() -> None:
    models, labels, ids = many_labels(2, better=1.0, count=120)
    broken = models[1].scores.copy()
    broken[0, 3] = np.nan
    names = [f"L{c}" for c in range(15)]
    other = ranked_only("m1", names, broken)
    report = score_models([models[0], other], labels, Patients(ids, 50), names, {}, {})
    macro = next(c for c in report.comparisons if (c.label, c.metric) == ("macro", "auroc"))
    assert macro.difference.value is macro.p is None and "different labels" in str(macro.difference.reason)


def test_temperatures_at_their_bound_are_said() -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([np.arange(80) % 2, rng.integers(0, 2, 80)], axis=1).astype(float)
    scores = np.stack([labels[:, 0] * 2 - 1, rng.normal(size=80) + labels[:, 1]], axis=1)
    model = predicted_from_scores("m", ("Separated", "Edema"), scores, (scores, labels), None, calibrate=True)
    report = score_models([model], labels, Patients(list(map(str, range(80))), 20), ("Edema",), {}, {})
    assert [label.temperature_at_bound for label in report.models[0].labels] == [True, False]
    (note,) = report.notes
    assert "m: " in note and "Separated" in note and "Edema" not in note and "bound" in note


def test_means_are_compared_where_each_label_has_patients_enough() -> None:
    models, labels, ids = many_labels(2, better=1.0)
    for patients, is_compared in ((4, False), (5, True)):
        labels[:, 3] = np.arange(len(labels)) < patients
        report = score_models(models, labels, Patients(ids, 50), models[0].labels, {}, {})
        macro = next(c for c in report.comparisons if (c.label, c.metric) == ("macro", "auroc"))
        assert (macro.p is not None) == (macro.difference.low is not None) == is_compared
        assert macro.positives == patients and report.models[0].averages[0].scores["auroc"].low is not None
        assert is_compared or macro.difference.withheld == "L3: 4 patients with positive images, fewer than 5"


def test_controls_leave_the_corrected_p_values_of_models_as_they_are() -> None:
    scores, truth, ids = awkward()
    models = [
        ranked_only(name, LABELS, scores + noise * np.random.default_rng(k).normal(size=scores.shape))
        for k, (name, noise) in enumerate([("one", 0.0), ("two", 0.2), ("shuffled", 2.0), ("view", 3.0)])
    ]
    patients = Patients(ids, 40)

    def corrected(count: int, controls: tuple[str, ...]) -> dict[tuple[str, str, str], float | None]:
        report = score_models(models[:count], truth, patients, LABELS[1:], {}, {}, controls=controls)
        return {(c.kind, c.label, c.metric): c.p_holm for c in report.comparisons if c.model == "two"}

    alone = corrected(2, ())
    assert corrected(4, ("shuffled", "view")) == alone != corrected(4, ())
