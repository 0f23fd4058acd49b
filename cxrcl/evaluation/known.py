"""Which labels count: 1 and 0. Blank (nan) is unknown, -1 uncertain; neither enters a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NO_FINDING = "No Finding"


def known(labels: np.ndarray) -> np.ndarray:
    """bool, shaped as `labels`: true at 1 and 0."""
    return (labels == 0) | (labels == 1)


def labels_of_mean(labels: Sequence[str], mean_over: Sequence[str] | None) -> list[str]:
    """Those of `mean_over`; None takes all but `No Finding`, whose score is nearly the mirror image of the others'."""
    return [name for name in labels if (name != NO_FINDING if mean_over is None else name in mean_over)]


def one_class(positives: int, negatives: int) -> str | None:
    """Why nothing can be said of a label, or None where both classes are present."""
    return None if positives and negatives else f"{positives} positives, {negatives} negatives"
