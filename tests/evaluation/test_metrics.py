"""AUROC and its bootstrap against scikit-learn and slow loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxrcl.evaluation.metrics import auroc, bootstrap_auroc, interval, mean_of_known


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [2, 5, 10_000])
def test_auroc_equals_sklearn_with_and_without_ties(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, size=80) / levels
    labels = (rng.random(80) < 0.3).astype(float)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_unknown_and_uncertain_labels_are_left_out() -> None:
    scores = np.array([0.9, 0.1, 0.8, 0.2, 5.0, -5.0])
    labels = np.array([1, 0, 0, 1, np.nan, -1])
    assert auroc(scores, labels) == roc_auc_score(labels[:4], scores[:4]) == 0.75


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, np.nan], [np.nan] * 3, [-1, 1, 1]])
def test_one_class_only_has_no_auroc(labels: list[float]) -> None:
    assert np.isnan(auroc(np.arange(3.0), np.array(labels)))


def test_a_constant_score_is_chance() -> None:
    assert auroc(np.ones(10), np.arange(10) % 2) == 0.5


def test_the_mean_is_over_what_exists() -> None:
    assert mean_of_known([0.5, float("nan"), 1.0]) == 0.75
    assert np.isnan(mean_of_known([float("nan")])) and np.isnan(mean_of_known([]))


def sample(seed: int = 0, count: int = 60) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 12, size=(count, 3)) / 12
    labels = (rng.random((count, 3)) < 0.4).astype(float)
    labels[rng.random((count, 3)) < 0.2] = np.nan
    labels[:, 2] = 1  # one class only
    patients = [f"p{k}" for k in rng.integers(0, 15, size=count)]
    return scores, labels, patients


def test_bootstrap_draws_patients_as_an_explicit_repetition_of_their_rows_does() -> None:
    scores, labels, patients = sample()
    found = bootstrap_auroc(scores, labels, patients, resamples=130, seed=4)
    names = sorted(set(patients))
    drawn = np.random.default_rng(4).multinomial(len(names), np.full(len(names), 1 / len(names)), size=130)
    for resample in range(130):
        rows = [
            row
            for name, times in zip(names, drawn[resample], strict=True)
            for _ in range(times)
            for row, patient in enumerate(patients)
            if patient == name
        ]
        for column in range(2):
            known = [row for row in rows if labels[row, column] in (0, 1)]
            expected = roc_auc_score(labels[known, column], scores[known, column])
            assert found[resample, column] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(found[:, 2]).all()


def test_a_patient_is_drawn_as_a_whole() -> None:
    """Four copies of each film under one patient leave the spread as it was; under four patients it halves."""
    scores, labels, _ = sample(1, 40)
    scores, labels = scores[:, :1], (scores[:, :1] + np.random.default_rng(0).random((40, 1)) > 0.9).astype(float)
    four = [np.repeat(value, 4, axis=0) for value in (scores, labels)]

    def spread(rows: list[np.ndarray], patients: list[str]) -> float:
        return float(np.nanstd(bootstrap_auroc(rows[0], rows[1], patients, 2000)))

    alone = spread([scores, labels], [str(k) for k in range(40)])
    together = spread(four, [str(k // 4) for k in range(160)])
    apart = spread(four, [str(k) for k in range(160)])
    assert together == pytest.approx(alone, rel=0.1)
    assert apart == pytest.approx(alone / 2, rel=0.15)


def test_a_resample_with_one_class_is_nan_and_left_out_of_the_interval() -> None:
    found = bootstrap_auroc(np.array([[0.1], [0.9]]), np.array([[0.0], [1.0]]), ["a", "b"], 200)
    assert 0.3 < np.isnan(found).mean() < 0.7
    assert interval(found[:, 0]) == (1.0, 1.0)
    assert np.isnan(interval(np.array([np.nan]))).all()


def test_the_interval_holds_the_true_value_about_as_often_as_it_says() -> None:
    # Positives are normal around 1, negatives around 0: the true AUROC is Phi(1 / sqrt 2).
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels = np.arange(120) % 2
        scores = rng.normal(size=120) + labels
        drawn = bootstrap_auroc(scores[:, None], labels[:, None], [str(k) for k in range(120)], 300, seed)
        low, high = interval(drawn[:, 0])
        held += low <= 0.7602 <= high
    assert 51 <= held <= 60
