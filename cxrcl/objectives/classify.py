"""Multi-label classification: linear probing and fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.types import Batch, ImageEncoder, Objective, StepOutput


class Classify(Objective):
    """Binary cross-entropy of each known label; unknown ones (nan, and -1 under the policy `keep`) have no part.

    Args:
        image_encoder: the tower.
        labels: label names, one logit each.
        freeze_encoder: train the last layer only, the tower in evaluation mode (a linear probe).
    """

    num_views: ClassVar[int] = 1
    num_texts: ClassVar[int] = 0
    per_sample: ClassVar[bool] = True

    def __init__(self, image_encoder: ImageEncoder, labels: Sequence[str], freeze_encoder: bool = False) -> None:
        super().__init__()
        if not labels:
            raise ValueError("the data has no label column: a classifier needs one at least")
        self.image_encoder = image_encoder
        self.labels = tuple(labels)
        self.freeze_encoder = freeze_encoder
        self.classifier = nn.Linear(image_encoder.dim, len(self.labels))
        if freeze_encoder:
            image_encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        if self.freeze_encoder:
            self.image_encoder.eval()
        return self

    def classify(self, images: Tensor) -> Tensor:
        """float32 [B, 3, S, S] -> logits float32 [B, C]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            pooled = self.image_encoder(images).pooled
        return self.classifier(pooled).float()

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.images is not None
        return {"logits": self.classify(batch.images[:, 0])}

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        return {"labels": batch.labels}

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        logits, labels = embeddings["logits"], targets["labels"]
        known = (labels == 0) | (labels == 1)
        each = F.binary_cross_entropy_with_logits(logits, labels.clamp(0, 1).nan_to_num(0.0), reduction="none")
        # A mean over the samples of means over their known labels: a sum over samples, so gradients accumulate.
        loss = ((each * known).sum(dim=1) / known.sum(dim=1).clamp_min(1)).mean()
        return StepOutput(loss, {"loss": loss.detach()}, {})
