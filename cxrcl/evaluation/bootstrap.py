"""Resamples of patients, and intervals from them. Films of one patient are not independent, so patients are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

LEVEL = 0.95


class Patients:
    """The patients of a set of films, and resamples of them with replacement.

    Args:
        ids: [N] of the films.
        resamples: number R of resamples.
        seed: of the draws; equal ids, R and seed give equal draws, so that models can be compared on them.
    """

    def __init__(self, ids: Sequence[str] | np.ndarray, resamples: int, seed: int = 0) -> None:
        found, self.member = np.unique(np.asarray(ids), return_inverse=True)
        self.count, self.resamples, self.seed = len(found), resamples, seed

    def everyone(self) -> np.ndarray:
        """Each patient once: float [P, 1]."""
        return np.ones((self.count, 1))

    def draws(self, at_once: int) -> Iterator[np.ndarray]:
        """How often each patient was drawn, float [P, r] with r <= `at_once`, R columns in all.

        The draws do not depend on `at_once`.
        """
        generator = np.random.default_rng(self.seed)
        for start in range(0, self.resamples, at_once):
            # Counted one resample a row, as bincount writes them; used one patient a row, which sparse products want.
            counts = np.empty((min(at_once, self.resamples - start), self.count))
            for row in counts:
                row[:] = np.bincount(generator.integers(0, self.count, self.count), minlength=self.count)
            yield np.ascontiguousarray(counts.T)


def interval(samples: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of the samples [R] that exist; nan where none does."""
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return float("nan"), float("nan")
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
