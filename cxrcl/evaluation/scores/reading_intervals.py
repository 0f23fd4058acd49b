"""Intervals of mean AUROCs of several readings of the same images, such as prompt families, without resamples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cxrcl.evaluation.metrics import labels_of_mean, mean_auroc
from cxrcl.evaluation.metrics.clusters import Deviations
from cxrcl.evaluation.metrics.delong import area
from cxrcl.evaluation.metrics.labels import is_labelled
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.intervals import Interval
from cxrcl.evaluation.scores.scoring import OF_LABEL, OF_MEAN, Measured


class Reading(NamedTuple):
    """Scores float [N, C] of the C labels `names`, and their truth, float [N, C] of 1, 0 and anything else."""

    names: Sequence[str]
    scores: np.ndarray
    labels: np.ndarray

    def mean_auroc(self, mean_over: Sequence[str] | None) -> float:
        """The mean AUROC over labels, see `metrics.mean_auroc`."""
        return mean_auroc(self.scores, self.labels, self.names, mean_over)


def mean_interval(readings: Sequence[Reading], mean_over: Sequence[str] | None, patients: Patients) -> Interval:
    """The interval of the mean over readings of their mean AUROC over labels (`metrics.mean_auroc`).

    That of one reading is the interval of the macro AUROC in every other table; of several, it knows how these vary
    together, for all are of the same images. nan where a label has too few patients.

    Args:
        patients: those of the N images.
    """
    by_reading = [_areas(reading, mean_over, patients) for reading in readings]
    terms = {}
    for name in dict.fromkeys(name for areas in by_reading for name in areas):
        # A label weighs 1 / C in a reading of C labels; what its patients add in all readings is added up first.
        shares = [1 / len(areas) for areas in by_reading if name in areas]
        terms[name] = (_mean([areas[name] for areas in by_reading if name in areas], shares), sum(shares))
    measured = Measured(
        plain={"auroc": sum(found.value * share for found, share in terms.values()) if terms else float("nan")},
        drawn={"auroc": np.empty(0)},
        reasons={},
        terms={"auroc": terms},
        positives={name: found.counts[0] for name, (found, _) in terms.items()},
        negatives={name: found.counts[1] for name, (found, _) in terms.items()},
        fewest=OF_MEAN if len(terms) > 1 else OF_LABEL,
    )
    score = measured.scores(patients.resamples)["auroc"]
    low, high = (float("nan") if bound is None else bound for bound in (score.low, score.high))
    return Interval(low, high, score.method or "")


def _mean(areas: Sequence[Deviations], weights: Sequence[float]) -> Deviations:
    """The weighted mean of AUROCs of one label in several readings."""
    return replace(
        areas[0],
        value=float(np.average([each.value for each in areas], weights=weights)),
        parts=tuple(np.average([each.parts for each in areas], axis=0, weights=weights)),
    )


def _areas(reading: Reading, mean_over: Sequence[str] | None, patients: Patients) -> dict[str, Deviations]:
    """The AUROCs of the labels of the mean that have both classes."""
    found = {}
    for k, name in enumerate(reading.names):
        known = is_labelled(reading.labels[:, k])
        scores, positive = reading.scores[known, k], reading.labels[known, k] == 1
        has_both = positive.any() and not positive.all() and not np.isnan(scores).any()
        if has_both and name in labels_of_mean(reading.names, mean_over):
            found[name] = area(scores, positive, patients.index[known], patients.count)
    return found
