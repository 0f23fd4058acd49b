"""Which labels count: 1 and 0. Blank (nan) is unknown and -1 uncertain; neither enters a metric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NO_FINDING = "No Finding"


def is_labelled(labels: np.ndarray) -> np.ndarray:
    """Whether a label is present (1) or absent (0), and not unknown or uncertain.

    Args:
        labels: float, of any shape.

    Returns:
        bool, of the same shape.
    """
    return (labels == 0) | (labels == 1)


def labels_of_mean(labels: Sequence[str], mean_over: Sequence[str] | None) -> list[str]:
    """The labels that a mean is over: those of `mean_over`, or all but `No Finding` where it is None.

    The score of `No Finding` is nearly the mirror image of the others', so that it would count them twice.
    """
    return [name for name in labels if (name != NO_FINDING if mean_over is None else name in mean_over)]


def missing_class(positives: int, negatives: int) -> str | None:
    """The reason why a label has no metrics, "12 positives, 0 negatives"; None where both classes are present."""
    return None if positives and negatives else f"{positives} positives, {negatives} negatives"
