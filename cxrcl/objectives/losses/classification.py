"""Losses of classifiers, with labels that may be unknown."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cxrcl.distributed import rows_of_all


def has_label(labels: Tensor) -> Tensor:
    """Labels float [B, C] -> bool [B]: the samples with any label of 0 or 1."""
    return ((labels == 1).sum(dim=1) + (labels == 0).sum(dim=1)) > 0


def has_one_class(labels: Tensor) -> Tensor:
    """Labels float [B, C] -> bool [B]: the samples with exactly one label of 1."""
    return (labels == 1).sum(dim=1) == 1


def multi_label_loss(
    logits: Tensor, labels: Tensor, positive_weights: Tensor | float = 1.0, focal_gamma: float = 0.0
) -> Tensor:
    """Binary cross-entropy of the labels that are known.

    The mean over samples of the mean over their known labels of - w (1 - p)^gamma log p, where p is the probability of
    what is true: cross-entropy with gamma = 0, else the focal loss (Lin et al. 2017, equation 4). Samples without a
    known label are left out, over all processes.

    Args:
        logits: float [b, C], of this process.
        labels: float [b, C]: 1, 0; anything else (nan, -1) is unknown.
        positive_weights: float [C] or a number, w of labels that are 1; it is 1 of labels that are 0.
        focal_gamma: gamma; above 0, what is already right counts less.

    Returns:
        float scalar; 0 where no process has a sample with a known label.

    Raises:
        ValueError: logits and labels of different shapes.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[1.0, torch.nan], [0.0, 1.0]])
        >>> multi_label_loss(torch.zeros(2, 2), labels)
        tensor(0.6931)
    """
    _check_shapes(logits, labels)
    labelled = (labels == 0) | (labels == 1)
    targets = labels.nan_to_num(0.0).clamp(0, 1)
    terms = _focal(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"), focal_gamma)
    weights = torch.where(targets == 1, positive_weights, 1.0)
    by_sample = (terms * weights * labelled).sum(dim=1) / labelled.sum(dim=1).clamp_min(1)
    return _mean_of_used(by_sample, has_label(labels))


def multi_class_loss(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, focal_gamma: float = 0.0
) -> Tensor:
    """Cross-entropy of the one label that is right.

    The mean over samples of - w (1 - p)^gamma log p, where p is the softmax probability of the true class:
    cross-entropy with gamma = 0, else the focal loss (Lin et al. 2017, equation 4). Samples without exactly one label
    of 1 are left out, over all processes.

    Args:
        logits: float [b, C], of this process.
        labels: float [b, C], 1 for the class.
        class_weights: float [C], w of each class; None: 1.
        focal_gamma: gamma; above 0, what is already right counts less.

    Returns:
        float scalar; 0 where no process has a sample with a class.

    Raises:
        ValueError: logits and labels of different shapes.

    Example:
        >>> import torch
        >>> multi_class_loss(torch.zeros(2, 4), torch.eye(4)[:2])  # log 4
        tensor(1.3863)
    """
    _check_shapes(logits, labels)
    classes = (labels == 1).int().argmax(dim=1)
    by_sample = _focal(F.cross_entropy(logits, classes, reduction="none"), focal_gamma)
    if class_weights is not None:
        by_sample = by_sample * class_weights[classes]
    return _mean_of_used(by_sample, has_one_class(labels))


def _check_shapes(logits: Tensor, labels: Tensor) -> None:
    if logits.shape != labels.shape or logits.ndim != 2:
        raise ValueError(f"logits {list(logits.shape)} and labels {list(labels.shape)}: expected the same [B, C]")


def _focal(cross_entropy: Tensor, gamma: float) -> Tensor:
    """- log p -> - (1 - p)^gamma log p, of any shape."""
    if not gamma:
        return cross_entropy
    # expm1 keeps the digits of 1 - p where p is near 1; a power below 1 has an infinite slope at 0.
    wrong = (-torch.expm1(-cross_entropy)).clamp_min(torch.finfo(cross_entropy.dtype).tiny)
    return cross_entropy * wrong**gamma


def _mean_of_used(by_sample: Tensor, used: Tensor) -> Tensor:
    """The mean of [b] over the samples that are used, bool [b], such that its mean over processes is that of them all.

    Processes may use different numbers of samples, so each divides by the share that is used over all of them. In
    training all are, but not in evaluation, nor where the loss is a part of a sum.
    """
    share = rows_of_all(used.to(by_sample.dtype).mean()[None]).mean()
    return (by_sample * used).mean() / share.clamp_min(1 / 2**30)
