"""Resamples of patients."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from cxrcl.evaluation.metrics.label_metrics import LabelColumn, LabelMetrics
from cxrcl.evaluation.scores.bootstrap import Patients, resampled
from cxrcl.evaluation.scores.intervals import percentile


def drawn_auroc(scores: np.ndarray, positive: np.ndarray, patients: Patients) -> np.ndarray:
    _, drawn = resampled([LabelMetrics(LabelColumn(scores, positive, patients.index), patients.count)], patients)
    return drawn["auroc"][:, 0]


def test_a_resample_draws_as_many_patients_as_there_are_and_chunks_change_nothing() -> None:
    patients = Patients(["b", "a", "b", "c"], 50, seed=3)
    assert patients.index.tolist() == [1, 0, 1, 2] and patients.count == 3
    whole = np.concatenate(list(patients.draws(50)), axis=1)
    assert whole.shape == (3, 50) and (whole.sum(axis=0) == 3).all()
    np.testing.assert_array_equal(whole, np.concatenate(list(patients.draws(7)), axis=1))
    other = np.concatenate(list(Patients(["a", "b", "c"], 50, seed=4).draws(50)), axis=1)
    assert not np.array_equal(whole, other)


def test_a_resample_equals_an_explicit_repetition_of_the_rows_of_each_patient() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 12, size=60) / 12, rng.random(60) < 0.4
    patients = Patients(rng.integers(0, 15, size=60).astype(str), 40, seed=4)
    found = drawn_auroc(scores, positive, patients)
    counts = np.concatenate(list(patients.draws(40)), axis=1)
    for k in range(40):
        rows = np.repeat(np.arange(60), counts[patients.index, k].astype(int))
        assert found[k] == pytest.approx(roc_auc_score(positive[rows], scores[rows]), abs=1e-12)


def test_a_patient_is_drawn_as_a_whole() -> None:
    """Four copies of each image under one patient leave the spread as it was; under four patients it halves."""
    rng = np.random.default_rng(1)
    scores = rng.random(40)
    positive = scores + rng.random(40) > 0.9

    def spread(copies: int, ids: list[int]) -> float:
        return float(np.std(drawn_auroc(np.repeat(scores, copies), np.repeat(positive, copies), Patients(ids, 2000))))

    alone = spread(1, list(range(40)))
    assert spread(4, [k // 4 for k in range(160)]) == pytest.approx(alone, rel=0.1)
    assert spread(4, list(range(160))) == pytest.approx(alone / 2, rel=0.15)


def test_a_resample_with_one_class_is_nan_and_left_out_of_the_interval() -> None:
    found = drawn_auroc(np.array([0.1, 0.9]), np.array([False, True]), Patients(["a", "b"], 200))
    assert 0.3 < np.isnan(found).mean() < 0.7
    assert percentile(found)[:2] == (1.0, 1.0)


def covered(simulations: int, resamples: int, ids_of: str) -> float:
    """Share of 95 % intervals that hold the true AUROC, images of a patient being alike and sharing most labels.

    A score is patient + film + shift where positive, with patient and film normal of variance 0.8 and 0.2, so the true
    AUROC is Phi(shift / sqrt 2).
    """
    true = norm.cdf(1 / np.sqrt(2))
    held = 0
    for seed in range(simulations):
        rng = np.random.default_rng((20260101, seed))
        films = rng.integers(1, 5, size=300)
        member = np.repeat(np.arange(300), films)
        sick = rng.random(300) < 0.4
        positive = np.where(rng.random(len(member)) < 0.9, sick[member], ~sick[member])
        assert positive.sum() >= 200
        scores = rng.normal(0, 0.8**0.5, 300)[member] + rng.normal(0, 0.2**0.5, len(member)) + positive
        ids = member if ids_of == "patients" else np.arange(len(member))
        low, high, _ = percentile(drawn_auroc(scores, positive, Patients(ids, resamples, seed)))
        held += low <= true <= high
    return held / simulations


def test_intervals_of_patients_hold_the_true_value_about_as_often_as_they_say_and_those_of_images_do_not() -> None:
    assert covered(120, 200, "patients") >= 0.89
    assert covered(120, 200, "films") < 0.89


@pytest.mark.slow
def test_coverage_of_two_thousand_intervals() -> None:
    share = covered(2000, 1000, "patients")
    print(f"coverage {share:.4f}")
    assert 0.93 <= share <= 0.97


@pytest.mark.slow
def test_a_thousand_resamples_of_a_large_test_set_take_seconds() -> None:
    """14 labels, 25,000 images, every figure; far below the half minute that is allowed."""
    rng = np.random.default_rng(0)
    positive = rng.random((25_000, 14)) < rng.uniform(0.02, 0.4, 14)
    scores = 1 / (1 + np.exp(-rng.normal(size=(25_000, 14)) - positive))
    patients = Patients(rng.integers(0, 10_000, 25_000), 1000)
    start = time.process_time()
    columns = [
        LabelMetrics(LabelColumn(s, y, patients.index, s, s > 0.5), patients.count)
        for s, y in zip(scores.T, positive.T, strict=True)
    ]
    _, drawn = resampled(columns, patients)
    assert drawn["auroc"].shape == (1000, 14) and not np.isnan(drawn["auprc"]).any()
    assert time.process_time() - start < 30
