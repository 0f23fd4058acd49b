"""Averages over labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cxrcl.evaluation.counts import ratio

# Shares of positives among the films scored whose label is known.
HEAD, TAIL = 0.10, 0.01
GROUPS = ("head", "medium", "tail")


def frequency_group(positive: np.ndarray) -> str:
    """`head` above 10 % positives, `tail` below 1 %, `medium` between."""
    share = positive.mean()
    return "head" if share > HEAD else "tail" if share < TAIL else "medium"


def mean_over_labels(values: np.ndarray, weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Weighted mean over the last axis of the values that exist; nan where none does.

    Args:
        values: [..., C], nan: none; weights: [C].
    """
    exist = ~np.isnan(values)
    return ratio(
        np.where(exist, values, 0) @ np.asarray(weights, dtype=float), exist @ np.asarray(weights, dtype=float)
    )


def weightings(positive: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Average -> label -> weight, over the labels that have both classes.

    `macro` weighs all alike, `weighted` by the number of positives; `head`, `medium` and `tail` are macro averages of
    the labels of that frequency, where there are any.

    Args:
        positive: label -> bool of the films whose label is known.
    """
    both = {name: films for name, films in positive.items() if films.any() and not films.all()}
    found = {
        "macro": dict.fromkeys(both, 1.0),
        "weighted": {name: float(films.sum()) for name, films in both.items()},
    }
    for group in GROUPS:
        members = [name for name, films in both.items() if frequency_group(films) == group]
        if members:
            found[group] = dict.fromkeys(members, 1.0)
    return found


def off_diagonal_mean(matrix: np.ndarray) -> float:
    """(sum - trace) / (n (n - 1)) of a square matrix; with cosines the trace is n."""
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))
