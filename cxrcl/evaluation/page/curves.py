"""Points of ROC and precision-recall curves, as few as a picture needs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cxrcl.evaluation.known import known, one_class

MOST = 200


class Curve(NamedTuple):
    x: np.ndarray
    y: np.ndarray


class Curves(NamedTuple):
    """Of one label. `positives` of `films` are positive."""

    films: int
    positives: int
    roc: Curve  # false positive rate, sensitivity
    precision_recall: Curve  # recall, precision


def curves(scores: np.ndarray, truth: np.ndarray) -> Curves | None:
    """None where one class is present, or a score is not a number.

    Args:
        scores, truth: [N] of one label; only films that are labelled 1 or 0 count.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    chosen = known(truth)
    scores, positive = scores[chosen], truth[chosen] == 1
    count = int(positive.sum())
    if one_class(count, len(positive) - count) or np.isnan(scores).any():
        return None
    false_positive, sensitivity, _ = roc_curve(positive, scores)
    precision, recall, _ = precision_recall_curve(positive, scores, drop_intermediate=True)
    return Curves(len(positive), count, thinned(false_positive, sensitivity), thinned(recall[::-1], precision[::-1]))


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST) -> Curve:
    """At most so many of the points, the ends among them, at even distances along the curve.

    No point that is left out is further from one that stays than the curve's length / (most - 1).
    """
    if len(x) <= most:
        return Curve(x, y)
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], most)))
    return Curve(x[kept], y[kept])
