"""The CLIP objective as a module."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from helpers import TinyImages, TinyTexts, batch_of
from torch.nn import functional as F

from cxrcl.models.heads import MLP, Linear
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.losses import info_nce
from cxrcl.types import Batch, EmbedsImages, EmbedsText, ScalesSimilarity, StepOutput

DISTINCT = [[1, 5, 2], [1, 6, 2], [1, 7, 8, 2], [1, 5, 6, 2]]
REPEATED = [[1, 5, 2], [1, 6, 2], [1, 5, 2], [1, 5, 6, 2]]


def clip(**arguments: Any) -> Clip:
    torch.manual_seed(0)
    heads = {"image_head": partial(Linear, out_dim=6), "text_head": partial(Linear, out_dim=6)}
    return Clip(TinyImages(), TinyTexts(width=12), **{**heads, **arguments})


def batch(ids: list[list[int]] = DISTINCT) -> Batch:
    images = torch.randn(len(ids), 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return batch_of(images, ids)


def test_loss_is_the_mean_of_both_directions_over_normalised_projections() -> None:
    model, given = clip(targets="identity"), batch()
    output = model(given)
    image = F.normalize(model.image_head(model.image_encoder(given.images[:, 0]).pooled), dim=-1)
    text = F.normalize(model.text_head(model.text_encoder(given.text.ids[:, 0], given.text.mask[:, 0]).pooled), dim=-1)
    to_text, to_image = info_nce(image, text, torch.tensor(1 / 0.07))
    assert output.loss.item() == pytest.approx((to_text + to_image).item() / 2, abs=1e-6)
    assert output.logs["image_to_text"].item() == pytest.approx(to_text.item(), abs=1e-6)
    assert output.logs["text_to_image"].item() == pytest.approx(to_image.item(), abs=1e-6)
    assert output.logs["scale"].item() == pytest.approx(1 / 0.07, rel=1e-6)
    assert not any(value.requires_grad for value in output.logs.values())


@pytest.mark.parametrize(("ids", "equal"), [(DISTINCT, True), (REPEATED, False)])
def test_same_text_differs_from_identity_exactly_when_a_text_repeats(ids: list[list[int]], equal: bool) -> None:
    given = batch(ids)
    one, other = clip(targets="identity")(given).loss, clip(targets="same_text")(given).loss
    assert torch.equal(one, other) == equal


def test_every_parameter_gets_a_gradient() -> None:
    model = clip()
    model(batch()).loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_scale_is_clamped_at_one_hundred_after_a_step() -> None:
    model = clip()
    with torch.no_grad():
        model.log_scale.fill_(6.0)
    model.after_step(StepOutput(torch.zeros(()), {}, {}), 0, 1)
    assert model.log_scale.item() == pytest.approx(math.log(100))
    assert model.similarity_scale() == pytest.approx(100, rel=1e-5)
    with torch.no_grad():
        model.log_scale.fill_(-1.0)
    model.after_step(StepOutput(torch.zeros(()), {}, {}), 0, 1)
    assert model.log_scale.item() == -1.0


@pytest.mark.parametrize("temperature", [0.0, 0.00999, -1.0, 2e3, math.nan])
def test_temperature_out_of_bounds_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature="):
        clip(temperature=temperature)


def test_temperature_at_the_bound_is_a_scale_of_one_hundred() -> None:
    assert clip(temperature=0.01).similarity_scale() == pytest.approx(100, rel=1e-5)


def test_heads_of_different_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image_head.out_dim=6 and text_head.out_dim=7"):
        clip(text_head=partial(MLP, out_dim=7))


def test_loss_stays_in_fp32_under_bf16_autocast() -> None:
    model, given = clip(), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = model.embed(given)
        output = model.loss(embeddings, model.targets(given))
    assert all(e.dtype == torch.float32 for e in embeddings.values())
    assert output.loss.dtype == torch.float32
    # The same embeddings outside of autocast: the numbers are equal only if no product was rounded to bf16.
    assert torch.equal(output.loss, model.loss(embeddings, model.targets(given)).loss)


def test_chance_is_the_loss_of_a_collapsed_model() -> None:
    model = clip(targets="identity")
    same = F.normalize(torch.ones(4, 6), dim=-1)
    assert model.loss({"image": same, "text": same}, {}).loss.item() == pytest.approx(model.chance(4), abs=1e-6)
    assert model.chance(4) == math.log(4)


def test_embeddings_are_unit_vectors_and_protocols_are_met() -> None:
    model = clip()
    assert isinstance(model, EmbedsImages) and isinstance(model, EmbedsText) and isinstance(model, ScalesSimilarity)
    for embedded in model.embed(batch()).values():
        assert torch.allclose(embedded.norm(dim=-1), torch.ones(4), atol=1e-6)
