"""Variances of AUROC, against the sums that the papers write."""

from __future__ import annotations

import numpy as np
import pytest

from cxrcl.evaluation.metrics.clusters import Deviations, weighted_mean
from cxrcl.evaluation.metrics.delong import area
from cxrcl.evaluation.metrics.ranking import auroc

IMAGES, PATIENTS = 90, 30


def sample(seed: int, labels: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models' scores [2, N] with ties, labels [L, N], patients [N] with one to many images of both classes."""
    rng = np.random.default_rng(seed)
    patients = np.append(np.arange(PATIENTS), rng.integers(0, PATIENTS, IMAGES - PATIENTS))
    shared = rng.normal(size=PATIENTS)[patients]
    positive = rng.random((labels, IMAGES)) < 1 / (1 + np.exp(1 - shared))
    scores = np.round(shared + rng.normal(size=(2, IMAGES)) + positive[0], 1)
    return scores, positive, patients


def by_the_paper(scores: np.ndarray, positive: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Covariances of the AUROCs of several models, Obuchowski 1997: loops over clusters i and pairs of images."""
    clusters = sorted(set(patients.tolist()))
    m, n = int(positive.sum()), int((~positive).sum())

    def kernel(x: float, y: float) -> float:
        return 1.0 if x > y else 0.5 if x == y else 0.0

    sums = []
    for model in scores:
        ups, downs = model[positive], model[~positive]
        theta = sum(kernel(x, y) for x in ups for y in downs) / (m * n)
        v10 = {k: sum(kernel(model[k], y) for y in downs) / n for k in np.flatnonzero(positive)}
        v01 = {k: sum(kernel(x, model[k]) for x in ups) / m for k in np.flatnonzero(~positive)}
        x_sums = [sum(v10[k] - theta for k in v10 if patients[k] == i) for i in clusters]
        y_sums = [sum(v01[k] - theta for k in v01 if patients[k] == i) for i in clusters]
        sums.append((x_sums, y_sums))
    i10 = sum(any(patients[k] == i for k in np.flatnonzero(positive)) for i in clusters)
    i01 = sum(any(patients[k] == i for k in np.flatnonzero(~positive)) for i in clusters)
    i = len(clusters)
    found = np.zeros((len(scores), len(scores)))
    for r, (xr, yr) in enumerate(sums):
        for s, (xs, ys) in enumerate(sums):
            s10 = i10 / ((i10 - 1) * m) * sum(a * b for a, b in zip(xr, xs))
            s01 = i01 / ((i01 - 1) * n) * sum(a * b for a, b in zip(yr, ys))
            s11 = i / (i - 1) * sum(a * b for a, b in zip(xr, ys))
            s11_other = i / (i - 1) * sum(a * b for a, b in zip(xs, yr))
            found[r, s] = s10 / m + s01 / n + (s11 + s11_other) / (m * n)
    return found


def areas(scores: np.ndarray, positive: np.ndarray, patients: np.ndarray) -> list[Deviations]:
    return [area(model, positive, patients, PATIENTS) for model in scores]


@pytest.mark.parametrize("seed", range(4))
def test_variances_of_areas_and_of_their_difference_are_those_of_the_paper(seed: int) -> None:
    scores, (positive,), patients = sample(seed)
    expected = by_the_paper(scores, positive, patients)
    one, other = areas(scores, positive, patients)
    assert one.value == pytest.approx(auroc(scores[0], positive.astype(float)), abs=1e-12)
    assert weighted_mean([one]).variance == pytest.approx(expected[0, 0], abs=1e-15)
    difference = weighted_mean([one.minus(other)])
    assert difference.value == pytest.approx(one.value - other.value, abs=1e-15)
    assert difference.variance == pytest.approx(expected[0, 0] + expected[1, 1] - 2 * expected[0, 1], abs=1e-15)


def test_with_one_image_a_patient_it_is_delongs_variance() -> None:
    scores, (positive,), _ = sample(5)
    up, down = scores[0][positive], scores[0][~positive]
    wins = (up[:, None] > down) + 0.5 * (up[:, None] == down)
    expected = wins.mean(axis=1).var(ddof=1) / len(up) + wins.mean(axis=0).var(ddof=1) / len(down)
    found = area(scores[0], positive, np.arange(IMAGES), IMAGES)
    assert weighted_mean([found]).variance == pytest.approx(expected, abs=1e-15)
    copied = area(np.tile(scores[0], 3), np.tile(positive, 3), np.tile(np.arange(IMAGES), 3), IMAGES)
    assert weighted_mean([copied]).variance == pytest.approx(expected, abs=1e-15)


def test_only_the_order_of_scores_counts() -> None:
    scores, (positive,), patients = sample(6)
    one = area(scores[0], positive, patients, PATIENTS)
    other = area(np.exp(3 * scores[0]) - 7, positive, patients, PATIENTS)
    assert one.value == other.value
    np.testing.assert_array_equal(one.parts, other.parts)
    equal = area(np.ones(IMAGES), positive, patients, PATIENTS)
    assert equal.value == 0.5 and weighted_mean([equal]).variance == 0


def test_the_mean_over_labels_has_the_variance_that_simulated_patients_show() -> None:
    """Labels of the same images are dependent: adding up their variances would be a quarter too small."""
    weights, found, estimated = [2.0, 1.0, 1.0], [], []
    for seed in range(400):
        scores, labels, patients = sample(1000 + seed, labels=3)
        of_labels = [area(scores[0], positive, patients, PATIENTS) for positive in labels]
        mean = weighted_mean(of_labels, weights)
        assert mean.value == pytest.approx(np.average([each.value for each in of_labels], weights=weights))
        found.append(mean.value)
        estimated.append(mean.variance)
    assert np.mean(estimated) == pytest.approx(np.var(found), rel=0.15)


def test_a_class_with_one_patient_has_no_variance_unless_patients_are_added() -> None:
    scores, positive, patients = np.array([0.3, 0.9, 0.5, 0.7]), np.array([False, True, True, False]), [0, 1, 1, 2]
    one = area(scores, positive, np.array(patients), 3)
    assert np.isnan(weighted_mean([one]).variance)
    assert one.value == 0.75 and weighted_mean([one], added=0.5).variance > 0.75 * 0.25


def test_added_patients_have_the_largest_variance_of_components() -> None:
    scores, (positive,), patients = sample(7)
    one = area(scores[0], positive, patients, PATIENTS)
    seen, more = weighted_mean([one]), weighted_mean([one], added=2)
    expected = seen.variance
    for sums, count in zip(one.parts, one.counts, strict=True):
        own = (sums**2).sum() * count / (count - 1)
        largest = one.value * (1 - one.value) / count
        expected += ((count - 1) * own + 2 * largest) / (count + 1) - own
    assert more.variance == pytest.approx(expected, abs=1e-15) and more.value == seen.value
    assert more.freedom > seen.freedom > 10
