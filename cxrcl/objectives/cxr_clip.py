"""CXR-CLIP: two images and two texts of each study, contrasted across and within modalities (You et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.heads import Head
from cxrcl.objectives.losses import cxr_clip_loss
from cxrcl.objectives.towers import LearnedScale, Targets
from cxrcl.types import NotNegative, Share, StepOutput


class CxrClip(LearnedScale):
    """Contrasts of images and texts, of images, and of texts at one scale: `cxrcl.objectives.losses.cxr_clip_loss`.

    With `targets=same_text` a text that equals one of the sample's own two is not its negative, and neither are texts
    of studies that share one. Images are always negatives of other studies' images.

    Args:
        image_encoder, text_encoder, image_head, text_head, targets: see `cxrcl.objectives.towers.TwoTowers`.
        temperature: start of the learned temperature; the scale 1 / temperature is clamped at 100.
        image_weight: weight of the image-image contrast (ICL).
        text_weight: weight of the text-text contrast (TCL).
        label_smoothing: of the image-text part, in training only.
    """

    num_views: ClassVar[int] = 2
    num_texts: ClassVar[int] = 2

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_head: Callable[..., Head],
        text_head: Callable[..., Head],
        temperature: float = 0.07,
        image_weight: NotNegative = 1.0,
        text_weight: NotNegative = 0.5,
        label_smoothing: Annotated[Share, Field(lt=1)] = 0.0,
        targets: Targets = "same_text",
    ) -> None:
        super().__init__(image_encoder, text_encoder, image_head, text_head, temperature, targets)
        self.image_weight, self.text_weight = image_weight, text_weight
        self.label_smoothing = label_smoothing

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        """Of `image` and `text` float [b, 2, D], and of `text` int64 [b, 2] where equal texts are left out."""
        logs: dict[str, Tensor] = {}
        loss = cxr_clip_loss(
            embeddings["image"],
            embeddings["text"],
            self.log_scale.exp(),
            targets.get("text"),
            image_weight=self.image_weight,
            text_weight=self.text_weight,
            # Held-out losses are those of the hard labels, comparable whatever the smoothing.
            label_smoothing=self.label_smoothing if self.training else 0.0,
            logs=logs,
        )
        return StepOutput(loss, logs, {})

    def chance(self, global_batch: int) -> float:
        """Equal similarities: log B for each of the three contrasts, weighted."""
        return (1 + self.image_weight + self.text_weight) * math.log(global_batch)
