"""SimCLR: two augmentations of an image against those of other images (Chen et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor

from cxrcl.models.base import ImageEncoder
from cxrcl.models.heads import Head
from cxrcl.objectives.losses import nt_xent_loss
from cxrcl.objectives.towers import ImageObjective, encode_views, unit_vectors
from cxrcl.types import Batch, Positive, StepOutput


class SimClr(ImageObjective):
    """NT-Xent over the 2B views of a batch (equation 1): `cxrcl.objectives.losses.nt_xent_loss`.

    Where samples are studies, one of several images gives two different images as its views; where samples are images,
    the views are two augmentations of one image, as in the paper.

    Args:
        image_encoder: of the views.
        image_head: makes the projection; called with the encoder's width. Evaluation uses the features before it.
        temperature: divides the cosines.
    """

    num_views: ClassVar[int] = 2

    def __init__(
        self, image_encoder: ImageEncoder, image_head: Callable[..., Head], temperature: Positive = 0.5
    ) -> None:
        super().__init__(image_encoder)
        self.image_head = image_head(image_encoder.dim)
        self.temperature = temperature

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`image` float32 [B, 2, D], unit vectors."""
        image = unit_vectors(self.image_head(encode_views(self.image_encoder, batch, self.num_views).pooled))
        return {"image": image.unflatten(0, (-1, self.num_views))}

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        """Of `image` float [b, 2, D]."""
        first, second = embeddings["image"].unbind(1)
        logs: dict[str, Tensor] = {}
        loss = nt_xent_loss(first, second, self.temperature, logs=logs)
        return StepOutput(loss, logs, {})

    def chance(self, global_batch: int) -> float:
        """Equal similarities to the 2B - 1 other views: log(2B - 1)."""
        return math.log(2 * global_batch - 1)
