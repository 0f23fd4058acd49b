"""SimCLR: two augmentations of a film against those of other films (Chen et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor

from cxrcl.models.base import ImageEncoder
from cxrcl.models.heads import Head
from cxrcl.objectives.losses import nt_xent_loss
from cxrcl.objectives.towers import ImageTower, see, unit
from cxrcl.types import Batch, StepOutput


class SimClr(ImageTower):
    """NT-Xent over 2B views (equation 1).

    With `data.unit=study`, studies of several films give two different ones as the two views; `data.unit=image` gives
    two augmentations of one film, as in the paper.

    Args:
        image_encoder: the tower.
        image_head: projection; called with the tower's width. Evaluation uses the features before it.
        temperature: divides the cosines.
    """

    num_views: ClassVar[int] = 2

    def __init__(self, image_encoder: ImageEncoder, image_head: Callable[..., Head], temperature: float = 0.5) -> None:
        super().__init__(image_encoder)
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}: expected a number above 0, such as 0.5")
        self.image_head = image_head(image_encoder.dim)
        self.temperature = temperature

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`image` [B, 2, D], unit vectors."""
        image = unit(self.image_head(see(self.image_encoder, batch, self.num_views).pooled))
        return {"image": image.unflatten(0, (-1, self.num_views))}

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        first, second = embeddings["image"].unbind(1)
        logs: dict[str, Tensor] = {}
        loss = nt_xent_loss(first, second, self.temperature, logs=logs)
        return StepOutput(loss, logs, {})

    def chance(self, global_batch: int) -> float:
        return math.log(2 * global_batch - 1)
