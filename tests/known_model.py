"""A model without weights whose embeddings are known."""

from __future__ import annotations

import torch
from helpers import CharTokenizer
from torch import Tensor
from torch.nn import functional as F

from cxrcl.objectives.base import Objective
from cxrcl.types import Features


class Known(Objective):
    """Images are embedded by their pixels, texts by a fixed random table of their tokens; calls are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = CharTokenizer()
        self.table = torch.randn(64, 48, generator=torch.Generator().manual_seed(5))
        self.places = torch.randn(512, 48, generator=torch.Generator().manual_seed(6))
        self.images_seen = 0
        self.texts_seen = 0

    def encode_images(self, images: Tensor) -> Features:
        self.images_seen += len(images)
        return Features(images.flatten(1), images.flatten(2).transpose(1, 2))

    def embed_images(self, features: Features) -> Tensor:
        return F.normalize(features.pooled, dim=-1)

    def project_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        self.texts_seen += len(ids)
        tokens = self.table[ids] * (1 + self.places[: ids.shape[1]])
        return (tokens * mask[..., None]).sum(dim=1)

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        return F.normalize(self.project_text(ids, mask), dim=-1)

    def similarity_scale(self) -> float:
        return 7.0

    def text(self, sentence: str) -> Tensor:
        """One sentence alone."""
        ids, mask, _ = self.tokenizer([sentence])
        return self.embed_text(torch.tensor(ids), torch.tensor(mask))[0]
