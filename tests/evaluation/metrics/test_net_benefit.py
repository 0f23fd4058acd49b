"""Net benefit, against its definition from the counts of each threshold."""

from __future__ import annotations

import numpy as np
import pytest

from cxrcl.evaluation.metrics.net_benefit import THRESHOLDS, NetBenefit


def net_benefit(called: np.ndarray, positive: np.ndarray, t: float) -> float:
    tp, fp = (called & positive).sum(), (called & ~positive).sum()
    return float(tp / len(positive) - fp / len(positive) * (t / (1 - t)))


def test_every_threshold_of_each_resample_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    positive, patient = rng.random(90) < 0.3, rng.integers(0, 30, 90)
    probabilities = np.round(np.clip(rng.random(90) + 0.2 * positive, 0, 1), 2)  # many exactly at a threshold
    counts = np.hstack([np.ones((30, 1)), rng.multinomial(30, np.full(30, 1 / 30), 20).T])
    found, of_all = NetBenefit(probabilities, positive, patient, 30).at(counts)
    for k in range(counts.shape[1]):
        rows = np.repeat(np.arange(90), counts[patient, k].astype(int))
        for place, t in enumerate(THRESHOLDS):
            expected = net_benefit(probabilities[rows] >= t, positive[rows], t)
            assert found[place, k] == pytest.approx(expected, abs=1e-12)
            expected = net_benefit(np.ones(len(rows), bool), positive[rows], t)
            assert of_all[place, k] == pytest.approx(expected, abs=1e-12)


def test_calling_all_and_none() -> None:
    positive = np.array([True, False, False, True, False])
    for probability, expected in ((1.0, "all"), (0.0, "none")):
        found, of_all = NetBenefit(np.full(5, probability), positive, np.arange(5), 5).at(np.ones((5, 1)))
        np.testing.assert_allclose(found, of_all if expected == "all" else 0)
    place = THRESHOLDS.index(0.4)  # the share of positives: acting on all is worth as much as acting on none
    assert of_all[place, 0] == pytest.approx(0, abs=1e-12)
    assert len(THRESHOLDS) < 100 and list(THRESHOLDS) == sorted(set(THRESHOLDS))
