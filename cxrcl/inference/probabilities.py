"""Probabilities of labels for single images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from cxrcl.evaluation.embed import embed_texts
from cxrcl.evaluation.prompted import directions_of
from cxrcl.types import Classifies, EmbedsImages, EmbedsText, Features, ScalesSimilarity


class LabelProbabilities(Protocol):
    """What gives images probabilities of labels.

    Attributes:
        rule: how probabilities come about, in words.
    """

    rule: str

    def from_features(self, features: Features) -> list[dict[str, float]]:
        """One {label: probability} for each image, from what `encode_images` gives for it."""

    def from_images(self, images: Tensor) -> list[dict[str, float]]:
        """One {label: probability} for each of the images, float32 [B, 3, S, S]."""


def _by_label(labels: Sequence[str], probabilities: Tensor) -> list[dict[str, float]]:
    """Probabilities [B, C] as one dict an image."""
    return [dict(zip(labels, row, strict=True)) for row in probabilities.float().cpu().tolist()]


class ClassifierProbabilities:
    """Probabilities of a model whose `classify` gives log-odds: their sigmoid, in both tasks of a classifier."""

    def __init__(self, model: Classifies, labels: Sequence[str]) -> None:
        self.model, self.labels = model, labels
        # The sigmoid of the log-odds of one class against all others is the softmax.
        multi_class = getattr(model, "multi_class", False)
        how = (
            f"softmax over the classifier's {len(labels)} labels"
            if multi_class
            else "sigmoid of the classifier's logit"
        )
        self.rule = f"probability = {how}; not calibrated"

    def from_features(self, features: Features) -> list[dict[str, float]]:
        return _by_label(self.labels, self.model.classify(features).sigmoid())

    def from_images(self, images: Tensor) -> list[dict[str, float]]:
        return self.from_features(self.model.encode_images(images))


class ZeroShotProbabilities:
    """Zero-shot probabilities, as `cxrcl.evaluation.zero_shot` computes them; prompts are embedded once.

    Attributes:
        directions: float32 [C, D] on the CPU, mean positive minus mean negative prompt of each label.
    """

    rule = (
        "probability = softmax over the cosines to the mean positive and the mean negative prompt, times the model's "
        "learned scale; not calibrated"
    )

    def __init__(
        self,
        model: EmbedsImages,
        prompts: Mapping[str, Mapping[str, Sequence[str]]],
        labels: Sequence[str],
        device: torch.device,
    ) -> None:
        self.model, self.labels = model, labels
        self.scale = cast(ScalesSimilarity, model).similarity_scale()
        text_model = cast(EmbedsText, model)
        positive, negative = (
            directions_of(
                lambda texts: embed_texts(text_model, texts, device), [prompts[name][side] for name in labels]
            )
            for side in ("pos", "neg")
        )
        self.directions = positive - negative

    def from_features(self, features: Features) -> list[dict[str, float]]:
        # The softmax of two numbers is the sigmoid of their difference.
        embedded = self.model.embed_images(features)
        with torch.autocast("cpu", enabled=False):  # bf16 would make ties of near neighbours
            margin = embedded.float().cpu() @ self.directions.T
        return _by_label(self.labels, (self.scale * margin).sigmoid())

    def from_images(self, images: Tensor) -> list[dict[str, float]]:
        return self.from_features(self.model.encode_images(images))
