"""Probabilities for single images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from cxrcl.evaluation.embed import embed_texts
from cxrcl.evaluation.prompted import directions_of
from cxrcl.types import Classifies, EmbedsImages, EmbedsText, Features, ScalesSimilarity


class Reader(Protocol):
    rule: str

    def of(self, features: Features) -> list[dict[str, float]]:
        """What `encode_images` gives -> one {label: probability} an image."""

    def run(self, images: Tensor) -> list[dict[str, float]]:
        """The same of images float32 [B, 3, S, S]."""


def _named(labels: Sequence[str], probabilities: Tensor) -> list[dict[str, float]]:
    return [dict(zip(labels, row, strict=True)) for row in probabilities.float().cpu().tolist()]


class ClassifierReader:
    """Of a model whose `classify` gives log-odds, so that their sigmoid is the probability in both of its tasks."""

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

    def of(self, features: Features) -> list[dict[str, float]]:
        return _named(self.labels, self.model.classify(features).sigmoid())

    def run(self, images: Tensor) -> list[dict[str, float]]:
        return self.of(self.model.encode_images(images))


class ZeroShotReader:
    """See `cxrcl.evaluation.zero_shot`: prompts are embedded once, each image once."""

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
        reads = cast(EmbedsText, model)
        positive, negative = (
            directions_of(lambda texts: embed_texts(reads, texts, device), [prompts[name][kind] for name in labels])
            for kind in ("pos", "neg")
        )
        self.directions = positive - negative

    def run(self, images: Tensor) -> list[dict[str, float]]:
        return self.of(self.model.encode_images(images))

    def of(self, features: Features) -> list[dict[str, float]]:
        # The softmax of two numbers is the sigmoid of their difference.
        embedded = self.model.embed_images(features)
        with torch.autocast("cpu", enabled=False):  # bf16 would make ties of near neighbours
            margin = embedded.float().cpu() @ self.directions.T
        return _named(self.labels, (self.scale * margin).sigmoid())
