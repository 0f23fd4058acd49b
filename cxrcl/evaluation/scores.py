"""Per-label scores -> figures: shared by zero-shot, classifier and baseline evaluators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxrcl.evaluation.bootstrap import Patients
from cxrcl.evaluation.known import NO_FINDING, labels_of_mean
from cxrcl.evaluation.scoring import ranked_only, score_films
from cxrcl.types import EvalData


def check_names(asked: Sequence[str] | None, known: Sequence[str], what: str) -> None:
    """Labels named in a setting must exist.

    Raises:
        ValueError: with the names that do.
    """
    unknown = [name for name in asked or () if name not in known]
    if unknown:
        raise ValueError(f"{what}: no label {', '.join(unknown)}; there are {', '.join(known)}")


def labels_against_normal(data: EvalData, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """For the named labels, films labelled `No Finding` serve as the negatives wherever the label is blank.

    For sources that record presence only. Whether the label is truly absent on those films is not known.
    """
    if not names:
        return labels
    labels = labels.copy()
    normal = labels[:, data.labels.index(NO_FINDING)] == 1
    for name in names:
        column = labels[:, data.labels.index(name)]
        column[normal & np.isnan(column)] = 0
    return labels


def label_figures(
    data: EvalData,
    splits: Sequence[str],
    scores: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    mean_over: Sequence[str] | None = None,
    resamples: int = 0,
) -> dict[str, float]:
    """auroc/<label>, auprc/<label>, their means, and patient-level intervals where asked.

    The mean is over `mean_over`, by default over all labels but `No Finding`, whose score is nearly the mirror image
    of the others'. A label with one class only is nan and left out of the mean.

    Args:
        scores, labels: [N, len(names)].
    """
    patients = Patients([patient for split in splits for patient in data.column(split, "patient")], resamples)
    scored = score_films(ranked_only("", names, scores), labels, patients, labels_of_mean(names, mean_over))
    macro = next(average for average in scored.averages if average.name == "macro")
    figures: dict[str, float] = {}
    for metric, prefix in (("auroc", ""), ("auprc", "auprc_")):
        for label in scored.labels:
            figures[f"{metric}/{label.label}"] = _number(label.scores[metric].value)
        figures[f"mean_{metric}"] = _number(macro.scores[metric].value)
        if resamples:
            for label in scored.labels:
                figures[f"{prefix}low/{label.label}"] = _number(label.scores[metric].low)
                figures[f"{prefix}high/{label.label}"] = _number(label.scores[metric].high)
            figures[f"mean_{prefix}low"] = _number(macro.scores[metric].low)
            figures[f"mean_{prefix}high"] = _number(macro.scores[metric].high)
    for label in scored.labels:
        figures[f"positives/{label.label}"] = float(label.positives)
        figures[f"negatives/{label.label}"] = float(label.negatives)
    return figures


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
