"""AUROC and average precision against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrcl.evaluation.metrics.ranking import Ranking, auprc, auroc


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [1, 2, 5, 10_000])
@pytest.mark.parametrize("prevalence", [0.1, 0.8])
def test_both_equal_sklearn_with_and_without_ties(seed: int, levels: int, prevalence: float) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, size=80) / levels
    labels = (rng.random(80) < prevalence).astype(float)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert auprc(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_unknown_and_uncertain_labels_are_left_out() -> None:
    scores = np.array([0.9, 0.1, 0.8, 0.2, 5.0, -5.0])
    labels = np.array([1, 0, 0, 1, np.nan, -1])
    assert auroc(scores, labels) == roc_auc_score(labels[:4], scores[:4]) == 0.75
    assert auprc(scores, labels) == average_precision_score(labels[:4], scores[:4])


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, np.nan], [np.nan] * 3, [-1, 1, 1]])
def test_one_class_only_has_neither(labels: list[float]) -> None:
    assert np.isnan(auroc(np.arange(3.0), np.array(labels))) and np.isnan(auprc(np.arange(3.0), np.array(labels)))


def test_a_score_that_is_no_number_leaves_no_metric() -> None:
    assert np.isnan(auroc(np.array([0.1, np.nan, 0.3]), np.array([0, 1, 1])))


@pytest.mark.parametrize("seed", range(4))
def test_weights_of_patients_are_weights_of_their_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, 9, size=60) / 9, rng.random(60) < 0.4
    member, counts = rng.integers(0, 20, size=60), rng.integers(0, 4, size=(20, 7)).astype(float)
    area, precision = Ranking(scores, positive, member, 20).at(counts)
    for k in range(7):
        weights = counts[member, k]
        assert area[k] == pytest.approx(roc_auc_score(positive, scores, sample_weight=weights), abs=1e-12)
        expected = average_precision_score(positive, scores, sample_weight=weights)
        assert precision[k] == pytest.approx(expected, abs=1e-12)
