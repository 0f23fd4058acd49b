"""What each patient adds to the error of a metric: the metric's derivative by the weight of the patient."""

from __future__ import annotations

import numpy as np
import pytest

from cxrcl.evaluation.metrics.clusters import Deviations, weighted_mean
from cxrcl.evaluation.metrics.label_metrics import LabelColumn, LabelMetrics

PATIENTS = 25


def column(seed: int) -> LabelColumn:
    rng = np.random.default_rng(seed)
    patients = np.append(np.arange(PATIENTS - 1), rng.integers(0, PATIENTS - 1, 45))  # the last has no image
    positive = rng.random(len(patients)) < 0.3
    scores = np.round(rng.random(len(patients)) + 0.3 * positive, 1)
    return LabelColumn(scores, positive, patients, predicted=scores >= 0.7)


@pytest.mark.parametrize("seed", range(3))
def test_deviations_are_derivatives(seed: int) -> None:
    label = LabelMetrics(column(seed), PATIENTS)
    step = 1e-5 * np.eye(PATIENTS)
    plain, up, down = (label.at(counts) for counts in (np.ones((PATIENTS, 1)), 1 + step, 1 - step))
    found = label.deviations()
    assert set(found) == {"auroc", "auprc", "f1", "accuracy", "sensitivity", "specificity", "ppv", "npv"}
    for metric, deviations in found.items():
        assert deviations.value == pytest.approx(plain[metric][0], abs=1e-12)
        expected = (up[metric] - down[metric]) / 2e-5
        np.testing.assert_allclose(sum(deviations.parts), expected, atol=1e-8, err_msg=metric)
        assert len(deviations.parts) == len(deviations.counts) and deviations.patients == PATIENTS - 1


def test_counts_are_of_patients_whose_images_a_share_is_of() -> None:
    images = column(0)
    assert images.predicted is not None
    found = LabelMetrics(images, PATIENTS).deviations()

    def patients(chosen: np.ndarray) -> int:
        return len(set(images.patient_index[chosen]))

    positive, called = images.positive, images.predicted
    assert found["sensitivity"].counts == found["auprc"].counts == (patients(positive),)
    assert found["specificity"].counts == (patients(~positive),) and found["ppv"].counts == (patients(called),)
    assert found["f1"].counts == (patients(positive | called),) and found["accuracy"].counts == (PATIENTS - 1,)
    assert found["auroc"].counts == (patients(positive), patients(~positive))


def test_a_share_of_independent_images_has_the_binomial_variance() -> None:
    correct = np.arange(40) < 30
    images = LabelColumn(correct * 1.0, np.arange(40) % 2 == 0, np.arange(40), predicted=np.arange(40) % 4 == 0)
    accuracy = LabelMetrics(images, 40).deviations()["accuracy"]
    estimate = weighted_mean([accuracy])
    assert estimate.value == 0.75 and estimate.freedom == 39
    assert estimate.variance == pytest.approx(0.75 * 0.25 / 39)


def test_without_a_threshold_or_with_one_class_shares_do_not_exist() -> None:
    images = column(1)
    ranked = LabelColumn(images.scores, images.positive, images.patient_index)
    assert set(LabelMetrics(ranked, PATIENTS).deviations()) == {"auroc", "auprc"}
    one_class = LabelColumn(images.scores, np.zeros(len(images.scores), bool), images.patient_index)
    assert LabelMetrics(one_class, PATIENTS).deviations() == {}
    unknown = LabelColumn(np.full(len(images.scores), np.nan), images.positive, images.patient_index)
    assert LabelMetrics(unknown, PATIENTS).deviations() == {}


def test_weights_of_a_mean_are_relative_and_errors_of_one_patient_add_up() -> None:
    one = Deviations(0.5, (np.array([0.1, -0.1, 0.0]),), (3,), 3)
    other = Deviations(0.7, (np.array([-0.1, 0.1, 0.0]),), (3,), 3)
    assert weighted_mean([one, other]).variance == pytest.approx(0, abs=1e-30)
    assert weighted_mean([one, other], [3, 1]).value == pytest.approx(0.55)
    assert weighted_mean([one, other], [3, 1]).variance == pytest.approx(weighted_mean([one]).variance / 4)
