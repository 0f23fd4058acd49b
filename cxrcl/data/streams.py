"""Random numbers that belong to a sample, whichever process draws them."""

from __future__ import annotations

import numpy as np

# What a stream is for.
# The numbers are part of every draw: another order would give other samples for the same seed.
VIEWS, IMAGE, TEXT, ORDER, STAND_IN = range(5)


def stream(seed: int, *key: int) -> np.random.Generator:
    """A generator of the random numbers that belong to a key: the same whoever draws, and whenever."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *key])))
