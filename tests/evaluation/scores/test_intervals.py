"""Intervals of one number."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from cxrcl.evaluation.metrics.clusters import Estimate
from cxrcl.evaluation.scores.intervals import log_odds, of_difference, percentile, wilson


def test_bounds_are_percentiles_of_the_resamples_that_have_a_value() -> None:
    assert percentile(np.arange(101.0)) == (pytest.approx(2.5), pytest.approx(97.5), "percentile")
    assert percentile(np.append(np.arange(101.0), np.nan), level=0.5)[:2] == pytest.approx((25, 75))
    assert np.isnan(percentile(np.array([np.nan]))[:2]).all()


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
    found = log_odds(Estimate(0.9, 0.03**2, 12.0), patients=13)
    odds = np.log([found.low / (1 - found.low), found.high / (1 - found.high)])
    assert odds.mean() == pytest.approx(np.log(9)) and found.low < 0.9 < found.high < 1
    assert np.diff(odds)[0] / 2 == pytest.approx(student.ppf(0.975, 12) * 0.03 / 0.09)
    assert log_odds(Estimate(0.97, 0.1**2, 4.0), patients=5).high < 1


def test_a_perfect_order_is_as_sure_as_there_are_pairs_of_patients() -> None:
    low, high, method = log_odds(Estimate(1.0, 0.0, 9.0), patients=10)
    assert low**10 == pytest.approx(0.025) and high == 1 and method == "exact"
    assert log_odds(Estimate(0.0, 0.0, 9.0), patients=10)[:2] == pytest.approx((0, 1 - low))


def test_the_p_value_of_a_difference_and_its_interval_agree() -> None:
    found, p = of_difference(Estimate(0.05, 0.02**2, 20.0))
    assert p == pytest.approx(2 * student.sf(2.5, 20)) and 0 < found.low < 0.05 < found.high and p < 0.05
    width = student.ppf(0.975, 20) * 0.02
    assert (found.high - found.low) / 2 == pytest.approx(width)
    at_the_edge, p = of_difference(Estimate(width, 0.02**2, 20.0))
    assert at_the_edge.low == pytest.approx(0, abs=1e-12) and p == pytest.approx(0.05)
    assert of_difference(Estimate(0.0, 0.0, 20.0)) == ((0.0, 0.0, "DeLong"), 1.0)
    assert np.isnan(of_difference(Estimate(0.2, 0.0, 20.0))[1])
    assert of_difference(Estimate(0.9, 1.0, 20.0))[0].high == 1.0
