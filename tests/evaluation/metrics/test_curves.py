"""Points of ROC and precision-recall curves."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve

from cxrcl.evaluation.metrics.curves import MOST, curves, thinned


def some(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = (rng.random(count) < 0.2).astype(float)
    return np.round(rng.normal(size=count) + truth, 2), truth


def test_few_points_are_those_of_scikit_learn() -> None:
    scores, truth = some(60)
    with_unknown = np.concatenate([truth, [np.nan, -1]])
    found = curves(np.concatenate([scores, [9.0, 9.0]]), with_unknown)
    assert found is not None and (found.images, found.positives) == (60, truth.sum())
    x, y, _ = roc_curve(truth, scores)
    assert np.array_equal(found.roc.x, x) and np.array_equal(found.roc.y, y)
    precision, recall, _ = precision_recall_curve(truth, scores, drop_intermediate=True)
    assert np.array_equal(found.precision_recall.x, recall[::-1])
    assert np.array_equal(found.precision_recall.y, precision[::-1])


def test_many_points_are_thinned_without_a_visible_change() -> None:
    scores, truth = some(20_000)
    scores = scores + np.random.default_rng(1).normal(size=len(scores)) * 1e-3
    found = curves(scores, truth)
    assert found is not None
    x, y, _ = roc_curve(truth, scores)
    for curve in (found.roc, found.precision_recall):
        assert len(curve.x) <= MOST and (np.diff(curve.x) >= 0).all()
    assert (found.roc.x[[0, -1]].tolist(), found.roc.y[[0, -1]].tolist()) == ([0, 1], [0, 1])
    apart = np.hypot(x[:, None] - found.roc.x, y[:, None] - found.roc.y).min(axis=1)
    assert len(x) > 1000 and apart.max() < 0.011
    assert auc(found.roc.x, found.roc.y) == pytest.approx(roc_auc_score(truth, scores), abs=1e-3)


def test_the_number_of_points_is_kept() -> None:
    x = np.linspace(0, 1, 1000)
    found = thinned(x, x**2, most=11)
    assert 8 <= len(found.x) <= 11 and found.x[0] == 0 and found.x[-1] == 1


@pytest.mark.parametrize("truth", [np.ones(3), np.zeros(3), np.full(3, np.nan)])
def test_one_class_has_no_curve(truth: np.ndarray) -> None:
    assert curves(np.arange(3.0), truth) is None
    assert curves(np.array([0.0, np.nan, 1.0]), np.array([0.0, 1.0, 1.0])) is None
