"""Probabilities for single images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from cxrcl.evaluation.zero_shot import RULE, margins, prompt_directions
from cxrcl.types import Classifies, EmbedsImages, EmbedsText, ScalesSimilarity


class Reader(Protocol):
    rule: str

    def run(self, images: Tensor) -> list[dict[str, float]]:
        """float32 [B, 3, S, S] -> one {label: probability} an image."""


def _named(labels: Sequence[str], probabilities: Tensor) -> list[dict[str, float]]:
    return [dict(zip(labels, row, strict=True)) for row in probabilities.float().cpu().tolist()]


class ClassifierReader:
    rule = "probability = sigmoid of the classifier's logit; not calibrated"

    def __init__(self, model: Classifies, labels: Sequence[str]) -> None:
        self.model, self.labels = model, labels

    def run(self, images: Tensor) -> list[dict[str, float]]:
        return _named(self.labels, self.model.classify(images).sigmoid())


class ZeroShotReader:
    """See `cxrcl.evaluation.zero_shot`: prompts are embedded once, each image once."""

    rule = RULE

    def __init__(
        self,
        model: EmbedsImages,
        prompts: Mapping[str, Mapping[str, Sequence[str]]],
        labels: Sequence[str],
        device: torch.device,
    ) -> None:
        self.model, self.labels = model, labels
        self.scale = cast(ScalesSimilarity, model).similarity_scale()
        self.positive, self.negative = prompt_directions(cast(EmbedsText, model), prompts, labels, device)

    def run(self, images: Tensor) -> list[dict[str, float]]:
        # The softmax of two numbers is the sigmoid of their difference.
        margin = margins(self.model.embed_images(images).float().cpu(), self.positive, self.negative)
        return _named(self.labels, (self.scale * margin).sigmoid())
