"""SigLIP: every image-text pair judged by itself (Zhai et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.heads import Head
from cxrcl.objectives.losses import siglip_loss
from cxrcl.objectives.towers import LearnedScale, Targets
from cxrcl.types import Positive, StepOutput


class SigLip(LearnedScale):
    """Pairwise sigmoid loss of one image and one text of each study: `cxrcl.objectives.losses.siglip_loss`.

    With `targets=same_text`, pairs that share a text count as neither positive nor negative. The sum over texts makes
    the loss grow with the batch, so no chance level is given.

    Args:
        image_encoder, text_encoder, image_head, text_head, targets: see `cxrcl.objectives.towers.TwoTowers`.
        temperature: start of the learned temperature; the scale 1 / temperature is clamped at 100.
        bias: start of the learned bias; -10 makes almost every pair a negative at the start, as almost every one is.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_head: Callable[..., Head],
        text_head: Callable[..., Head],
        temperature: Positive = 0.1,
        bias: float = -10.0,
        targets: Targets = "same_text",
    ) -> None:
        super().__init__(image_encoder, text_encoder, image_head, text_head, temperature, targets)
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        """Of `image` and `text` float [b, 1, D], and of `text` int64 [b, 1] where equal texts are left out."""
        image, text = embeddings["image"][:, 0], embeddings["text"][:, 0]
        logs: dict[str, Tensor] = {}
        loss = siglip_loss(image, text, self.log_scale.exp(), self.bias, targets.get("text"), logs=logs)
        return StepOutput(loss, logs, {})
