"""The area under the risk-coverage curve, against its definition image by image."""

from __future__ import annotations

import numpy as np
import pytest

from cxrcl.evaluation.metrics.risk_coverage import RiskCoverage


def aurc(confidence: np.ndarray, wrong: np.ndarray) -> float:
    """Mean over images of the share of wrong decisions among those that are as confident or more."""
    return float(np.mean([wrong[confidence >= one].mean() for one in confidence]))


def best_aurc(wrong: np.ndarray) -> float:
    """The same of the right decisions first, one after another, and then the wrong ones."""
    ordered = np.sort(wrong)
    return float(np.mean([ordered[: k + 1].mean() for k in range(len(ordered))]))


@pytest.mark.parametrize("levels", [1, 4, 10000])
def test_areas_are_the_definition_in_each_resample(levels: int) -> None:
    rng = np.random.default_rng(levels)
    confidence, wrong, patient = rng.integers(0, levels, 80) / levels, rng.random(80) < 0.3, rng.integers(0, 30, 80)
    counts = np.hstack([np.ones((30, 1)), rng.multinomial(30, np.full(30, 1 / 30), 25).T])
    found = RiskCoverage(confidence, wrong, patient, 30).at(counts)
    for k in range(counts.shape[1]):
        rows = np.repeat(np.arange(80), counts[patient, k].astype(int))
        area = aurc(confidence[rows], wrong[rows])
        assert found.aurc[k] == pytest.approx(area, abs=1e-12)
        assert found.excess_aurc[k] == pytest.approx(area - best_aurc(wrong[rows]), abs=1e-12)
        assert found.risk[k] == pytest.approx(wrong[rows].mean(), abs=1e-12)


def test_known_areas() -> None:
    one = np.ones((4, 1))
    known = RiskCoverage(np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 0, 1], bool), np.arange(4), 4)
    assert known.at(one).aurc == pytest.approx(1 / 16) and known.at(one).excess_aurc == pytest.approx(0, abs=1e-12)
    sure_and_wrong = RiskCoverage(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 0, 0], bool), np.arange(4), 4)
    assert sure_and_wrong.at(one).aurc == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    for wrong in (np.zeros(4, bool), np.ones(4, bool)):
        alike = RiskCoverage(np.array([0.5, 0.6, 0.7, 0.8]), wrong, np.arange(4), 4).at(one)
        assert alike.aurc == wrong[0] and alike.excess_aurc == pytest.approx(0, abs=1e-12)
    nobody = RiskCoverage(np.zeros(0), np.zeros(0, bool), np.zeros(0, int), 4).at(one)
    assert np.isnan(nobody.aurc).all() and np.isnan(nobody.risk).all()


def test_the_best_area_tends_to_the_published_formula() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(40000) < 0.2
    found = RiskCoverage(rng.random(40000), wrong, np.arange(40000), 40000).at(np.ones((40000, 1)))
    r = wrong.mean()
    assert found.aurc - found.excess_aurc == pytest.approx(r + (1 - r) * np.log(1 - r), abs=1e-4)
    assert found.aurc == pytest.approx(r, abs=0.01)  # a confidence that knows nothing


def test_the_curve_goes_from_the_surest_images_to_all() -> None:
    confidence, wrong = np.array([0.6, 0.9, 0.6, 0.7]), np.array([True, False, False, True])
    coverage, risk = RiskCoverage(confidence, wrong, np.array([0, 0, 1, 1]), 2).curve(np.ones(2))
    np.testing.assert_allclose(coverage, [0.25, 0.5, 1])
    np.testing.assert_allclose(risk, [0, 0.5, 0.5])
