"""Every figure of one label's films, as it is and in resamples of the patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from cxrcl.evaluation.bootstrap import Patients
from cxrcl.evaluation.calibration import BINS, bin_of
from cxrcl.evaluation.counts import Confusion, decisions, ratio
from cxrcl.evaluation.ranking import Ranking

RANKING = ("auroc", "auprc")
DECISIONS = ("f1", "accuracy", "mcc", "sensitivity", "specificity", "ppv", "npv")
PROBABILITY = ("brier", "ece")
METRICS = (*RANKING, *DECISIONS, *PROBABILITY, "mse")
ERRORS = ("brier", "ece", "mse")  # the lower the better

# Rows of the sums over films.
_TOTAL, _BRIER, _MSE, _CELLS, _BINS = 0, 1, 2, 3, 7


@dataclass(frozen=True)
class Films:
    """Films whose label is known, of one label, or of several one after another.

    Attributes:
        scores: float [n].
        positive: bool [n].
        member: int [n], the patient of each.
        probabilities: float [n] in [0, 1], or None.
        predicted: bool [n], or None without a threshold.
        order: float [n], what the films are ranked by; None: by `scores`.
    """

    scores: np.ndarray
    positive: np.ndarray
    member: np.ndarray
    probabilities: np.ndarray | None = None
    predicted: np.ndarray | None = None
    order: np.ndarray | None = None


def pooled(parts: Sequence[Films]) -> Films:
    """The films of several labels, for micro averages: without the columns that one of them lacks."""

    def join(name: str) -> np.ndarray | None:
        columns = [getattr(part, name) for part in parts]
        return None if not columns or any(column is None for column in columns) else np.concatenate(columns)

    empty = np.zeros(0)
    scores, positive, member = (join(name) for name in ("scores", "positive", "member"))
    return Films(
        empty if scores is None else scores,
        empty.astype(bool) if positive is None else positive,
        empty.astype(int) if member is None else member,
        join("probabilities"),
        join("predicted"),
        join("order"),
    )


class Column:
    """Figures that follow from weighted sums over `films`; a resample of patients is a weighting."""

    def __init__(self, films: Films, patients: int) -> None:
        self.films = films
        self.is_valid = not np.isnan(films.scores).any()
        order = films.scores if films.order is None else films.order
        self.ranking = Ranking(order, films.positive, films.member, patients) if self.is_valid else None
        self.sums = _sums(films, patients)

    @property
    def size(self) -> int:
        """Numbers held for each resample."""
        return 4 * self.ranking.size + 1 if self.ranking else 1

    def confusion(self) -> Confusion | None:
        """Numbers of films, or None without a threshold."""
        if self.films.predicted is None:
            return None
        return Confusion(*self.sums[_CELLS:_BINS].sum(axis=1))

    def at(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Metric -> [R] for counts [P, R]; nan where a figure has no meaning or one class only was drawn."""
        if self.ranking is None:
            return {}
        found = dict(zip(RANKING, self.ranking.at(counts), strict=True))
        sums = self.sums @ counts
        total = sums[_TOTAL]
        found["mse"] = ratio(sums[_MSE], total)
        if self.films.probabilities is not None:
            found["brier"] = ratio(sums[_BRIER], total)
            found["ece"] = ratio(np.abs(sums[_BINS:]).sum(axis=0), total)
        if self.films.predicted is not None:
            found |= decisions(Confusion(*sums[_CELLS:_BINS]))
        one_class = np.isnan(found["auroc"])
        return {name: np.where(one_class, np.nan, values) for name, values in found.items()}


def _sums(films: Films, patients: int) -> sparse.csr_array:
    """[rows, P]: what the films of each patient add to each sum."""
    count = len(films.scores)
    rows = [np.full(count, _TOTAL), np.full(count, _MSE)]
    values = [np.ones(count), (films.scores - films.positive) ** 2]
    if films.probabilities is not None:
        errors = films.probabilities - films.positive
        rows += [np.full(count, _BRIER), _BINS + bin_of(films.probabilities)]
        values += [errors**2, errors]
    if films.predicted is not None:
        # The order of Confusion: tp, fp, fn, tn.
        rows.append(_CELLS + np.where(films.predicted, np.where(films.positive, 0, 1), np.where(films.positive, 2, 3)))
        values.append(np.ones(count))
    places = (np.concatenate(rows), np.tile(films.member, len(rows)))
    return sparse.csr_array((np.concatenate(values), places), shape=(_BINS + BINS, patients))


def figures(columns: Sequence[Column], patients: Patients) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Metric -> [C] of the films as they are, and [R, C] of the resamples; nan where undefined.

    Of `ece` there are no resamples: drawing twice adds noise to each bin, and their ECE lies above that of the films.
    """

    def together(counts: np.ndarray) -> dict[str, np.ndarray]:
        found = [column.at(counts) for column in columns]
        nothing = np.full(counts.shape[1], np.nan)
        return {
            name: np.stack([values.get(name, nothing) for values in found], axis=1)
            if found
            else np.empty((counts.shape[1], 0))
            for name in METRICS
        }

    plain = {name: values[0] for name, values in together(patients.everyone()).items()}
    # Small enough for the processor's cache, where the sums over intervals of scores run twice as fast.
    at_once = int(np.clip(2**20 // max([1, *(column.size for column in columns)]), 16, 256))
    parts = [together(counts) for counts in patients.draws(at_once)]
    empty = np.empty((0, len(columns)))
    drawn = {name: np.concatenate([empty, *(part[name] for part in parts)]) for name in METRICS}
    return plain, {**drawn, "ece": np.full_like(drawn["ece"], np.nan)}
