"""Which labels count: 1 and 0. Blank (nan) is unknown, -1 uncertain; neither enters a figure."""

from __future__ import annotations

import numpy as np

NO_FINDING = "No Finding"


def known(labels: np.ndarray) -> np.ndarray:
    """bool, shaped as `labels`: true at 1 and 0."""
    return (labels == 0) | (labels == 1)


def one_class(positives: int, negatives: int) -> str | None:
    """Why nothing can be said of a label, or None where both classes are present."""
    return None if positives and negatives else f"{positives} positives, {negatives} negatives"
