"""CLIP: contrast of images and texts with a learned scale (Radford et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from cxrcl.objectives.losses import clip_loss
from cxrcl.objectives.towers import LearnedScale
from cxrcl.types import StepOutput


class Clip(LearnedScale):
    """Symmetric InfoNCE between one image and one text of each study: `cxrcl.objectives.losses.clip_loss`.

    Args:
        image_encoder, text_encoder, image_head, text_head, targets: see `cxrcl.objectives.towers.TwoTowers`.
        temperature: start of the learned temperature; the scale 1 / temperature is clamped at 100.
    """

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        """Of `image` and `text` float [b, 1, D], and of `text` int64 [b, 1] where equal texts are left out."""
        image, text = embeddings["image"][:, 0], embeddings["text"][:, 0]
        logs: dict[str, Tensor] = {}
        loss = clip_loss(image, text, self.log_scale.exp(), targets.get("text"), logs=logs)
        return StepOutput(loss, logs, {})

    def chance(self, global_batch: int) -> float:
        """Equal similarities: log B."""
        return math.log(global_batch)
