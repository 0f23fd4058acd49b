"""CXR-CLIP: two images and two texts of each study, contrasted across and within modalities (You et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.heads import Head
from cxrcl.objectives.losses import info_nce, sides
from cxrcl.objectives.towers import LearnedScale, Targets, equal_texts
from cxrcl.types import StepOutput


class CxrClip(LearnedScale):
    """The mean of CLIP's loss over four image-text pairs, plus image-image and text-text contrasts at the same scale.

    With `targets=same_text` a text that equals one of the sample's own two is not its negative, and neither are texts
    of studies that share one. Images are always negatives of other studies' images.

    Args:
        image_encoder, text_encoder: the towers.
        image_head, text_head: projections; called with the tower's width.
        temperature: start of the learned temperature; the scale 1 / temperature is clamped at 100.
        image_weight: weight of the image-image contrast (ICL).
        text_weight: weight of the text-text contrast (TCL).
        label_smoothing: of the image-text part, in training only.
        targets: `identity` or `same_text`, see `cxrcl.objectives.towers.TwoTowers`.
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
        image_weight: float = 1.0,
        text_weight: float = 0.5,
        label_smoothing: float = 0.0,
        targets: Targets = "same_text",
    ) -> None:
        super().__init__(image_encoder, text_encoder, image_head, text_head, temperature, targets)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}: expected a share between 0 and 1")
        self.image_weight, self.text_weight = image_weight, text_weight
        self.label_smoothing = label_smoothing

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        both = targets.get("text")  # an image stands for both texts of its study
        each = (None, None) if both is None else both.split(1, dim=1)
        rows = [*embeddings["image"].unbind(1), *embeddings["text"].unbind(1)]
        *images, first_text, second_text = sides(rows, [both, both, *each])
        scale = self.log_scale.exp()
        smoothing = self.label_smoothing if self.training else 0.0
        pairs = [info_nce(i, t, scale, smoothing) for t in (first_text, second_text) for i in images]
        to_text, to_image = (torch.stack(part).mean() for part in zip(*pairs, strict=True))
        loss = (to_text + to_image) / 2
        logs = {"image_to_text": to_text, "text_to_image": to_image}
        if self.image_weight:
            first, second = (image._replace(texts=None, all_texts=None) for image in images)
            logs["image_to_image"] = torch.stack(info_nce(first, second, scale)).mean()
            loss = loss + self.image_weight * logs["image_to_image"]
        if self.text_weight:
            texts, all_texts = images[0].texts, images[0].all_texts
            first, second = (t._replace(texts=texts, all_texts=all_texts) for t in (first_text, second_text))
            logs["text_to_text"] = torch.stack(info_nce(first, second, scale)).mean()
            loss = loss + self.text_weight * logs["text_to_text"]
        logs |= {"loss": loss, "scale": scale, **equal_texts(first_text)}
        return StepOutput(loss, {name: value.detach() for name, value in logs.items()}, {})

    def chance(self, global_batch: int) -> float:
        return (1 + self.image_weight + self.text_weight) * math.log(global_batch)
