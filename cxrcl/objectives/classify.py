"""Classification: linear probing and fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.errors import ConfigError
from cxrcl.objectives.towers import ImageTower, see
from cxrcl.types import Batch, ImageEncoder, StepOutput

LabelCounts = Mapping[str, tuple[int, int]]  # negatives and positives of each label in the training data


class Classify(ImageTower):
    """Cross-entropy of known labels; unknown ones (nan, and -1 under the policy `keep`) have no part.

    The loss is a mean over samples of the mean over their known labels (multi_label), or of the cross-entropy of those
    that have exactly one positive label (multi_class).

    Args:
        image_encoder: the tower.
        labels: label names, one logit each.
        label_counts: negatives and positives of the training data; None when a checkpoint is read.
        task: `multi_label`: each label is a question of its own; `multi_class`: exactly one of the labels is right.
        class_weights: factors by label name (of positives in multi_label, of the class in multi_class; 1 where none is
            given), or `balanced`: negatives / positives, or samples / (classes x samples of the class).
        focal_gamma: 0 is cross-entropy; above, what is already right counts less (Lin et al. 2017, equation 4).
        freeze_encoder: train the last layer only, the tower in evaluation mode (a linear probe).
    """

    num_views: ClassVar[int] = 1
    num_texts: ClassVar[int] = 0
    per_sample: ClassVar[bool] = True

    def __init__(
        self,
        image_encoder: ImageEncoder,
        labels: Sequence[str],
        label_counts: LabelCounts | None = None,
        task: Literal["multi_label", "multi_class"] = "multi_label",
        class_weights: Mapping[str, float] | Literal["balanced"] | None = None,
        focal_gamma: float = 0.0,
        freeze_encoder: bool = False,
    ) -> None:
        super().__init__(image_encoder)
        if not labels:
            raise ValueError("the data has no label column: a classifier needs one at least")
        if task == "multi_class" and len(labels) < 2:
            raise ValueError(f"task=multi_class: {labels[0]} is the only label; choose more with data.labels=[...]")
        if not focal_gamma >= 0:
            raise ValueError(f"focal_gamma={focal_gamma}: expected 0 (none) or more, such as 2")
        self.labels = tuple(labels)
        self.multi_class = task == "multi_class"
        self.focal_gamma = focal_gamma
        self.freeze_encoder = freeze_encoder
        self.classifier = nn.Linear(image_encoder.dim, len(self.labels))
        self.plain = class_weights is None and not focal_gamma
        weights = self._weights(class_weights, label_counts)
        self.class_weights: Tensor | None
        # Not part of a checkpoint: other weights must not travel with init_from.
        self.register_buffer("class_weights", weights, persistent=False)
        if freeze_encoder:
            image_encoder.requires_grad_(False)

    def _weights(self, given: Mapping[str, float] | str | None, counts: LabelCounts | None) -> Tensor | None:
        """float32 [C], or None: balanced weights of data that are not at hand."""
        if isinstance(given, Mapping):
            if strange := [name for name in given if name not in self.labels]:
                raise ValueError(f"class_weights: no label {', '.join(strange)} (labels: {', '.join(self.labels)})")
            if wrong := [f"{name}: {value}" for name, value in given.items() if not value > 0]:
                raise ValueError(f"class_weights={{{', '.join(wrong)}}}: expected numbers above 0")
            return torch.tensor([float(given.get(name, 1.0)) for name in self.labels])
        if given is None:
            return torch.ones(len(self.labels))
        if counts is None:
            return None
        for what, column in (("positive", 1),) if self.multi_class else (("negative", 0), ("positive", 1)):
            if absent := [name for name in self.labels if not counts[name][column]]:
                raise ValueError(f"class_weights=balanced: the training data have no {what} of {', '.join(absent)}")
        positives = torch.tensor([counts[name][1] for name in self.labels], dtype=torch.float32)
        if self.multi_class:
            return positives.sum() / (len(self.labels) * positives)
        return torch.tensor([counts[name][0] for name in self.labels], dtype=torch.float32) / positives

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        if self.freeze_encoder:
            self.image_encoder.eval()
        return self

    def classify(self, images: Tensor) -> Tensor:
        """float32 [B, 3, S, S] -> log-odds float32 [B, C]: their sigmoid is the probability, in both tasks."""
        logits = self.classifier(self.image_encoder(images).pooled).float()
        if not self.multi_class:
            return logits
        others = logits[:, None].masked_fill(
            torch.eye(len(self.labels), dtype=torch.bool, device=logits.device), -torch.inf
        )
        return logits - others.logsumexp(dim=2)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            pooled = see(self.image_encoder, batch, self.num_views).pooled
        return {"logits": self.classifier(pooled)}

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        return {"labels": batch.labels}

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        weights = self.class_weights
        if weights is None:
            raise ConfigError(
                "class_weights=balanced: known while training only, so that a checkpoint has no loss; leave out the "
                "evaluator `loss`"
            )
        each = self._of_classes if self.multi_class else self._of_labels
        loss = each(embeddings["logits"], targets["labels"], weights).mean()
        return StepOutput(loss, {"loss": loss.detach()}, {})

    def _of_labels(self, logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
        """[B, C], [B, C] and [C] -> [B]."""
        known = (labels == 0) | (labels == 1)
        truth = labels.nan_to_num(0.0).clamp(0, 1)
        each = focal(F.binary_cross_entropy_with_logits(logits, truth, reduction="none"), self.focal_gamma)
        weights = torch.where(truth == 1, class_weights, 1.0)
        return (each * weights * known).sum(dim=1) / known.sum(dim=1).clamp_min(1)

    def _of_classes(self, logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
        positive = labels == 1
        known = positive.sum(dim=1) == 1
        truth = positive.int().argmax(dim=1)
        each = focal(F.cross_entropy(logits, truth, reduction="none"), self.focal_gamma)
        return each * class_weights[truth] * known

    def chance(self, global_batch: int) -> float | None:
        return math.log(len(self.labels)) if self.multi_class and self.plain else None


def focal(cross_entropy: Tensor, gamma: float) -> Tensor:
    """- (1 - p)^gamma log p, where p is the probability of the truth and - log p is given."""
    if not gamma:
        return cross_entropy
    # Of a power below 1 the slope at 0 is infinite; expm1 keeps the digits of small numbers.
    wrong = (-torch.expm1(-cross_entropy)).clamp_min(torch.finfo(cross_entropy.dtype).tiny)
    return cross_entropy * wrong**gamma
