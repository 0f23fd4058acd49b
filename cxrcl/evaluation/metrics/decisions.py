"""Metrics of decisions: an image is called positive where its score is at or above the threshold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Confusion(NamedTuple):
    """Numbers of images by decision and label: float arrays of one shape."""

    true_positives: np.ndarray
    false_positives: np.ndarray
    false_negatives: np.ndarray
    true_negatives: np.ndarray


# Shares of images: times each of TP, FP, FN, TN is counted above the line, and below it.
SHARES = {
    "f1": ((2, 0, 0, 0), (2, 1, 1, 0)),
    "accuracy": ((1, 0, 0, 1), (1, 1, 1, 1)),
    "sensitivity": ((1, 0, 0, 0), (1, 0, 1, 0)),
    "specificity": ((0, 0, 0, 1), (0, 1, 0, 1)),
    "ppv": ((1, 0, 0, 0), (1, 1, 0, 0)),
    "npv": ((0, 0, 0, 1), (0, 0, 1, 1)),
}


def decision_metrics(confusion: Confusion) -> Mapping[str, np.ndarray]:
    """Every metric of the four counts, nan where its denominator is 0.

    With TP, FP, FN and TN: F1 = 2 TP / (2 TP + FP + FN); accuracy = (TP + TN) / all; sensitivity = TP / (TP + FN);
    specificity = TN / (TN + FP); PPV = TP / (TP + FP); NPV = TN / (TN + FN); MCC = (TP TN - FP FN) /
    sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN)) (Matthews 1975), which is 0 where every image or none is called
    positive, the limit that scikit-learn takes as well.

    Returns:
        metric -> float array, shaped as the counts.
    """
    tp, fp, fn, tn = confusion
    has_both = (tp + fn > 0) & (fp + tn > 0)
    spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    correlation = np.divide(tp * tn - fp * fn, spread, out=np.zeros_like(spread), where=spread > 0)
    counts = np.stack(confusion)
    shares = {
        name: ratio(np.tensordot(above, counts, 1), np.tensordot(below, counts, 1))
        for name, (above, below) in SHARES.items()
    }
    return {**shares, "mcc": np.where(has_both, correlation, np.nan)}


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, elementwise for arrays that broadcast to the shape of `whole`; nan where `whole` is 0."""
    whole = np.asarray(whole, dtype=float)
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole != 0)
