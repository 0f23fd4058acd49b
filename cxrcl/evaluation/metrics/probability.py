"""Metrics of scores that are probabilities: Brier score, expected calibration error, and the reliability curve."""

from __future__ import annotations

import numpy as np

from cxrcl.evaluation.metrics.decisions import ratio

BINS = 15  # as Guo et al. 2017


def brier(squared_errors: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Brier score (Brier 1950), 1/n * sum over images of (p_i - y_i)^2.

    Args:
        squared_errors: float [R], sums over the images of each resample.
        images: float [R], their numbers n.

    Returns:
        float [R]; nan where there is no image.
    """
    return ratio(squared_errors, images)


def ece(gaps: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Expected calibration error (Guo et al. 2017, equation 3, with the probability of the label as confidence).

    ECE = sum over bins b of n_b / n * |mean probability - share of positives| = 1/n * sum over b of |gap_b|, where
    gap_b is the sum over the images of the bin of p_i - y_i.

    Args:
        gaps: float [BINS, R].
        images: float [R], their numbers n.

    Returns:
        float [R]; nan where there is no image.
    """
    return ratio(np.abs(gaps).sum(axis=0), images)


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
