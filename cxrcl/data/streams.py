"""Random numbers that belong to a sample, whoever draws them."""

from __future__ import annotations

import numpy as np

# What a stream is for.
VIEWS, IMAGE, TEXT, ORDER, STAND_IN = range(5)


def stream(seed: int, *key: int) -> np.random.Generator:
    """The random numbers that belong to a key."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *key])))
