"""Resamples of patients, and the metrics in them. Images of one patient are not independent: patients are drawn."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cxrcl.evaluation.metrics.label_metrics import METRICS, LabelMetrics


class Patients:
    """The patients of a set of images, and resamples of them with replacement (Efron 1979).

    Args:
        ids: [N], the patient of each image.
        resamples: number R of resamples.
        seed: of the draws; equal ids, R and seed give equal draws, so that models can be compared on them.

    Attributes:
        index: int [N], the number of each image's patient, 0 .. P - 1.
        count: the number P of patients.
    """

    def __init__(self, ids: Sequence[str] | np.ndarray, resamples: int, seed: int = 0) -> None:
        distinct, self.index = np.unique(np.asarray(ids), return_inverse=True)
        self.count, self.resamples, self.seed = len(distinct), resamples, seed

    def with_resamples(self, resamples: int) -> Patients:
        """The same patients, drawn so often; the first draws are the same."""
        more = copy.copy(self)
        more.resamples = resamples
        return more

    def everyone(self) -> np.ndarray:
        """Counts for the images as they are, every patient once: float [P, 1]."""
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


def resampled(
    labels: Sequence[LabelMetrics], patients: Patients
) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """The metrics of C > 0 labels, for the images as they are and in every resample of their patients.

    `ece` is nan in the resamples: drawing twice adds noise to each bin, so that their ECE lies above that of the
    images.

    Returns:
        metric -> float [C] and metric -> float [R, C]; nan where undefined.
    """

    def stacked(counts: np.ndarray) -> dict[str, np.ndarray]:
        by_label = [label.at(counts) for label in labels]
        undefined = np.full(counts.shape[1], np.nan)
        return {name: np.stack([metrics.get(name, undefined) for metrics in by_label], axis=1) for name in METRICS}

    plain = {name: values[0] for name, values in stacked(patients.everyone()).items()}
    # 2^20 doubles are 8 MB, what a processor's cache holds, where the sums over intervals of scores run twice as fast.
    # Fewer than 16 resamples at a time waste the sparse products, more than 256 gain nothing.
    at_once = int(np.clip(2**20 // max(label.numbers_per_resample for label in labels), 16, 256))
    parts = [stacked(counts) for counts in patients.draws(at_once)]
    empty = np.empty((0, len(labels)))
    drawn = {name: np.concatenate([empty, *(part[name] for part in parts)]) for name in METRICS}
    return plain, {**drawn, "ece": np.full_like(drawn["ece"], np.nan)}
