"""Models beside people who read the same images: a reader is a point of the ROC plane, a model is a curve."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import sparse

from cxrcl.evaluation.metrics.curves import curves, thinned
from cxrcl.evaluation.metrics.decisions import ratio
from cxrcl.evaluation.metrics.label_metrics import LabelColumn
from cxrcl.evaluation.metrics.labels import is_labelled
from cxrcl.evaluation.metrics.ranking import Ranking
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.comparisons import holm, resamples_for
from cxrcl.evaluation.scores.reader_files import Readings
from cxrcl.evaluation.scores.score_report import AgainstReader, ReaderScores, Score, or_none
from cxrcl.evaluation.scores.scoring import Predicted, ranked_only, score_images
from cxrcl.evaluation.scores.statistics import (
    Counted,
    Drawn,
    Statistic,
    mean_of,
    none,
    over_resamples,
    rounded,
    why_unscored,
)

METRICS = ("sensitivity", "specificity")
MOST = 50  # points of a curve
RULE = (
    "on the images that a reader read and whose label is known: the model's highest sensitivity at a specificity of at "
    "least the reader's, minus the reader's sensitivity, and the same with both rates exchanged; in each resample of "
    "the patients both are found anew; Holm's correction over the readers and labels of one metric; the mean reader is "
    "the mean of the readers' rates and of the differences to each, a family of its own; intervals and p-values are of "
    "these readers and say nothing of others"
)


def score_readers(
    readings: Sequence[Readings], names: Sequence[str], labels: np.ndarray, patients: Patients
) -> list[ReaderScores]:
    """The point of each reader and label, and of the mean reader where a label has several.

    Args:
        names: of the C labels.
        labels: float [N, C] of 1, 0 and anything else for unknown.
        patients: those of the N images.
    """
    found: list[ReaderScores] = []
    rates: dict[str, dict[str, dict[str, Drawn]]] = {name: {metric: {} for metric in METRICS} for name in names}
    for one in readings:
        called = replace(ranked_only(one.reader, names, one.calls), thresholds=np.full(len(names), 0.5))
        scored = score_images(called, _where_read(labels, one.calls), patients, ())
        for k, part in enumerate(scored.labels):
            read = is_labelled(one.calls[:, k])
            if not read.any():
                continue
            measured = scored.by_label[part.label]
            for metric, drawn in rates[part.label].items():
                counted = Counted(measured.fewest_positives, measured.fewest_negatives)
                drawn[one.reader] = Drawn(measured.plain[metric], measured.drawn[metric], counted)
            points = [part.scores[metric] for metric in METRICS]
            found.append(_point(one.reader, part.label, labels[:, k], read, patients, points))
    for k, name in enumerate(names):
        means = {metric: mean_of(drawn, list(drawn)) for metric, drawn in rates[name].items()}
        if len(over := means["sensitivity"][1]) > 1:
            read = np.any([is_labelled(one.calls[:, k]) for one in readings if one.reader in over], axis=0)
            points = [mean.score() for mean, _ in means.values()]
            found.append(_point(mean_reader(len(over)), name, labels[:, k], read, patients, points))
    return found


def mean_reader(count: int) -> str:
    """What the mean of so many readers is called."""
    return f"mean of {count} readers"


def is_mean(reader: str) -> bool:
    """Whether this is what a mean of readers is called."""
    return re.fullmatch(r"mean of \d+ readers", reader) is not None


def against_readers(
    predicted: Predicted, readings: Sequence[Readings], labels: np.ndarray, patients: Patients
) -> list[AgainstReader]:
    """The model at the operating point of each reader and label, and of the mean reader where a label has several.

    Args:
        labels: float [N, C] of 1, 0 and anything else for unknown.
        patients: those of the N images.
    """
    pairs = {
        (one.reader, predicted.labels[k]): (column, one.calls[is_labelled(read[:, k]), k] == 1)
        for one in readings
        for read in [_where_read(labels, one.calls)]
        for k, column in enumerate(predicted.columns(read, patients))
        if is_labelled(one.calls[:, k]).any()
    }
    reasons = {pair: why_unscored(column) for pair, (column, _) in pairs.items()}
    scored = [pair for pair, reason in reasons.items() if not reason]
    statistics = [(_statistic(*pairs[pair], patients.count), pairs[pair][0]) for pair in scored]
    # As many resamples as Holm's correction takes.
    drawn = patients.with_resamples(resamples_for(len(scored), patients.resamples))
    by_pair = dict(zip(scored, over_resamples(statistics, drawn), strict=True))
    found = []
    for k, metric in enumerate(METRICS):
        own = {pair: four[2 + k] for pair, four in by_pair.items()}
        more = {pair: four[2 + k].minus(four[k]) for pair, four in by_pair.items()}
        found += _family(metric, own, more, reasons)
        means: dict[tuple[str, str], list[Drawn]] = {}
        for name in predicted.labels:
            readers = [reader for reader, label in scored if label == name]
            if len(readers) > 1:
                both = [mean_of({r: part[r, name] for r in readers}, readers)[0] for part in (own, more)]
                means[mean_reader(len(readers)), name] = both
        own, more = ({pair: both[place] for pair, both in means.items()} for place in (0, 1))
        found += _family(metric, own, more, dict.fromkeys(means, ""))
    return found


def roc_of_read(
    predicted: Predicted, readings: Sequence[Readings], labels: np.ndarray
) -> dict[str, tuple[list[float | None], list[float | None]]]:
    """Label -> false positive rate and sensitivity of a model on the images that any reader read, as few points."""
    found = {}
    for k, name in enumerate(predicted.labels):
        read = np.any([is_labelled(one.calls[:, k]) for one in readings], axis=0)
        order = predicted.scores if predicted.order is None else predicted.order
        if curve := curves(order[read, k], labels[read, k]):
            x, y = thinned(*curve.roc, MOST)
            found[name] = (rounded(x), rounded(y))
    return found


def _where_read(labels: np.ndarray, calls: np.ndarray) -> np.ndarray:
    return np.where(is_labelled(calls), labels, np.nan)


def _point(
    reader: str, label: str, labels: np.ndarray, read: np.ndarray, patients: Patients, rates: Sequence[Score]
) -> ReaderScores:
    """A reader's sensitivity and specificity with the numbers of images [N] that he read."""
    known = read & is_labelled(labels)
    return ReaderScores(
        reader=reader,
        label=label,
        images=int(known.sum()),
        patients=len(np.unique(patients.index[known])),
        positives=int((labels[known] == 1).sum()),
        negatives=int((labels[known] == 0).sum()),
        unknown=int((read & ~known).sum()),
        sensitivity=rates[0],
        specificity=rates[1],
    )


def _statistic(column: LabelColumn, called: np.ndarray, patients: int) -> Statistic:
    """The sensitivity and specificity of a reader, then the model's sensitivity at his specificity and the reverse.

    Args:
        called: bool [n], the images of the column that the reader calls positive.
    """
    order = column.scores if column.order is None else column.order
    ranking = Ranking(order, column.positive, column.patient_index, patients)
    right = called == column.positive
    places = (np.where(column.positive, 0, 1)[right], column.patient_index[right])
    of_reader = sparse.csr_array((np.ones(int(right.sum())), places), shape=(2, patients))

    def at(counts: np.ndarray) -> np.ndarray:
        points = ranking.roc(counts)
        true_positives, true_negatives = of_reader @ counts
        has_both = (points.positives > 0) & (points.negatives > 0)
        own = [
            ratio(true_positives, np.where(has_both, points.positives, 0)),
            ratio(true_negatives, np.where(has_both, points.negatives, 0)),
        ]
        return np.stack([*own, points.sensitivity(true_negatives), points.specificity(true_positives)])

    return at


def _family(
    metric: str,
    values: Mapping[tuple[str, str], Drawn],
    differences: Mapping[tuple[str, str], Drawn],
    reasons: Mapping[tuple[str, str], str],
) -> list[AgainstReader]:
    """Comparisons whose p-values are corrected together; those without a value too, with the reason."""
    found = []
    for (reader, label), reason in reasons.items():
        if reason:
            found.append(AgainstReader(reader, label, metric, none(reason), none(reason), None, None))
            continue
        value, difference = values[reader, label], differences[reader, label]
        p = or_none(difference.p())
        found.append(AgainstReader(reader, label, metric, value.score(), difference.score(), p, None))
    corrected = holm([float("nan") if one.p is None else one.p for one in found])
    return [replace(one, p_holm=or_none(p)) for one, p in zip(found, corrected, strict=True)]
