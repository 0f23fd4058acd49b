"""Two models on the same images."""

from __future__ import annotations

import numpy as np
import pytest
from score_data import LABELS, awkward

from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.intervals import percentile
from cxrcl.evaluation.scores.models import compare, holm, score_models, two_sided_p
from cxrcl.evaluation.scores.scoring import ranked_only, score_images


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
    alike = found["alike", "auroc", "Fracture"].difference
    own = percentile(parts["first"]["Fracture"].drawn["auroc"])
    assert alike.high - alike.low < 0.4 * (own[1] - own[0])
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
    tested = [one for one in found.values() if one.p is not None]
    assert [one.label for one in tested] == ["No Finding", "Edema"]
    assert [one.p_holm for one in tested] == holm([one.p for one in tested])


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
