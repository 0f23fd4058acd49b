"""Brier score, calibration error, reliability curve and temperature scaling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from cxrcl.evaluation.metrics import reliability
from cxrcl.evaluation.scores import calibration


def sample(seed: int = 0, count: int = 3000, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and the labels that follow them once divided by the temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, size=count)
    return logits, (rng.random(count) < expit(logits / temperature)).astype(float)


@pytest.mark.parametrize("seed", range(3))
def test_the_reliability_curve_is_sklearns(seed: int) -> None:
    logits, labels = sample(seed, 400)
    probabilities = np.round(expit(logits) * 15) / 15  # on the edges of the bins
    probabilities[:5] = [0, 1, 1 / 15, 2 / 15, 1]
    found = reliability(probabilities, labels == 1)
    share, mean = calibration_curve(labels, probabilities, n_bins=15)
    np.testing.assert_allclose([part["share_of_positives"] for part in found], share, atol=1e-12)
    np.testing.assert_allclose([part["mean_probability"] for part in found], mean, atol=1e-12)
    assert sum(part["images"] for part in found) == 400
    assert all(part["from"] - 1e-12 <= part["mean_probability"] <= part["to"] + 1e-12 for part in found)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    logits, labels = sample(1, 20_000, temperature)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_has_the_greatest_likelihood() -> None:
    logits, labels = sample(2, 500, 2.0)
    labels[::7] = np.nan
    chosen = ~np.isnan(labels)
    slope = LogisticRegression(C=1e12, fit_intercept=False, tol=1e-10).fit(logits[chosen, None], labels[chosen])
    assert calibration.fit_temperature(logits, labels) == pytest.approx(1 / slope.coef_[0, 0], rel=1e-5)


def test_labels_without_a_best_temperature_end_at_a_bound_exactly() -> None:
    logits, labels = np.append(np.linspace(-3, -1, 40), np.linspace(1, 3, 40)), np.repeat([0.0, 1.0], 40)
    for scale in (1e-3, 1.0, 1e3):  # of the largest, the loss is 0 in double precision far from the bound
        assert calibration.fit_temperature(scale * logits, labels) == calibration.COLDEST
    assert calibration.fit_temperature(-logits, labels) == calibration.HOTTEST
    bounds = (calibration.COLDEST, calibration.HOTTEST)
    assert all(map(calibration.at_a_bound, bounds)) and not any(map(calibration.at_a_bound, (1.0, 1e-3, np.nan)))


def test_margins_of_cosines_are_within_reach() -> None:
    logits, labels = sample(3, 4000)
    assert calibration.fit_temperature(logits / 500, labels) == pytest.approx(1 / 500, rel=0.1)


def test_one_class_has_no_temperature_and_keeps_its_probabilities() -> None:
    assert np.isnan(calibration.fit_temperature(np.arange(3.0), np.array([1, 1, np.nan])))
    odds = np.array([[0.5, 2.0], [-1.0, 4.0]])
    found = calibration.scaled(odds, np.array([np.nan, 2.0]))
    np.testing.assert_allclose(found, expit(odds / [1, 2]))


def test_logits_undo_probabilities_and_are_finite_at_the_ends() -> None:
    probabilities = np.array([0, 0.2, 0.5, 0.9, 1])
    np.testing.assert_allclose(expit(calibration.logits(probabilities)), probabilities, atol=1e-11)
    assert np.isfinite(calibration.logits(probabilities)).all()


@pytest.mark.parametrize(
    ("scores", "expected"), [([0, 0.5, 1], True), ([-0.1, 0.5], False), ([1.1], False), ([np.nan], False), ([], False)]
)
def test_probabilities_lie_between_0_and_1(scores: list[float], expected: bool) -> None:
    assert calibration.are_probabilities(np.array(scores)) is expected
