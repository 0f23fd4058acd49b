"""The metrics, as plain functions of arrays: numpy in, numpy out, no model and no file.

- `ranking`: AUROC and average precision.
- `decisions`: the confusion matrix at a threshold and what follows from it: F1, MCC, sensitivity, specificity, ...
- `probability`: Brier score, expected calibration error, the reliability curve.
- `curves`: points of ROC and precision-recall curves, as few as a picture needs.
- `averages`: macro, weighted and by frequency, over labels.
- `labels`: which labels count, and which labels means are over.
- `label_metrics`: every metric of one label at once, for the images as they are and for many resamples of patients.
"""

from cxrcl.evaluation.metrics.averages import mean_auroc, mean_over_labels, off_diagonal_mean
from cxrcl.evaluation.metrics.decisions import Confusion, decision_metrics
from cxrcl.evaluation.metrics.label_metrics import DECISIONS, ERRORS, METRICS, PROBABILITY, RANKING
from cxrcl.evaluation.metrics.labels import NO_FINDING, is_labelled, labels_of_mean
from cxrcl.evaluation.metrics.probability import reliability
from cxrcl.evaluation.metrics.ranking import auprc, auroc

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
    "mean_over_labels",
    "off_diagonal_mean",
    "reliability",
]
