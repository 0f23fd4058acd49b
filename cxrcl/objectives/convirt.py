"""ConVIRT: contrast of images and texts at a fixed temperature (Zhang et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor

from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.heads import Head
from cxrcl.objectives.losses import convirt_loss
from cxrcl.objectives.towers import Targets, TwoTowers
from cxrcl.types import Positive, Share, StepOutput


class ConVirt(TwoTowers):
    """Weighted InfoNCE in both directions at a fixed temperature: `cxrcl.objectives.losses.convirt_loss`.

    Args:
        image_encoder, text_encoder, image_head, text_head, targets: see `cxrcl.objectives.towers.TwoTowers`. The
            paper's heads are MLPs.
        tau: temperature, divides the cosines.
        lambda_: weight of the direction image -> text.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_head: Callable[..., Head],
        text_head: Callable[..., Head],
        tau: Positive = 0.1,
        lambda_: Share = 0.75,
        targets: Targets = "same_text",
    ) -> None:
        super().__init__(image_encoder, text_encoder, image_head, text_head, targets)
        self.tau, self.lambda_ = tau, lambda_

    def similarity_scale(self) -> float:
        """The factor that turns cosines into logits."""
        return 1 / self.tau

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        """Of `image` and `text` float [b, 1, D], and of `text` int64 [b, 1] where equal texts are left out."""
        image, text = embeddings["image"][:, 0], embeddings["text"][:, 0]
        logs: dict[str, Tensor] = {}
        loss = convirt_loss(image, text, self.tau, self.lambda_, targets.get("text"), logs=logs)
        return StepOutput(loss, logs, {})

    def chance(self, global_batch: int) -> float:
        """Equal similarities: log B."""
        return math.log(global_batch)
