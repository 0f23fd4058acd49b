"""Figures of decisions: a film is called positive where its score is at or above the threshold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Confusion(NamedTuple):
    """Numbers of films, arrays of one shape."""

    true_positives: np.ndarray
    false_positives: np.ndarray
    false_negatives: np.ndarray
    true_negatives: np.ndarray


def decisions(cells: Confusion) -> Mapping[str, np.ndarray]:
    """Every figure of the four counts, nan where its denominator is 0.

    Matthews' correlation is 0 where every film or none is called positive, the limit that scikit-learn takes as well.
    """
    tp, fp, fn, tn = cells
    both = (tp + fn > 0) & (fp + tn > 0)
    spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    correlation = np.divide(tp * tn - fp * fn, spread, out=np.zeros_like(spread), where=spread > 0)
    return {
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "accuracy": ratio(tp + tn, tp + fp + fn + tn),
        "mcc": np.where(both, correlation, np.nan),
        "sensitivity": ratio(tp, tp + fn),
        "specificity": ratio(tn, tn + fp),
        "ppv": ratio(tp, tp + fp),
        "npv": ratio(tn, tn + fn),
    }


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, nan where `whole` is 0."""
    whole = np.asarray(whole, dtype=float)
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole != 0)
