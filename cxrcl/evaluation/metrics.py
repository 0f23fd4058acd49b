"""AUROC and its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve; nan when only one class is present.

    Args:
        scores: float [N]; labels: [N] of 1 and 0, other values are left out.
    """
    known = (labels == 0) | (labels == 1)
    scores, positive = scores[known], labels[known] == 1
    wins = int(positive.sum()) * int((~positive).sum())
    if not wins:
        return float("nan")
    ranks = rankdata(scores)  # ties count half
    return float((ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2) / wins)


def mean_of_known(values: Sequence[float]) -> float:
    """Mean of the values that exist; nan when none does."""
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else float("nan")


def _weighted_auroc(order: np.ndarray, tie_ends: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC for many weightings of the same scores at once.

    Args:
        order: positions that sort the scores; tie_ends: last sorted position of each run of equal scores.
        positive: bool [N]; weights: [R, N], how often each sample was drawn.

    Returns:
        [R], nan where a class was not drawn.
    """
    sorted_weights = weights[:, order]
    up = np.cumsum(sorted_weights * positive[order], axis=1)[:, tie_ends]
    down = np.cumsum(sorted_weights * ~positive[order], axis=1)[:, tie_ends]
    zero = np.zeros((len(weights), 1))
    up, down = np.hstack([zero, up]), np.hstack([zero, down])
    # The trapezoid over runs of equal scores: negatives below count 1, tied ones one half.
    area = ((up[:, 1:] - up[:, :-1]) * (down[:, 1:] + down[:, :-1]) / 2).sum(axis=1)
    total = up[:, -1] * down[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, area / total, np.nan)


def bootstrap_auroc(
    scores: np.ndarray, labels: np.ndarray, patients: Sequence[str], resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """AUROC of each label in resamples of the patients (films of one patient are not independent).

    Args:
        scores, labels: [N, C]; labels other than 1 and 0 are left out.
        patients: [N] ids; whole patients are drawn with replacement.

    Returns:
        [resamples, C], nan where a resample holds one class only.
    """
    _, member = np.unique(np.asarray(patients), return_inverse=True)
    count = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    found = np.full((resamples, labels.shape[1]), np.nan)
    for column in range(labels.shape[1]):
        known = (labels[:, column] == 0) | (labels[:, column] == 1)
        if not known.any():
            continue
        own, positive = scores[known, column], labels[known, column] == 1
        order = np.argsort(own, kind="stable")
        tie_ends = np.append(np.flatnonzero(np.diff(own[order])), len(own) - 1)
        for start in range(0, resamples, 100):  # bounds the memory at 100 x N
            weights = drawn[start : start + 100][:, member[known]]
            found[start : start + 100, column] = _weighted_auroc(order, tie_ends, positive, weights)
    return found


def interval(samples: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the samples that exist."""
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return float("nan"), float("nan")
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
