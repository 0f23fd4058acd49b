"""The metrics, as plain functions of arrays: numpy in, numpy out, no model and no file.

- `labels`: which labels count, and averages over labels: macro, weighted and by frequency.
- `ranking`: AUROC and average precision; `delong`: the variance of AUROC, with patients as clusters.
- `decisions`: the confusion matrix at a threshold and what follows from it: F1, MCC, sensitivity, specificity, ...
- `curves`: ROC, precision-recall and reliability.
- `label_metrics`: every metric of one label at once, for the images as they are and for many resamples of patients.
"""

from cxrcl.evaluation.metrics.curves import reliability
from cxrcl.evaluation.metrics.decisions import Confusion, decision_metrics
from cxrcl.evaluation.metrics.label_metrics import DECISIONS, ERRORS, METRICS, PROBABILITY, RANKING
from cxrcl.evaluation.metrics.labels import NO_FINDING, is_labelled, labels_of_mean, off_diagonal_mean
from cxrcl.evaluation.metrics.ranking import auprc, auroc, mean_auroc

__all__ = [
    "DECISIONS",
    "ERRORS",
    "METRICS",
    "NO_FINDING",
    "PROBABILITY",
    "RANKING",
    "Confusion",
    "auprc",
    "auroc",
    "decision_metrics",
    "is_labelled",
    "labels_of_mean",
    "mean_auroc",
    "off_diagonal_mean",
    "reliability",
]
