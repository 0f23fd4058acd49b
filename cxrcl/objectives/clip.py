"""CLIP: contrast of images and texts with a learned scale (Radford et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.models.heads import Head
from cxrcl.objectives.losses import info_nce, text_identity
from cxrcl.types import Batch, ImageEncoder, Objective, StepOutput, TextEncoder, Tokenizer

LARGEST_LOG_SCALE = math.log(100)


class Clip(Objective):
    """Symmetric InfoNCE between one image and one text of each study.

    Args:
        image_encoder, text_encoder: the towers.
        image_head, text_head: projections; called with the tower's width.
        temperature: start of the learned temperature; the scale 1 / temperature is clamped at 100.
        targets: `identity`: every other text of the batch is a negative; `same_text`: texts that are equal to the
            sample's own are not (many films share a prompt or a normal report).
    """

    num_views: ClassVar[int] = 1
    num_texts: ClassVar[int] = 1

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_head: Callable[..., Head],
        text_head: Callable[..., Head],
        temperature: float = 0.07,
        targets: Literal["identity", "same_text"] = "same_text",
    ) -> None:
        super().__init__()
        if not 0.01 <= temperature <= 1e3:
            raise ValueError(f"temperature={temperature}: expected 0.01 (a scale of 100) or more")
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.image_head = image_head(image_encoder.dim)
        self.text_head = text_head(text_encoder.dim)
        if self.image_head.out_dim != self.text_head.out_dim:
            raise ValueError(
                f"image_head.out_dim={self.image_head.out_dim} and text_head.out_dim={self.text_head.out_dim} differ"
            )
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.same_text = targets == "same_text"

    @property
    def tokenizer(self) -> Tokenizer:
        return self.text_encoder.tokenizer

    def embed_images(self, images: Tensor) -> Tensor:
        """float32 [B, 3, S, S] -> unit vectors float32 [B, D]."""
        return F.normalize(self.image_head(self.image_encoder(images).pooled).float(), dim=-1)

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """int64 [B, L] each -> unit vectors float32 [B, D]."""
        return F.normalize(self.text_head(self.text_encoder(ids, mask).pooled).float(), dim=-1)

    def similarity_scale(self) -> float:
        return float(self.log_scale.detach().exp())

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.text is not None
        return {"text": text_identity(batch.text.ids[:, 0], batch.text.mask[:, 0])} if self.same_text else {}

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.images is not None and batch.text is not None
        return {
            "image": self.embed_images(batch.images[:, 0]),
            "text": self.embed_text(batch.text.ids[:, 0], batch.text.mask[:, 0]),
        }

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        image, text = embeddings["image"], embeddings["text"]
        with torch.autocast(image.device.type, enabled=False):
            scale = self.log_scale.exp()
            to_text, to_image = info_nce(image, text, scale, targets.get("text"))
            loss = (to_text + to_image) / 2
        logs = {"loss": loss, "image_to_text": to_text, "text_to_image": to_image, "scale": scale}
        return StepOutput(loss, {name: value.detach() for name, value in logs.items()}, {})

    @torch.no_grad()
    def after_step(self, output: StepOutput, step: int, total: int) -> None:
        self.log_scale.clamp_(max=LARGEST_LOG_SCALE)

    def chance(self, global_batch: int) -> float:
        return math.log(global_batch)
