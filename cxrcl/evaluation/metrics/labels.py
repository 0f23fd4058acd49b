"""Which labels count, and averages over labels.

1 and 0 count. Blank (nan) is unknown and -1 uncertain; neither enters a metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

NO_FINDING = "No Finding"
# Shares of positives among the scored images whose label is known.
HEAD, TAIL = 0.10, 0.01


def is_labelled(labels: np.ndarray) -> np.ndarray:
    """Whether a label is present (1) or absent (0), and not unknown or uncertain.

    Args:
        labels: float, of any shape.

    Returns:
        bool, of the same shape.
    """
    return (labels == 0) | (labels == 1)


def known(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the images [N] whose label is 1 or 0: their scores, and whether they are positive, bool [n]."""
    labelled = is_labelled(labels)
    return scores[labelled], labels[labelled] == 1


def labels_of_mean(labels: Sequence[str], mean_over: Sequence[str] | None) -> list[str]:
    """The labels that a mean is over: those of `mean_over`, or all but `No Finding` where it is None.

    The score of `No Finding` is nearly the mirror image of the others', so that it would count them twice.
    """
    return [name for name in labels if (name != NO_FINDING if mean_over is None else name in mean_over)]


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
    for group in ("head", "medium", "tail"):
        members = [name for name, part in both.items() if frequency_group(part) == group]
        if members:
            weights[group] = dict.fromkeys(members, 1.0)
    return weights


def off_diagonal_mean(matrix: np.ndarray) -> float:
    """(sum - trace) / (n (n - 1)) of a square matrix [n, n]; with cosines the trace is n."""
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))
