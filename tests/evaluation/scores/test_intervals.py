"""Intervals of one number."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap
from scipy.stats import t as student

from cxrcl.evaluation.metrics.delong import Estimate
from cxrcl.evaluation.scores.intervals import bca, log_odds, percentile, wilson


def test_bounds_are_percentiles_of_the_resamples_that_have_a_value() -> None:
    assert percentile(np.arange(101.0)) == (pytest.approx(2.5), pytest.approx(97.5), "percentile")
    assert percentile(np.append(np.arange(101.0), np.nan), level=0.5)[:2] == pytest.approx((25, 75))
    assert np.isnan(percentile(np.array([np.nan]))[:2]).all()


def test_bca_is_scipys() -> None:
    values = np.random.default_rng(0).lognormal(size=40)
    result = bootstrap((values,), np.mean, n_resamples=4000, method="BCa", rng=np.random.default_rng(1))
    own = bca(values.mean(), result.bootstrap_distribution, values - values.mean())
    assert own[:2] == pytest.approx(tuple(result.confidence_interval), rel=1e-3) and own.method == "BCa"
    plain = percentile(result.bootstrap_distribution)
    assert own.low > plain.low and own.high > plain.high  # skewed to the right
    assert np.isnan(bca(0.5, np.array([np.nan]), np.zeros(3))[:2]).all()
    assert bca(1.0, np.ones(9), np.zeros(3))[:2] == (1.0, 1.0)


def test_wilsons_interval_of_independent_images_is_scipys() -> None:
    share, count = 7 / 40, 40
    known = binomtest(7, 40).proportion_ci(method="wilson")
    found = wilson(Estimate(share, share * (1 - share) / count, np.inf), patients=40)
    assert found[:2] == pytest.approx((known.low, known.high), abs=1e-12) and found.method == "Wilson"
    four_alike = wilson(Estimate(share, 4 * share * (1 - share) / count, np.inf), patients=40)
    assert four_alike.low < found.low and four_alike.high > found.high
    everyone = wilson(Estimate(1.0, 0.0, np.inf), patients=12)
    assert everyone[:2] == pytest.approx((binomtest(12, 12).proportion_ci(method="wilson").low, 1.0))
    assert wilson(Estimate(share, share * (1 - share) / count, 5.0), 40).low < found.low  # few degrees of freedom


def test_log_odds_stay_between_0_and_1() -> None:
    found = log_odds(Estimate(0.9, 0.03**2, 12.0))
    odds = np.log([found.low / (1 - found.low), found.high / (1 - found.high)])
    assert odds.mean() == pytest.approx(np.log(9)) and found.low < 0.9 < found.high < 1
    assert np.diff(odds)[0] / 2 == pytest.approx(student.ppf(0.975, 12) * 0.03 / 0.09)
    assert log_odds(Estimate(0.97, 0.1**2, 4.0)).high < 1
    assert np.isnan(log_odds(Estimate(1.0, 0.0, 4.0))[:2]).all()
