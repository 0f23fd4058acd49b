"""Intervals over patients and over trainings."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.intervals import percentile
from cxrcl.evaluation.scores.runs import auroc_over_runs


def runs_of(rng: np.random.Generator, truth: np.ndarray, signals: list[float]) -> list[np.ndarray]:
    return [signal * np.nan_to_num(truth) + rng.normal(size=truth.shape) for signal in signals]


def labels(rng: np.random.Generator, images: int = 120) -> np.ndarray:
    return rng.choice([0.0, 1.0, -1.0, np.nan], p=[0.5, 0.3, 0.1, 0.1], size=(images, 2))


def test_each_resample_draws_patients_and_runs() -> None:
    rng = np.random.default_rng(0)
    truth = labels(rng)
    runs, patients = runs_of(rng, truth, [0.5, 1.0, 2.0]), Patients([str(k // 2) for k in range(120)], 40)
    plain, drawn = auroc_over_runs(runs, truth, patients)
    counts = np.concatenate(list(patients.draws(40)), axis=1)

    def areas(rows: np.ndarray, column: int) -> np.ndarray:
        rows = rows[np.isin(truth[rows, column], (0, 1))]
        return np.array([roc_auc_score(truth[rows, column], scores[rows, column]) for scores in runs])

    everyone = np.arange(120)
    np.testing.assert_allclose(plain, [areas(everyone, column).mean() for column in (0, 1)], atol=1e-12)
    triples = [(a, b, c) for a in range(3) for b in range(3) for c in range(3)]
    seen = set()
    for k in range(40):
        by_run = areas(np.repeat(everyone, counts[patients.index, k].astype(int)), 0)
        near = {tuple(sorted(triple)) for triple in triples if abs(by_run[list(triple)].mean() - drawn[k, 0]) < 1e-9}
        assert near, "no drawing of three runs gives this mean"
        seen |= near
    assert len(seen) > 5


def test_runs_that_differ_widen_the_interval_and_one_run_gives_that_of_patients_alone() -> None:
    rng = np.random.default_rng(1)
    truth = labels(rng, 600)
    patients = Patients([str(k) for k in range(600)], 2000)
    low, middle, high = runs_of(rng, truth, [0.2, 1.0, 2.5])

    def width(runs: list[np.ndarray]) -> float:
        bounds = percentile(auroc_over_runs(runs, truth, patients)[1].mean(axis=1))
        return bounds[1] - bounds[0]

    assert width([low, middle, high]) > 2 * width([middle])
    assert width([middle] * 3) == pytest.approx(width([middle]), rel=1e-9)


def test_equal_patients_pair_two_recipes() -> None:
    rng = np.random.default_rng(2)
    truth = labels(rng)
    patients = Patients([str(k) for k in range(120)], 200)
    (scores,) = runs_of(rng, truth, [1.0])
    one, other = (auroc_over_runs(runs, truth, patients)[1] for runs in ([scores], [scores, scores]))
    np.testing.assert_allclose(one - other, 0, atol=1e-12)
