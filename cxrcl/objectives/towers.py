"""What objectives share: encoders that take all views, or all texts, of a batch in one pass, and one space for both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.heads import Head
from cxrcl.objectives.base import Objective, at_least_fp32
from cxrcl.objectives.same_text import text_identity
from cxrcl.types import Batch, Features, StepOutput, Tokenizer

Targets = Literal["identity", "same_text"]


def encode_views(encoder: nn.Module, batch: Batch, views: int) -> Features:
    """Features of the first views of each sample, in one pass, or those that the batch holds in place of images.

    Args:
        encoder: of images.
        batch: with images float32 [B, V, 3, S, S] or image_features [B, V, ...].
        views: how many of the V.

    Returns:
        Features [B * views, ...], the views of a sample one after the other.
    """
    if batch.image_features is not None:
        return Features(*(part[:, :views].flatten(0, 1) for part in batch.image_features))
    assert batch.images is not None
    # One pass for all views: BatchNorm takes its statistics over all of them.
    return encoder(batch.images[:, :views].flatten(0, 1))


def encode_texts(encoder: nn.Module, batch: Batch, texts: int) -> Features:
    """Features [B * texts, ...] of the first texts of each sample, as `encode_views` has them of images.

    Args:
        encoder: of texts.
        batch: with text int64 [B, T, L] or text_features [B, T, ...].
        texts: how many of the T.
    """
    if batch.text_features is not None:
        return Features(*(part[:, :texts].flatten(0, 1) for part in batch.text_features))
    assert batch.text is not None
    return encoder(batch.text.ids[:, :texts].flatten(0, 1), batch.text.mask[:, :texts].flatten(0, 1))


def unit_vectors(rows: Tensor) -> Tensor:
    """Rows float [..., D] scaled to length one, float32 or float64.

    fp32 before the norm is taken: the squares of fp16 overflow from 256 on, and bf16 would keep two digits.
    """
    return F.normalize(at_least_fp32(rows), dim=-1)


class ImageObjective(Objective):
    """An objective with an image encoder."""

    def __init__(self, image_encoder: ImageEncoder) -> None:
        super().__init__()
        self.image_encoder = image_encoder

    def encode_images(self, images: Tensor) -> Features:
        """Images float32 [B, 3, S, S] -> features of the image encoder, before any projection."""
        return self.image_encoder(images)


class TwoTowers(ImageObjective):
    """An objective that projects images and texts to one space of unit vectors.

    Args:
        image_encoder, text_encoder: of the images and of the texts.
        image_head, text_head: make projections; called with the encoder's width.
        targets: `identity`: every other text of the batch is a negative; `same_text`: texts that are equal to one of
            the sample's own are not. Many images share a prompt or a normal report: as negatives these would push an
            image away from its own text, so `same_text` is the default. Published models were trained with `identity`.

    Raises:
        ValueError: heads of different widths.
    """

    num_texts: ClassVar[int] = 1

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
        """Features as `encode_images` returns them -> unit vectors float32 [B, D]."""
        return unit_vectors(self.image_head(features.pooled))

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask, int64 [B, L] each -> unit vectors float32 [B, D]."""
        return unit_vectors(self.project_text(ids, mask))

    def project_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask, int64 [B, L] each -> projections float32 [B, D], not normalised."""
        return at_least_fp32(self.text_head(self.text_encoder(ids, mask).pooled))

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        """`text` int64 [B, T], equal for equal texts; nothing with targets=identity."""
        if not self.same_text:
            return {}
        assert batch.text is not None
        ids, mask = (part[:, : self.num_texts] for part in (batch.text.ids, batch.text.mask))
        return {"text": text_identity(ids.flatten(0, 1), mask.flatten(0, 1)).view(len(ids), -1)}

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`image` float32 [B, V, D] and `text` float32 [B, T, D], unit vectors: one pass through each encoder."""
        image = unit_vectors(self.image_head(encode_views(self.image_encoder, batch, self.num_views).pooled))
        text = unit_vectors(self.text_head(encode_texts(self.text_encoder, batch, self.num_texts).pooled))
        return {
            "image": image.unflatten(0, (-1, self.num_views)),
            "text": text.unflatten(0, (-1, self.num_texts)),
        }


class LearnedScale(TwoTowers):
    """`TwoTowers` whose cosines are multiplied by a scale that is learned as a logarithm and clamped at 100.

    Args:
        image_encoder, text_encoder, image_head, text_head, targets: see `TwoTowers`.
        temperature: start of the temperature, which is 1 / scale.

    Raises:
        ValueError: a temperature below 0.01 (a scale above 100) or above 1000.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_head: Callable[..., Head],
        text_head: Callable[..., Head],
        temperature: float = 0.07,
        targets: Targets = "same_text",
    ) -> None:
        super().__init__(image_encoder, text_encoder, image_head, text_head, targets)
        if not 0.01 <= temperature <= 1e3:
            raise ValueError(f"temperature={temperature}: expected 0.01 (a scale of 100) to 1000")
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def similarity_scale(self) -> float:
        """The factor that turns cosines into logits."""
        return float(self.log_scale.detach().exp())

    @torch.no_grad()
    def after_step(self, output: StepOutput, step: int, total: int) -> None:
        """Clamp the scale at 100 (Radford et al. 2021, section 2.5: larger ones make training unstable)."""
        self.log_scale.clamp_(max=math.log(100))
