"""What objectives share: towers that encode all views, or all texts, of a batch in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.heads import Head
from cxrcl.objectives.base import Objective
from cxrcl.objectives.same_text import text_identity
from cxrcl.types import Batch, Features, StepOutput, Tokenizer

Targets = Literal["identity", "same_text"]


def see(encoder: nn.Module, batch: Batch, views: int) -> Features:
    """Features [B * views, ...] of the first views of each sample: one pass, or none where they are known."""
    if batch.image_features is not None:
        return Features(*(part[:, :views].flatten(0, 1) for part in batch.image_features))
    assert batch.images is not None
    return encoder(batch.images[:, :views].flatten(0, 1))


def read(encoder: nn.Module, batch: Batch, texts: int) -> Features:
    """Features [B * texts, ...] of the first texts of each sample."""
    if batch.text_features is not None:
        return Features(*(part[:, :texts].flatten(0, 1) for part in batch.text_features))
    assert batch.text is not None
    return encoder(batch.text.ids[:, :texts].flatten(0, 1), batch.text.mask[:, :texts].flatten(0, 1))


def unit(rows: Tensor) -> Tensor:
    """Rows of length one, fp32 or better."""
    return F.normalize(rows.float() if rows.dtype != torch.float64 else rows, dim=-1)


class ImageTower(Objective):
    """An objective with an image encoder."""

    def __init__(self, image_encoder: ImageEncoder) -> None:
        super().__init__()
        self.image_encoder = image_encoder

    def encode_images(self, images: Tensor) -> Features:
        """float32 [B, 3, S, S] -> features of the image encoder, before any projection."""
        return self.image_encoder(images)


class TwoTowers(ImageTower):
    """An objective that projects images and texts to one space of unit vectors.

    Args:
        image_encoder, text_encoder: the towers.
        image_head, text_head: projections; called with the tower's width.
        targets: `identity`: every other text of the batch is a negative; `same_text`: texts that are equal to one of
            the sample's own are not. Many films share a prompt or a normal report: as negatives they would push a film
            away from its own text, so `same_text` is the default. Published models were trained with `identity`.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_head: Callable[..., Head],
        text_head: Callable[..., Head],
        targets: Targets,
    ) -> None:
        super().__init__(image_encoder)
        self.text_encoder = text_encoder
        self.image_head = image_head(image_encoder.dim)
        self.text_head = text_head(text_encoder.dim)
        if self.image_head.out_dim != self.text_head.out_dim:
            raise ValueError(
                f"image_head.out_dim={self.image_head.out_dim} and text_head.out_dim={self.text_head.out_dim} differ"
            )
        self.same_text = targets == "same_text"

    @property
    def tokenizer(self) -> Tokenizer:
        return self.text_encoder.tokenizer

    def embed_images(self, features: Features) -> Tensor:
        """What `encode_images` gives -> unit vectors float32 [B, D]."""
        return unit(self.image_head(features.pooled))

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """int64 [B, L] each -> unit vectors float32 [B, D]."""
        return unit(self.text_head(self.text_encoder(ids, mask).pooled))

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        """`text` int64 [B, T]: equal for equal texts; empty with targets=identity."""
        if not self.same_text:
            return {}
        assert batch.text is not None
        ids, mask = (part[:, : self.num_texts] for part in (batch.text.ids, batch.text.mask))
        return {"text": text_identity(ids.flatten(0, 1), mask.flatten(0, 1)).view(len(ids), -1)}

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`image` [B, V, D] and `text` [B, T, D], unit vectors: one pass through each tower."""
        image = unit(self.image_head(see(self.image_encoder, batch, self.num_views).pooled))
        text = unit(self.text_head(read(self.text_encoder, batch, self.num_texts).pooled))
        return {
            "image": image.unflatten(0, (-1, self.num_views)),
            "text": text.unflatten(0, (-1, self.num_texts)),
        }


class LearnedScale(TwoTowers):
    """Two towers and a scale of their cosines that is learned as a logarithm and clamped at 100.

    Args:
        temperature: where 1 / scale starts.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_head: Callable[..., Head],
        text_head: Callable[..., Head],
        temperature: float,
        targets: Targets,
    ) -> None:
        super().__init__(image_encoder, text_encoder, image_head, text_head, targets)
        if not 0.01 <= temperature <= 1e3:
            raise ValueError(f"temperature={temperature}: expected 0.01 (a scale of 100) to 1000")
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def similarity_scale(self) -> float:
        return float(self.log_scale.detach().exp())

    @torch.no_grad()
    def after_step(self, output: StepOutput, step: int, total: int) -> None:
        self.log_scale.clamp_(max=math.log(100))
