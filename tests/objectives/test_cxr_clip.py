"""CXR-CLIP against its formula and published numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from helpers import assert_golden, assert_same, golden, info_nce_by_loop, two_towers, unit_rows
from torch import Tensor

from cxrcl.objectives.clip import Clip
from cxrcl.objectives.cxr_clip import CxrClip

# Both texts of each study: some are shared, within a place, across places and within a study.
NAMES = [[0, 1], [2, 3], [1, 4], [0, 5], [6, 6], [3, 0]]


def by_formula(
    embeddings: dict[str, Tensor],
    scale: Tensor,
    names: list[list[int]] | None,
    smoothing: float = 0.0,
    image_weight: float = 1.0,
    text_weight: float = 0.5,
) -> Tensor:
    """Image i's negatives are without texts equal to its own two; text-text is without studies that share a text."""
    images, texts = embeddings["image"].unbind(1), embeddings["text"].unbind(1)
    known = names or [[2 * k, 2 * k + 1] for k in range(len(images[0]))]
    pairs = []
    for place, text in enumerate(texts):
        for image in images:
            pairs += info_nce_by_loop(image, text, scale, lambda i, j: known[j][place] in known[i], smoothing)  # noqa: B023
    image_image = info_nce_by_loop(*images, scale)
    text_text = info_nce_by_loop(texts[1], texts[0], scale, lambda i, j: bool({*known[i]} & {*known[j]}))
    return sum(pairs) / 8 + image_weight * sum(image_image) / 2 + text_weight * sum(text_text) / 2


def embeddings(count: int = 6) -> dict[str, Tensor]:
    return {"image": unit_rows(1, count, 2, 6), "text": unit_rows(2, count, 2, 6)}


def loss_of(values: dict[str, Tensor], names: list[list[int]] | None = None, **settings: Any) -> Tensor:
    targets = {} if names is None else {"text": torch.tensor(names)}
    return two_towers(CxrClip, torch.float64, **settings).loss(values, targets).loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_golden_values_and_gradients(smoothing: float) -> None:
    given, values = golden(f"cxr_clip_smoothing{smoothing}")
    meta = json.loads(str(values["meta"]))
    model = two_towers(
        CxrClip,
        label_smoothing=meta["label_smoothing"],
        image_weight=meta["i2i_weight"],
        text_weight=meta["t2t_weight"],
    )
    del model.log_scale
    model.log_scale = given["logit_scale"].log()
    stacked = {
        "image": torch.stack([given["image"], given["image_view"]], dim=1),
        "text": torch.stack([given["text"], given["text2"]], dim=1),
    }
    assert_golden(given, values, model.loss(stacked, {}).loss, within=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("names", [None, NAMES, [[3, 4]] * 6])
def test_value_and_gradient_equal_the_formula(names: list[list[int]] | None, smoothing: float) -> None:
    values = embeddings()
    model = two_towers(CxrClip, torch.float64, image_weight=0.7, text_weight=0.3, label_smoothing=smoothing)
    output = model.loss(values, {} if names is None else {"text": torch.tensor(names)})
    slow = by_formula(values, model.log_scale.exp(), names, smoothing, 0.7, 0.3)
    assert_same([output.loss], [slow], (*values.values(), model.log_scale), within=1e-10)


def test_parts_are_logged() -> None:
    values = embeddings()
    model = two_towers(CxrClip, torch.float64)
    logs = model.loss(values, {"text": torch.tensor(NAMES)}).logs
    scale = model.log_scale.exp()
    image_text = by_formula(values, scale, NAMES, image_weight=0, text_weight=0)
    assert abs((logs["image_to_text"] + logs["text_to_image"]) / 2 - image_text) < 1e-10
    assert abs(logs["image_to_image"] - by_formula(values, scale, NAMES, text_weight=0) + image_text) < 1e-10
    assert (
        abs(logs["text_to_text"] - by_formula(values, scale, NAMES, image_weight=0, text_weight=1) + image_text) < 1e-10
    )
    assert abs(logs["scale"] - 1 / 0.07) < 1e-5


def test_equal_views_and_equal_texts_without_further_contrasts_are_clip() -> None:
    values = {name: value[:, :1].expand(-1, 2, -1) for name, value in embeddings().items()}
    found = loss_of(values, image_weight=0.0, text_weight=0.0)
    expected = two_towers(Clip, torch.float64).loss({name: value[:, :1] for name, value in values.items()}, {}).loss
    assert abs(found - expected) < 1e-12


def test_settings_change_the_loss() -> None:
    settings = ({}, {"image_weight": 0.0}, {"text_weight": 0.0}, {"label_smoothing": 0.1})
    losses = [loss_of(embeddings(), **setting).item() for setting in settings]
    assert all(abs(a - b) > 1e-3 for k, a in enumerate(losses) for b in losses[:k])


@pytest.mark.parametrize(("weight", "log"), [("image_weight", "image_to_image"), ("text_weight", "text_to_text")])
def test_a_contrast_without_weight_is_not_made(weight: str, log: str) -> None:
    model = two_towers(CxrClip, torch.float64, **{weight: 0.0})
    assert log not in model.loss(embeddings(), {}).logs
    assert log in two_towers(CxrClip, torch.float64).loss(embeddings(), {}).logs


def test_labels_are_smoothed_in_training_only() -> None:
    model = two_towers(CxrClip, torch.float64, label_smoothing=0.1)
    training = model.loss(embeddings(), {}).loss
    evaluation = model.eval().loss(embeddings(), {}).loss
    assert abs(evaluation - loss_of(embeddings())) < 1e-12 < 1e-3 < abs(training - evaluation)


def test_the_order_of_views_does_not_matter() -> None:
    values = embeddings()
    swapped = {**values, "image": values["image"].flip(1)}
    assert abs(loss_of(values, NAMES) - loss_of(swapped, NAMES)) < 1e-12
