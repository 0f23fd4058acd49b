"""Curves: ROC and precision-recall, of as few points as a picture needs, and reliability."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cxrcl.evaluation.metrics.labels import known

MOST = 200
BINS = 15  # as Guo et al. 2017


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

    scores, positive = known(scores, labels)
    if positive.all() or not positive.any() or np.isnan(scores).any():
        return None
    false_positive, sensitivity, _ = roc_curve(positive, scores)
    precision, recall, _ = precision_recall_curve(positive, scores, drop_intermediate=True)
    return Curves(
        images=len(positive),
        positives=int(positive.sum()),
        roc=thinned(false_positive, sensitivity),
        precision_recall=thinned(recall[::-1], precision[::-1]),
    )


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST) -> Curve:
    """At most so many of the points [K], the ends among them, at even distances along the curve.

    No point that is left out is further from one that stays than the curve's length / (most - 1).
    """
    if len(x) <= most:
        return Curve(x, y)
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], most)))
    return Curve(x[kept], y[kept])


def bin_of(probabilities: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Numbers of the bins, int [n] in 0 .. bins - 1: equal widths over [0, 1], closed above; the first holds 0 as well.

    Args:
        probabilities: float [n].
    """
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities)


def reliability(probabilities: np.ndarray, positive: np.ndarray, bins: int = BINS) -> list[dict[str, float]]:
    """The reliability curve: of each bin that is not empty its mean probability and its share of positives.

    Args:
        probabilities: float [n].
        positive: bool [n].
    """
    place, edges = bin_of(probabilities, bins), np.linspace(0, 1, bins + 1)
    return [
        {
            "from": float(edges[k]),
            "to": float(edges[k + 1]),
            "images": int((place == k).sum()),
            "mean_probability": float(probabilities[place == k].mean()),
            "share_of_positives": float(positive[place == k].mean()),
        }
        for k in np.unique(place)
    ]
