"""Probabilities for single images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cxrcl.evaluation.readers import ClassifierReader, ZeroShotReader
from cxrcl.types import Features

PROMPTS = {
    "Edema": {"pos": ["edema", "wet lungs"], "neg": ["no edema"]},
    "Fracture": {"pos": ["broken"], "neg": ["whole", "intact"]},
}


def images() -> Tensor:
    return torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_zero_shot_probability_is_the_softmax_of_two_scaled_cosines(known: Any, alone: Any) -> None:
    found = ZeroShotReader(known, PROMPTS, ["Edema", "Fracture"], alone.device).run(images())
    for film, row in zip(images(), found, strict=True):
        image = film.flatten() / film.norm()
        for label, kinds in PROMPTS.items():
            means = [sum(known.text(sentence) for sentence in kinds[kind]) for kind in ("pos", "neg")]
            logits = torch.stack([7.0 * (image @ mean) / mean.norm() for mean in means])
            assert row[label] == pytest.approx(logits.softmax(0)[0].item(), abs=1e-6)
    assert list(found[0]) == ["Edema", "Fracture"]


def test_prompts_are_embedded_once(known: Any, alone: Any) -> None:
    reader = ZeroShotReader(known, PROMPTS, ["Edema", "Fracture"], alone.device)
    for _ in range(3):
        reader.run(images())
    assert (known.texts_seen, known.images_seen) == (6, 9)


def test_classifier_probability_is_the_sigmoid_of_the_logit() -> None:
    class Logits(nn.Module):
        def encode_images(self, images: Tensor) -> Features:
            return Features(images[:, :2, 0, 0], images[:, :0, 0])

        def classify(self, features: Features) -> Tensor:
            return features.pooled

    found = ClassifierReader(Logits(), ["a", "b"]).run(images())
    for film, row in zip(images(), found, strict=True):
        assert [row["a"], row["b"]] == pytest.approx(film[:2, 0, 0].sigmoid().tolist())
