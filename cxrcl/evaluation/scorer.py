"""Base of evaluators that score labels: AUROC and average precision of each label, and their means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from cxrcl.evaluation.evaluator import Evaluator, EvaluatorResult, check_label_names, patients_of
from cxrcl.evaluation.metrics import NO_FINDING, labels_of_mean, mean_auroc
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.score_report import Scores
from cxrcl.evaluation.scores.scoring import ranked_only, score_images
from cxrcl.evaluation.shared_pass import SharedPass
from cxrcl.types import EvalData, Natural


class Scorer(Evaluator):
    """Metrics of label scores.

    `shuffled_auroc` is the mean where each image has the scores of another: about one half, or something is wrong with
    labels or images.

    Args:
        mean_over: labels of the mean; None takes all but `No Finding`.
        resamples: bootstrap resamples of patients, for intervals; 0 gives none.
    """

    selects: ClassVar[str] = "mean_auroc"

    def __init__(
        self,
        data: EvalData,
        splits: Sequence[str] = ("valid",),
        mean_over: Sequence[str] | None = None,
        resamples: Natural = 0,
    ) -> None:
        self.data, self.splits, self.mean_over, self.resamples = data, tuple(splits), mean_over, resamples
        self.score_only(None)

    def score_only(self, labels: Sequence[str] | None, against_normal: Sequence[str] = ()) -> None:
        """Called by constructors.

        Args:
            labels: score these; None scores all.
            against_normal: labels whose negatives are the images labelled `No Finding` wherever they are blank.

        Raises:
            ValueError: the data lack one of them, or `mean_over` names another one.
        """
        self.labels, self.against_normal = tuple(self.data.labels if labels is None else labels), against_normal
        check_label_names(self.labels, self.data.labels, "labels")
        check_label_names(self.mean_over, self.labels, "mean_over")
        needed = (*against_normal, NO_FINDING) if against_normal else ()
        check_label_names(needed, self.data.labels, "against_normal")

    def truth(self, shared: SharedPass, splits: Sequence[str]) -> np.ndarray:
        """Scored labels of the images of the splits, float32 [N, C], those of `against_normal` filled."""
        labels = labels_against_normal(shared.labels(splits).numpy(), self.data.labels, self.against_normal)
        return labels[:, [self.data.labels.index(name) for name in self.labels]]

    def score(self, shared: SharedPass, splits: Sequence[str]) -> Scores:
        """Scores of the images of splits that were requested, in their order."""
        raise TypeError(f"{type(self).__name__} does not define score()")

    def run(self, shared: SharedPass) -> EvaluatorResult:
        scores = replace(self.score(shared, self.splits), mean_over=self.mean_over)
        patients = patients_of(self.data, self.splits, self.resamples)
        shuffled = scores.scores[np.random.default_rng(0).permutation(len(scores.scores))]
        return EvaluatorResult(
            metrics={
                **label_metrics(scores, patients),
                "shuffled_auroc": mean_auroc(shuffled, scores.labels, scores.names, self.mean_over),
            },
            scores=scores,
            held_out=self.score(shared, shared.held_out) if shared.held_out else None,
        )


def label_metrics(scores: Scores, patients: Patients) -> dict[str, float]:
    """auroc/<label>, auprc/<label>, their means, and intervals (see `scores.intervals`) where there are resamples.

    Intervals are auroc_low/<label>, auroc_high/<label>, mean_auroc_low, mean_auroc_high, and likewise of AUPRC; nan
    where there are too few patients. Beside them are mean_positives and mean_negatives, the images of the class in the
    label of the mean that has fewest. A label with one class only is nan and left out of the mean.

    Args:
        patients: those of the N images.
    """
    in_mean = labels_of_mean(scores.names, scores.mean_over)
    scored = score_images(ranked_only("", scores.names, scores.scores), scores.labels, patients, in_mean)
    macro = next(average for average in scored.averages if average.name == "macro")
    metrics: dict[str, float] = {}
    for metric in ("auroc", "auprc"):
        for label in scored.labels:
            metrics[f"{metric}/{label.label}"] = _or_nan(label.scores[metric].value)
        metrics[f"mean_{metric}"] = _or_nan(macro.scores[metric].value)
        if patients.resamples:
            for label in scored.labels:
                metrics[f"{metric}_low/{label.label}"] = _or_nan(label.scores[metric].low)
                metrics[f"{metric}_high/{label.label}"] = _or_nan(label.scores[metric].high)
            metrics[f"mean_{metric}_low"] = _or_nan(macro.scores[metric].low)
            metrics[f"mean_{metric}_high"] = _or_nan(macro.scores[metric].high)
    averaged = [label for label in scored.labels if label.label in macro.over["auroc"]]
    if patients.resamples and averaged:
        metrics["mean_positives"] = float(min(label.positives for label in averaged))
        metrics["mean_negatives"] = float(min(label.negatives for label in averaged))
    for label in scored.labels:
        metrics[f"positives/{label.label}"] = float(label.positives)
        metrics[f"negatives/{label.label}"] = float(label.negatives)
    return metrics


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def labels_against_normal(labels: np.ndarray, names: Sequence[str], against_normal: Sequence[str]) -> np.ndarray:
    """Labels in which images labelled `No Finding` are negatives of some labels wherever these are blank.

    For sources that record presence only. Whether the label is truly absent on those images is not known.

    Args:
        labels: float [N, C], not changed.
        names: of the C labels.
        against_normal: the labels to fill.

    Returns:
        float [N, C].
    """
    if not against_normal:
        return labels
    labels = labels.copy()
    normal = labels[:, names.index(NO_FINDING)] == 1
    for name in against_normal:
        column = labels[:, names.index(name)]
        column[normal & np.isnan(column)] = 0
    return labels
