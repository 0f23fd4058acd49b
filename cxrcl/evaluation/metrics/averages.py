"""Averages over labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cxrcl.evaluation.metrics.decisions import ratio
from cxrcl.evaluation.metrics.labels import labels_of_mean
from cxrcl.evaluation.metrics.ranking import auroc

# Shares of positives among the scored images whose label is known.
HEAD, TAIL = 0.10, 0.01
GROUPS = ("head", "medium", "tail")


def mean_auroc(
    scores: np.ndarray, labels: np.ndarray, names: Sequence[str], mean_over: Sequence[str] | None = None
) -> float:
    """Mean AUROC over labels but `No Finding`, or over `mean_over`, of those that have both classes.

    Args:
        scores: float [N, C].
        labels: float [N, C] of 1, 0 and anything else for unknown.
        names: of the C labels.

    Returns:
        nan where no label has both classes.
    """
    chosen = labels_of_mean(names, mean_over)
    areas = [auroc(scores[:, k], labels[:, k]) for k, name in enumerate(names) if name in chosen]
    defined = [area for area in areas if not np.isnan(area)]
    return float(np.mean(defined)) if defined else float("nan")


def mean_over_labels(values: np.ndarray, weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Weighted mean over the last axis of the values that exist; nan where none does.

    Args:
        values: float [..., C], nan: none.
        weights: [C].

    Returns:
        float [...].
    """
    exist = ~np.isnan(values)
    return ratio(
        np.where(exist, values, 0) @ np.asarray(weights, dtype=float), exist @ np.asarray(weights, dtype=float)
    )


def frequency_group(positive: np.ndarray) -> str:
    """`head` above 10 % positives, `tail` below 1 %, `medium` between.

    Args:
        positive: bool [n] of the images whose label is known.
    """
    share = positive.mean()
    return "head" if share > HEAD else "tail" if share < TAIL else "medium"


def weightings(positive: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Weights of labels in each average: average -> label -> weight, over the labels that have both classes.

    `macro` weighs all alike, `weighted` by the number of positives; `head`, `medium` and `tail` are macro averages of
    the labels of that frequency, where there are any.

    Args:
        positive: label -> bool [n] of the images whose label is known.
    """
    both = {name: part for name, part in positive.items() if part.any() and not part.all()}
    weights = {
        "macro": dict.fromkeys(both, 1.0),
        "weighted": {name: float(part.sum()) for name, part in both.items()},
    }
    for group in GROUPS:
        members = [name for name, part in both.items() if frequency_group(part) == group]
        if members:
            weights[group] = dict.fromkeys(members, 1.0)
    return weights


def off_diagonal_mean(matrix: np.ndarray) -> float:
    """(sum - trace) / (n (n - 1)) of a square matrix [n, n]; with cosines the trace is n."""
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))
