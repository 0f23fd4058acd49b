"""Thresholds and what follows from them."""

from __future__ import annotations

import numpy as np
import pytest
from score_data import awkward
from sklearn import metrics

from cxrcl.evaluation.metrics.decisions import Confusion, decision_metrics
from cxrcl.evaluation.metrics.labels import is_labelled
from cxrcl.evaluation.scores.thresholds import ThresholdRule, fit_threshold, parse_rule


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [-1.0, 0.3, 0.6, 2.0])
def test_metrics_equal_sklearn_even_where_all_or_no_image_is_called_positive(seed: int, threshold: float) -> None:
    scores, labels, _ = awkward(seed)
    chosen = is_labelled(labels[:, 1])
    y, called = labels[chosen, 1].astype(int), (scores[chosen, 1] >= threshold).astype(int)
    tn, fp, fn, tp = metrics.confusion_matrix(y, called, labels=[0, 1]).ravel()
    found = decision_metrics(Confusion(*(np.array(float(n)) for n in (tp, fp, fn, tn))))
    expected = {
        "f1": metrics.f1_score(y, called),
        "accuracy": metrics.accuracy_score(y, called),
        "mcc": metrics.matthews_corrcoef(y, called),
        "sensitivity": metrics.recall_score(y, called),
        "specificity": metrics.recall_score(y, called, pos_label=0),
        "ppv": metrics.precision_score(y, called, zero_division=np.nan),
        "npv": metrics.precision_score(y, called, pos_label=0, zero_division=np.nan),
    }
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, abs=1e-12, nan_ok=True)


def candidates(scores: np.ndarray, labels: np.ndarray) -> list[tuple[float, np.ndarray, np.ndarray]]:
    chosen = is_labelled(labels)
    return [(t, labels[chosen] == 1, scores[chosen] >= t) for t in np.unique(scores[chosen])[::-1]]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [15, 60])
def test_fitted_thresholds_are_the_best_of_all(seed: int, count: int) -> None:
    scores, labels, _ = awkward(seed, count)
    scores, labels = scores[:, 1], labels[:, 1]
    tried = candidates(scores, labels)
    f1 = [metrics.f1_score(y, called) for _, y, called in tried]
    youden = [round(metrics.balanced_accuracy_score(y, called), 12) for _, y, called in tried]
    reached = [t for t, y, called in tried if metrics.recall_score(y, called) >= 0.8]
    assert fit_threshold(ThresholdRule("f1"), scores, labels) == tried[int(np.argmax(f1))][0]
    assert fit_threshold(ThresholdRule("youden"), scores, labels) == tried[int(np.argmax(youden))][0]
    assert fit_threshold(ThresholdRule("sensitivity", 0.8), scores, labels) == reached[0]
    assert fit_threshold(ThresholdRule("sensitivity", 1.0), scores, labels) == scores[labels == 1].min()


def test_a_given_threshold_is_taken_and_one_class_has_none() -> None:
    scores, ones = np.arange(4.0), np.array([1, 1, np.nan, -1])
    assert fit_threshold(ThresholdRule("given", 0.25), scores, ones) == 0.25
    assert np.isnan(fit_threshold(ThresholdRule("f1"), scores, ones))


def test_rules_are_parsed_and_named() -> None:
    texts = {"f1": "f1", "youden": "Youden's J", "sensitivity=0.9": "sensitivity >= 0.9", "0.5": "0.5", "-2": "-2.0"}
    assert {text: str(parse_rule(text)) for text in texts} == texts
    assert [parse_rule(text).is_fitted for text in texts] == [True, True, True, False, False]


@pytest.mark.parametrize("text", ["f2", "", "nan", "sensitivity=0", "sensitivity=1.1", "sensitivity="])
def test_other_rules_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected f1, youden, sensitivity=0\.95 or a number"):
        parse_rule(text)
