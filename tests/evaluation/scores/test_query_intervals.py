"""Intervals of shares, means and medians over queries, with patients as clusters."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student
from sklearn.metrics import f1_score, recall_score

from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.query_intervals import Queries, bounds, macro_intervals, of_resamples

RNG = np.random.default_rng(0)
IMAGES = 60
IDS = [f"p{k}" for k in RNG.integers(0, 20, IMAGES)]
RANKS = RNG.integers(1, 12, IMAGES)


def resampled_images(patients: Patients) -> list[np.ndarray]:
    """The images of each resample, those of a patient as often as it was drawn."""
    counts = np.concatenate(list(patients.draws(16)), axis=1)
    return [np.repeat(np.arange(IMAGES), column[patients.index].astype(int)) for column in counts.T]


def percentiles(values: list[float]) -> list[float]:
    return [float(bound) for bound in np.quantile(values, [0.025, 0.975])]


def test_means_and_medians_are_those_of_drawn_images() -> None:
    patients = Patients(IDS, 200)
    queries, drawn = Queries(patients, range(IMAGES)), resampled_images(patients)
    for found, statistic in ((queries.mean(RANKS), np.mean), (queries.median(RANKS), np.median)):
        assert found[:2] == pytest.approx(percentiles([float(statistic(RANKS[rows])) for rows in drawn]))


def test_macro_metrics_are_those_of_drawn_images() -> None:
    patients = Patients(IDS, 200)
    actual = RNG.integers(0, 3, IMAGES)
    chosen = np.where(RNG.random(IMAGES) < 0.6, actual, RNG.integers(0, 3, IMAGES))
    found = macro_intervals(Queries(patients, range(IMAGES)), actual, chosen, classes=4)
    for name, metric in (("macro_f1", f1_score), ("macro_recall", recall_score)):
        each = [metric(actual[rows], chosen[rows], average="macro") for rows in resampled_images(patients)]
        assert found[name][:2] == pytest.approx(percentiles(each))


def test_a_resample_without_a_class_has_no_macro_metric() -> None:
    patients = Patients([f"p{k}" for k in range(30)], 100)
    actual = np.array([0] * 29 + [1])  # 37 % of the resamples lack it: too many for an interval
    found = macro_intervals(Queries(patients, range(30)), actual, actual, classes=2)
    assert np.isnan(found["macro_f1"].low) and np.isnan(found["macro_recall"].high)


def test_a_share_of_independent_images_has_wilsons_interval() -> None:
    patients = Patients([f"p{k}" for k in range(40)], 0)
    hits = np.arange(40) < 10
    low, high, method = Queries(patients, range(40)).share(hits)
    # Wilson (1927) with n - 1 for n, as the variance of a sample has it, and Student's quantile.
    z, n, p = student.ppf(0.975, 39), 39, 0.25
    centre, reach = (p + z**2 / (2 * n)), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (low, high) == pytest.approx(((centre - reach) / (1 + z**2 / n), (centre + reach) / (1 + z**2 / n)))
    assert method == "Wilson"
    none = Queries(patients, range(40)).share(np.zeros(40))
    assert none.low == 0 and 0.05 < none.high < 0.12  # an interval of resamples would be [0, 0]


def test_images_of_one_patient_tell_no_more_than_one_of_them() -> None:
    hits = RNG.random(30) < 0.4
    once = Queries(Patients([f"p{k}" for k in range(30)], 300), range(30))
    four = Queries(Patients([f"p{k}" for k in range(30) for _ in range(4)], 300), range(120))
    assert four.share(np.repeat(hits, 4))[:2] == pytest.approx(once.share(hits)[:2])
    assert four.mean(np.repeat(hits, 4))[:2] == pytest.approx(once.mean(hits)[:2])


def test_a_text_of_several_patients_counts_as_often_as_these_on_average() -> None:
    patients = Patients(["a", "b", "c", "c"], 50)
    queries = Queries(patients, [0, 1, 2, 3], np.array([0, 0, 1, 1]))  # one text of a and b, one of c
    drawn = queries.sums(np.eye(2))
    counts = np.concatenate(list(patients.draws(50)), axis=1)
    np.testing.assert_allclose(drawn, [(counts[0] + counts[1]) / 2, counts[2]])


def test_few_patients_and_few_values_give_no_interval() -> None:
    few = Queries(Patients(["a", "b", "c", "d"] * 10, 50), range(40))
    assert np.isnan(few.share(np.ones(40)).low)
    assert np.isnan(of_resamples(np.array([1.0] * 89 + [np.nan] * 11)).low)
    assert of_resamples(np.array([1.0] * 90 + [np.nan] * 10)).low == 1


def test_bounds_are_named_after_their_metric() -> None:
    interval = of_resamples(np.linspace(0, 1, 41))
    assert set(bounds("accuracy", interval)) == {"accuracy_low", "accuracy_high"}
    assert bounds("recall", interval, "/Edema")["recall_low/Edema"] == pytest.approx(0.025)


@pytest.mark.slow
@pytest.mark.parametrize("patients", [10, 30, 100, 300])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_simulated_coverage(patients: int, share: float) -> None:
    """1 to 4 correlated images a patient: the true share lies in 93 to 99 % of nominal 95 % intervals."""
    rng = np.random.default_rng(int(1000 * share) + patients)
    held = 0
    for _ in range(2000):
        index = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
        each = rng.beta(2 * share, 2 * (1 - share), patients)  # intra-patient correlation 1/3
        low, high, _ = Queries(Patients(index.astype(str), 0), range(len(index))).share(
            rng.random(len(index)) < each[index]
        )
        held += low <= share <= high
    print(f"{patients} patients, share {share}: {held / 2000:.3f}")
    assert held / 2000 >= 0.93
