"""Every metric of one label at once, for the images as they are and for resamples of the patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from scipy import sparse

from cxrcl.evaluation.metrics import delong
from cxrcl.evaluation.metrics.clusters import Deviations
from cxrcl.evaluation.metrics.curves import BINS, bin_of
from cxrcl.evaluation.metrics.decisions import SHARES, Confusion, decision_metrics, ratio
from cxrcl.evaluation.metrics.ranking import Ranking

RANKING = ("auroc", "auprc")
DECISIONS = ("f1", "accuracy", "mcc", "sensitivity", "specificity", "ppv", "npv")
PROBABILITY = ("brier", "ece")
METRICS = (*RANKING, *DECISIONS, *PROBABILITY, "mse")
ERRORS = ("brier", "ece", "mse")  # the lower the better


@dataclass(frozen=True)
class LabelColumn:
    """The images on which one label is known, or those of several labels one after another.

    Attributes:
        scores: float [n].
        positive: bool [n].
        patient_index: int [n], the patient of each image, 0 .. P - 1.
        probabilities: float [n] in [0, 1], or None.
        predicted: bool [n], whether the image is called positive; None without a threshold.
        order: float [n], what the images are ranked by; None: by `scores`.
    """

    scores: np.ndarray
    positive: np.ndarray
    patient_index: np.ndarray
    probabilities: np.ndarray | None = None
    predicted: np.ndarray | None = None
    order: np.ndarray | None = None


def pooled(columns: Sequence[LabelColumn]) -> LabelColumn:
    """The images of several labels one after another, for micro averages; without arrays that one of them lacks."""
    if not columns:
        return LabelColumn(np.zeros(0), np.zeros(0, bool), np.zeros(0, int))
    arrays = {field.name: [getattr(column, field.name) for column in columns] for field in fields(LabelColumn)}
    complete = {name: parts for name, parts in arrays.items() if not any(part is None for part in parts)}
    return LabelColumn(**{name: np.concatenate(parts) for name, parts in complete.items()})


class _Row(IntEnum):
    """Rows of the matrix of sums over images: what each patient adds to the sums that the metrics follow from."""

    IMAGES = 0
    SQUARED_ERRORS_OF_PROBABILITIES = 1
    SQUARED_ERRORS_OF_SCORES = 2
    CONFUSION = 3  # and the next three: TP, FP, FN, TN, the order of `Confusion`
    GAPS = 7  # and the rest, one for each bin: sums of probability - label


class LabelMetrics:
    """Metrics of one label that follow from weighted sums over its images; a resample of patients is a weighting.

    Args:
        column: the images.
        patients: number P of patients, of all images.
    """

    def __init__(self, column: LabelColumn, patients: int) -> None:
        self.column, self.patients = column, patients
        self.is_valid = not np.isnan(column.scores).any()
        order = column.scores if column.order is None else column.order
        self.ranking = Ranking(order, column.positive, column.patient_index, patients) if self.is_valid else None
        self.sums = _sums(column, patients)

    @property
    def numbers_per_resample(self) -> int:
        """How many numbers `at` holds in memory for each resample."""
        return 4 * self.ranking.levels + 1 if self.ranking else 1

    def confusion(self) -> Confusion | None:
        """Numbers of images by decision and label, scalars; None without a threshold."""
        if self.column.predicted is None:
            return None
        return Confusion(*self.sums[_Row.CONFUSION : _Row.GAPS].sum(axis=1))

    def with_class(self) -> tuple[int, int]:
        """Numbers of patients with positive images, and with negative ones."""
        positive, patients = self.column.positive, self.column.patient_index
        return len(np.unique(patients[positive])), len(np.unique(patients[~positive]))

    def deviations(self) -> dict[str, Deviations]:
        """What each patient adds to the error of the metrics that have a variance: AUROC, AUPRC and shares of images.

        Of those that exist; none where there is one class only.
        """
        positive_patients, negative_patients = self.with_class()
        if self.ranking is None or not (positive_patients and negative_patients):
            return {}
        column = self.column
        order = column.scores if column.order is None else column.order
        precision, of_patients = self.ranking.deviations()
        everyone = len(np.unique(column.patient_index))
        found = {
            "auroc": delong.area(order, column.positive, column.patient_index, self.patients),
            "auprc": Deviations(precision, (of_patients,), (positive_patients,), everyone),
        }
        cells = self.sums[_Row.CONFUSION : _Row.GAPS].toarray()
        for name, (above, below) in SHARES.items():
            part, whole = np.array(above) @ cells, np.array(below) @ cells
            if whole.any():
                share = part.sum() / whole.sum()
                counted = (int((whole > 0).sum()),)
                found[name] = Deviations(float(share), ((part - share * whole) / whole.sum(),), counted, everyone)
        return found

    def at(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics of R resamples.

        Args:
            counts: float [P, R], how often each patient was drawn.

        Returns:
            metric -> float [R]; nan where it is undefined or one class only was drawn.
        """
        if self.ranking is None:
            return {}
        metrics = dict(zip(RANKING, self.ranking.at(counts), strict=True))
        sums = self.sums @ counts
        images = sums[_Row.IMAGES]
        metrics["mse"] = ratio(sums[_Row.SQUARED_ERRORS_OF_SCORES], images)
        if self.column.probabilities is not None:
            # Brier (1950): 1/n * sum over images of (p_i - y_i)^2.
            metrics["brier"] = ratio(sums[_Row.SQUARED_ERRORS_OF_PROBABILITIES], images)
            # Expected calibration error (Guo et al. 2017, equation 3, with the probability of the label as confidence):
            # sum over bins b of n_b / n * |mean probability - share of positives| = 1/n * sum over b of |gap_b|, where
            # gap_b is the sum over the images of the bin of p_i - y_i.
            metrics["ece"] = ratio(np.abs(sums[_Row.GAPS :]).sum(axis=0), images)
        if self.column.predicted is not None:
            metrics |= decision_metrics(Confusion(*sums[_Row.CONFUSION : _Row.GAPS]))
        has_one_class = np.isnan(metrics["auroc"])
        return {name: np.where(has_one_class, np.nan, values) for name, values in metrics.items()}


def _sums(column: LabelColumn, patients: int) -> sparse.csr_array:
    """What the images of each patient add to each sum: [GAPS + BINS, P], rows as `_Row`."""
    count = len(column.scores)
    rows = [np.full(count, _Row.IMAGES), np.full(count, _Row.SQUARED_ERRORS_OF_SCORES)]
    values = [np.ones(count), (column.scores - column.positive) ** 2]
    if column.probabilities is not None:
        errors = column.probabilities - column.positive
        rows += [np.full(count, _Row.SQUARED_ERRORS_OF_PROBABILITIES), _Row.GAPS + bin_of(column.probabilities)]
        values += [errors**2, errors]
    if column.predicted is not None:
        cell = np.where(column.predicted, np.where(column.positive, 0, 1), np.where(column.positive, 2, 3))
        rows.append(_Row.CONFUSION + cell)
        values.append(np.ones(count))
    places = (np.concatenate(rows), np.tile(column.patient_index, len(rows)))
    return sparse.csr_array((np.concatenate(values), places), shape=(_Row.GAPS + BINS, patients))
