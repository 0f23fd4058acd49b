"""Points of ROC and precision-recall curves, as few as a picture needs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cxrcl.evaluation.metrics.labels import is_labelled, missing_class

MOST = 200


class Curve(NamedTuple):
    """Points of a curve, float [K] each."""

    x: np.ndarray
    y: np.ndarray


class Curves(NamedTuple):
    """Of one label. `positives` of `images` are positive."""

    images: int
    positives: int
    roc: Curve  # false positive rate, sensitivity
    precision_recall: Curve  # recall, precision


def curves(scores: np.ndarray, labels: np.ndarray) -> Curves | None:
    """Both curves of one label; None where one class is present, or a score is not a number.

    Args:
        scores, labels: float [N]; images labelled neither 1 nor 0 are left out.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    labelled = is_labelled(labels)
    scores, positive = scores[labelled], labels[labelled] == 1
    count = int(positive.sum())
    if missing_class(count, len(positive) - count) or np.isnan(scores).any():
        return None
    false_positive, sensitivity, _ = roc_curve(positive, scores)
    precision, recall, _ = precision_recall_curve(positive, scores, drop_intermediate=True)
    return Curves(len(positive), count, thinned(false_positive, sensitivity), thinned(recall[::-1], precision[::-1]))


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST) -> Curve:
    """At most so many of the points [K], the ends among them, at even distances along the curve.

    No point that is left out is further from one that stays than the curve's length / (most - 1).
    """
    if len(x) <= most:
        return Curve(x, y)
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], most)))
    return Curve(x[kept], y[kept])
