"""Intervals of numbers that have no variance but that of their resamples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from cxrcl.evaluation.scores.comparisons import two_sided_p
from cxrcl.evaluation.scores.statistics import FEWEST, Counted, Drawn, mean_of, mean_of_labels

NORMAL = np.random.default_rng(0).normal(size=200_000)


def test_an_interval_of_normal_resamples_is_students() -> None:
    """The standard error of a mean of n is the spread of its resamples times sqrt(n / (n - 1))."""
    for n in (10, 20, 1000):
        found = Drawn(0.0, NORMAL, Counted(n, 5000)).score()
        reach = np.sqrt(n / (n - 1)) * student.ppf(0.975, n - 1)
        assert (found.low, found.high) == pytest.approx((-reach, reach), abs=0.04)
        assert found.method == "expanded percentile"
    plain = Drawn(0.0, NORMAL, Counted(10, 5000), is_mean=True).score()
    assert (plain.low, plain.high) == pytest.approx((-1.96, 1.96), abs=0.02) and plain.method == "percentile"


@pytest.mark.parametrize("n", [10, 15, 40, 5000])
def test_a_p_value_is_below_five_percent_where_the_interval_leaves_out_zero(n: int) -> None:
    for shift in (1.9, 2.0, 2.1, 2.2, 2.3, 2.4, 2.5):
        found = Drawn(shift, NORMAL + shift, Counted(5000, n))
        assert found.score().low is not None and (found.p() < 0.05) == (found.score().low > 0)
    of_many = Drawn(2.0, NORMAL + 2.0, Counted(10**6, 10**6))
    assert of_many.p() == pytest.approx(two_sided_p(NORMAL + 2.0), rel=1e-3)


def test_few_patients_have_no_interval_and_no_p_value() -> None:
    for patients, kind in ((Counted(FEWEST - 1, 50), "positive"), (Counted(50, FEWEST - 1), "negative")):
        few = Drawn(0.5, NORMAL[:100], patients)
        assert few.score().value == 0.5 and few.score().low is None and np.isnan(few.p())
        assert few.score().withheld == f"9 patients with {kind} images, fewer than 10"
    assert Drawn(0.5, NORMAL[:100], Counted(FEWEST, FEWEST)).score().low is not None
    assert Drawn(float("nan"), NORMAL[:0], Counted(0, 0)).score("why").reason == "why"


def test_a_mean_takes_the_fewest_patients_of_its_parts() -> None:
    parts = {
        "a": Drawn(1.0, NORMAL[:50], Counted(30, 12)),
        "b": Drawn(2.0, NORMAL[50:100], Counted(11, 90)),
        "c": Drawn(float("nan"), NORMAL[:50], Counted(0, 9)),
    }
    mean, having = mean_of(parts, ["b", "a", "c", "d"])
    assert having == ["b", "a"] and mean.value == 1.5 and mean.patients == (11, 12)
    np.testing.assert_allclose(mean.drawn, (NORMAL[:50] + NORMAL[50:100]) / 2)
    assert mean_of_labels(parts, ["a", "b"])[0].low is not None
    parts["a"] = parts["a"]._replace(patients=Counted(30, FEWEST - 1))
    withheld = mean_of_labels(parts, ["a", "b"])[0]
    assert withheld.low is None and "9 patients with negative images of a label" in (withheld.withheld or "")
