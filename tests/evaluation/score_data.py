"""Random scores and labels with everything that is awkward in them."""

from __future__ import annotations

import numpy as np

LABELS = ("No Finding", "Edema", "Fracture", "Only ones", "Nothing known")


def awkward(
    seed: int = 0, count: int = 90, levels: int = 12, per_patient: int = 3
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores [N, 5] in [0, 1] with ties, labels [N, 5] with nan and -1, patients [N] with several images each."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 5)) < 0.35).astype(float)
    scores = np.clip(rng.integers(0, levels, size=(count, 5)) / levels + 0.2 * labels, 0, 1)
    labels[rng.random((count, 5)) < 0.15] = np.nan
    labels[rng.random((count, 5)) < 0.05] = -1
    labels[:, 3] = 1
    labels[:, 4] = np.nan
    return scores, labels, [f"p{k}" for k in rng.integers(0, count // per_patient, size=count)]
