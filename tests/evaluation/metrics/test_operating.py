"""Fixed rates, against every threshold tried in turn."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from cxrcl.evaluation.metrics.operating import RocPoints, least_count
from cxrcl.evaluation.metrics.ranking import Ranking


def best(scores: np.ndarray, positive: np.ndarray, fixed: str, least: Fraction) -> float:
    """The highest other rate of all thresholds at which the fixed rate is reached, in exact fractions."""
    found = []
    for threshold in [*np.unique(scores), np.inf]:
        called = scores >= threshold
        rates = {
            "sensitivity": Fraction(int(called[positive].sum()), int(positive.sum())),
            "specificity": Fraction(int((~called)[~positive].sum()), int((~positive).sum())),
        }
        if rates.pop(fixed) >= least:
            found.append(float(rates.popitem()[1]))
    return max(found)


def drawn(levels: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores with ties, labels, the patients of 60 images, and how often each of 25 patients is drawn in 20 samples."""
    rng = np.random.default_rng(seed)
    positive = rng.random(60) < 0.4
    scores = rng.integers(0, levels, 60) / levels + 0.3 * positive
    counts = rng.multinomial(25, np.full(25, 1 / 25), 20).T.astype(float)
    return scores, positive, rng.integers(0, 25, 60), counts


@pytest.mark.parametrize("levels", [3, 10, 1000])
@pytest.mark.parametrize("least", ["0.5", "0.8", "0.9", "0.95", "1"])
def test_a_fixed_rate_is_the_best_of_all_thresholds_in_each_resample(levels: int, least: str) -> None:
    scores, positive, patient, counts = drawn(levels, seed=levels)
    points = Ranking(scores, positive, patient, 25).roc(counts)
    found = {
        "specificity": points.sensitivity(least_count(float(least), points.negatives)),
        "sensitivity": points.specificity(least_count(float(least), points.positives)),
    }
    for k in range(counts.shape[1]):
        rows = np.repeat(np.arange(60), counts[patient, k].astype(int))
        for fixed, values in found.items():
            assert values[k] == best(scores[rows], positive[rows], fixed, Fraction(least))


def test_a_reader_who_calls_nothing_or_everything_is_reached_at_an_end_of_the_curve() -> None:
    scores, positive, patient, counts = drawn(5, seed=1)
    points = Ranking(scores, positive, patient, 25).roc(counts)
    assert (points.specificity(np.zeros(20)) == 1).all() and (points.sensitivity(np.zeros(20)) == 1).all()
    top = scores[~positive].max()  # no negative may be called: only positives above all of them are left
    whole = Ranking(scores, positive, patient, 25).roc(np.ones((25, 1)))
    assert whole.sensitivity(whole.negatives) == (scores[positive] > top).mean()


def test_one_class_has_no_operating_point() -> None:
    for positive in (np.ones(4, bool), np.zeros(4, bool)):
        points = Ranking(np.arange(4.0), positive, np.arange(4), 4).roc(np.ones((4, 2)))
        assert isinstance(points, RocPoints)
        assert (
            np.isnan(points.sensitivity(points.negatives)).all()
            and np.isnan(points.specificity(points.positives)).all()
        )


def test_the_least_count_of_a_rate_is_exact() -> None:
    totals = np.arange(1, 400)
    for hundredth in range(1, 100):
        exact = [-(-hundredth * int(n) // 100) for n in totals]
        np.testing.assert_array_equal(least_count(hundredth / 100, totals.astype(float)), exact)
