"""Probabilities for single images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cxrcl.inference.probabilities import ClassifierProbabilities, ZeroShotProbabilities
from cxrcl.models.base import ImageEncoder
from cxrcl.objectives.classify import Classify
from cxrcl.types import Features

PROMPTS = {
    "Edema": {"pos": ["edema", "wet lungs"], "neg": ["no edema"]},
    "Fracture": {"pos": ["broken"], "neg": ["whole", "intact"]},
}


def images() -> Tensor:
    return torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_zero_shot_probability_is_the_softmax_of_two_scaled_cosines(known: Any, alone: Any) -> None:
    found = ZeroShotProbabilities(known, PROMPTS, ["Edema", "Fracture"], alone.device).from_images(images())
    for film, row in zip(images(), found, strict=True):
        image = film.flatten() / film.norm()
        for label, kinds in PROMPTS.items():
            means = [sum(known.text(sentence) for sentence in kinds[kind]) for kind in ("pos", "neg")]
            logits = torch.stack([7.0 * (image @ mean) / mean.norm() for mean in means])
            assert row[label] == pytest.approx(logits.softmax(0)[0].item(), abs=1e-6)
    assert list(found[0]) == ["Edema", "Fracture"]


def test_prompts_are_embedded_once(known: Any, alone: Any) -> None:
    reader = ZeroShotProbabilities(known, PROMPTS, ["Edema", "Fracture"], alone.device)
    for _ in range(3):
        reader.from_images(images())
    assert (known.texts_seen, known.images_seen) == (6, 9)


class Looks(ImageEncoder):
    """Features are three pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.dim = self.local_dim = 3

    def forward(self, images: Tensor) -> Features:
        return Features(images[:, :, 0, 0], images[:, :0, 0])


@pytest.mark.parametrize("task", ["multi_label", "multi_class"])
def test_classifier_probability_is_the_sigmoid_or_the_softmax_of_logits(task: Any) -> None:
    model = Classify(Looks(), ("a", "b", "c"), task=task).eval()
    reader = ClassifierProbabilities(model, model.labels)
    with torch.no_grad():
        logits = model.classifier(images()[:, :, 0, 0])
        found = reader.from_images(images())
    expected = logits.softmax(dim=1) if task == "multi_class" else logits.sigmoid()
    assert [[*row.values()] for row in found] == [pytest.approx(row, abs=1e-6) for row in expected.tolist()]
    assert ("softmax over the classifier's 3 labels" if task == "multi_class" else "sigmoid") in reader.rule
