"""Per-label scores -> figures: shared by zero-shot, classifier and baseline evaluators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxrcl.evaluation.metrics import auroc, bootstrap_auroc, interval, mean_of_known
from cxrcl.types import EvalData

NO_FINDING = "No Finding"


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


def auroc_figures(
    data: EvalData,
    splits: Sequence[str],
    scores: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    mean_over: Sequence[str] | None = None,
    resamples: int = 0,
) -> dict[str, float]:
    """mean_auroc and auroc/<label>, with patient-level intervals where asked.

    The mean is over `mean_over`, by default over all labels but `No Finding`, whose score is nearly the mirror image
    of the others'. A label with one class only is nan and left out of the mean.

    Args:
        scores, labels: [N, len(names)].
    """
    figures = {f"auroc/{name}": auroc(scores[:, k], labels[:, k]) for k, name in enumerate(names)}
    chosen = [name for name in names if (name in mean_over if mean_over is not None else name != NO_FINDING)]
    known = [name for name in chosen if figures[f"auroc/{name}"] == figures[f"auroc/{name}"]]
    figures["mean_auroc"] = mean_of_known([figures[f"auroc/{name}"] for name in known])
    for k, name in enumerate(names):
        figures[f"positives/{name}"] = float((labels[:, k] == 1).sum())
        figures[f"negatives/{name}"] = float((labels[:, k] == 0).sum())
    if resamples:
        patients = [patient for split in splits for patient in data.column(split, "patient")]
        drawn = bootstrap_auroc(scores, labels, patients, resamples)
        for k, name in enumerate(names):
            figures[f"low/{name}"], figures[f"high/{name}"] = interval(drawn[:, k])
        columns = [names.index(name) for name in known]
        means = drawn[:, columns].mean(axis=1) if known else np.full(len(drawn), np.nan)
        figures["mean_low"], figures["mean_high"] = interval(means)
    return figures
