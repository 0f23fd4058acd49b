"""What every contrastive objective shares: one pass through each tower, unit vectors, precision, refusals."""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import Any

import pytest
import torch
import yaml
from helpers import ROOT, TinyImages, batch_of, two_towers
from torch import Tensor, nn

from cxrcl.models.heads import MLP, Linear
from cxrcl.objectives.base import Objective
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.convirt import ConVirt
from cxrcl.objectives.cxr_clip import CxrClip
from cxrcl.objectives.gloria import Gloria
from cxrcl.objectives.siglip import SigLip
from cxrcl.objectives.simclr import SimClr
from cxrcl.objectives.towers import encode_texts, encode_views, unit_vectors
from cxrcl.types import (
    Batch,
    EmbedsImages,
    EncodesImages,
    Features,
    ProjectsText,
    ScalesSimilarity,
    StepOutput,
)

ALL = [Clip, SigLip, ConVirt, CxrClip, SimClr]
WITH_TEXT = [Clip, SigLip, ConVirt, CxrClip]
LEARNED = [Clip, SigLip, CxrClip]


def batch(objective: Any, count: int = 5, repeat: bool = False, dtype: torch.dtype = torch.float32) -> Batch:
    """Texts all differ; with `repeat` the last sample has those of the first."""
    views, texts = objective.num_views, objective.num_texts
    images = torch.randn(count, views, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=dtype)
    ids = [
        [[1, 5 + 2 * (0 if repeat and k == count - 1 else k) + n, 40, 2] for n in range(texts)] for k in range(count)
    ]
    return batch_of(images, ids if texts else None)


def towers(model: Any) -> dict[str, nn.Module]:
    return {name: part for name, part in model.named_children() if name.endswith("_encoder")}


# --------------------------------------------------------------------------------------------- passes through towers


@pytest.mark.parametrize("objective", ALL)
def test_a_step_is_one_pass_through_each_tower(objective: type[Objective]) -> None:
    model, rows = two_towers(objective), {}

    def count(name: str, inputs: tuple[Tensor, ...]) -> None:
        rows.setdefault(name, []).append(len(inputs[0]))

    for name, tower in towers(model).items():
        tower.register_forward_pre_hook(lambda _, inputs, name=name: count(name, inputs))
    model(batch(objective)).loss.backward()
    expected = {"image_encoder": [5 * objective.num_views], "text_encoder": [5 * objective.num_texts]}
    assert rows == {name: expected[name] for name in towers(model)}


@pytest.mark.parametrize("objective", ALL)
def test_features_that_are_known_are_not_made_again(objective: type[Objective]) -> None:
    model, given = two_towers(objective), batch(objective)
    expected = model(given).loss
    seen = model.image_encoder(given.images.flatten(0, 1))
    given.image_features = Features(*(part.unflatten(0, (5, -1)) for part in seen))
    given.images = None
    model.image_encoder.forward = None
    if objective.num_texts:
        found = model.text_encoder(given.text.ids.flatten(0, 1), given.text.mask.flatten(0, 1))
        given.text_features = Features(*(part.unflatten(0, (5, -1)) for part in found))
        model.text_encoder.forward = None
    assert torch.equal(model(given).loss, expected)


@pytest.mark.parametrize("objective", ALL)
def test_views_and_texts_that_are_not_asked_for_are_ignored(objective: type[Objective]) -> None:
    model, given = two_towers(objective), batch(objective)
    expected = model(given).loss
    given.images = torch.cat([given.images, given.images.flip(0)], dim=1)
    if given.text is not None:
        given.text = type(given.text)(*(torch.cat([part, part.flip(0)], dim=1) for part in given.text))
    assert torch.equal(model(given).loss, expected)
    seen = model.image_encoder(given.images.flatten(0, 1))
    given.image_features = Features(*(part.unflatten(0, (5, -1)) for part in seen))
    if given.text is not None:
        found = model.text_encoder(given.text.ids.flatten(0, 1), given.text.mask.flatten(0, 1))
        given.text_features = Features(*(part.unflatten(0, (5, -1)) for part in found))
    assert torch.allclose(model(given).loss, expected, atol=1e-6)


def test_rows_of_a_sample_lie_together() -> None:
    given = batch(CxrClip)
    model = two_towers(CxrClip)
    for view in range(2):
        alone = model.image_encoder(given.images[:, view]).pooled
        assert torch.allclose(encode_views(model.image_encoder, given, 2).pooled[view::2], alone, atol=1e-6)
        text = model.text_encoder(given.text.ids[:, view], given.text.mask[:, view]).pooled
        assert torch.allclose(encode_texts(model.text_encoder, given, 2).pooled[view::2], text, atol=1e-6)


# -------------------------------------------------------------------------------------------------- embeddings


def test_unit_vectors_are_fp32_or_better() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, -2.0]])
    for dtype, kept in (
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert unit_vectors(rows.to(dtype)).dtype == kept
        assert torch.allclose(unit_vectors(rows.to(dtype)).float(), torch.tensor([[0.6, 0.8], [0.0, -1.0]]))


@pytest.mark.parametrize("objective", ALL)
def test_embeddings_are_unit_vectors_by_sample(objective: type[Objective]) -> None:
    model, given = two_towers(objective), batch(objective)
    embeddings = model.embed(given)
    counts = {"image": objective.num_views, "text": objective.num_texts}
    assert {name: value.shape for name, value in embeddings.items()} == {
        name: (5, count, 6) for name, count in counts.items() if count
    }
    for value in embeddings.values():
        assert torch.allclose(value.norm(dim=-1), torch.ones(value.shape[:2]), atol=1e-6)


@pytest.mark.parametrize("objective", WITH_TEXT)
def test_evaluators_see_what_the_loss_sees(objective: type[Objective]) -> None:
    model, given = two_towers(objective), batch(objective)
    assert all(isinstance(model, kind) for kind in (EncodesImages, EmbedsImages, ProjectsText, ScalesSimilarity))
    embeddings = model.embed(given)
    seen = model.encode_images(given.images[:, 0])
    image, text = model.embed_images(seen), model.embed_text(given.text.ids[:, 0], given.text.mask[:, 0])
    assert torch.allclose(image, embeddings["image"][:, 0], atol=1e-6)
    assert torch.allclose(text, embeddings["text"][:, 0], atol=1e-6)
    projected = model.project_text(given.text.ids[:, 0], given.text.mask[:, 0])
    assert torch.allclose(projected / projected.norm(dim=1, keepdim=True), text) and not torch.allclose(projected, text)
    assert model.tokenizer is model.text_encoder.tokenizer
    assert all(map(torch.equal, seen, model.image_encoder(given.images[:, 0])))


# -------------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("objective", ALL)
def test_every_parameter_gets_a_gradient(objective: type[Objective]) -> None:
    model = two_towers(objective)
    model(batch(objective)).loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("objective", ALL)
def test_logs_hold_the_loss_and_no_graph(objective: type[Objective]) -> None:
    output = two_towers(objective)(batch(objective))
    assert output.logs["loss"] == output.loss
    assert not any(value.requires_grad for value in output.logs.values())
    assert all(value.ndim == 0 for value in output.logs.values())


@pytest.mark.parametrize("objective", ALL)
def test_the_order_of_samples_does_not_matter(objective: type[Objective]) -> None:
    model, given = two_towers(objective, torch.float64), batch(objective, repeat=True, dtype=torch.float64)
    order = torch.tensor([3, 0, 4, 2, 1])
    assert abs(model(given).loss - model(given.rows(order)).loss) < 1e-12


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("objective", WITH_TEXT)
def test_same_text_differs_from_identity_exactly_when_a_text_repeats(objective: type[Objective], repeat: bool) -> None:
    given = batch(objective, repeat=repeat)
    one, other = (two_towers(objective, targets=targets)(given).loss for targets in ("identity", "same_text"))
    assert torch.equal(one, other) == (not repeat)


@pytest.mark.parametrize("objective", [*WITH_TEXT, Gloria])
def test_where_equal_texts_are_left_out_their_share_is_logged(objective: type[Objective]) -> None:
    local = {f"{name}_head": partial(Linear, out_dim=6) for name in ("region", "word") if objective is Gloria}
    model, plain = (two_towers(objective, targets=targets, **local) for targets in ("same_text", "identity"))
    given = batch(objective, repeat=True)
    assert model(given).logs["equal_texts"].item() == pytest.approx(2 / 20)  # two of the 5 x 4 ordered pairs
    assert model(given.rows(torch.tensor([0, 4, 0]))).logs["equal_texts"] == 1
    assert model(given.rows(slice(0, 4))).logs["equal_texts"] == 0
    assert "equal_texts" not in plain(given).logs


@pytest.mark.parametrize("objective", [Clip, ConVirt, CxrClip, SimClr])
def test_chance_is_the_loss_of_a_collapsed_model(objective: type[Objective]) -> None:
    model = two_towers(objective, torch.float64)
    same = {
        name: torch.ones_like(value) / 6**0.5
        for name, value in model.embed(batch(objective, dtype=torch.float64)).items()
    }
    assert abs(model.loss(same, {}).loss.item() - model.chance(5)) < 1e-6
    expected = {CxrClip: 2.5 * math.log(5), SimClr: math.log(9)}.get(objective, math.log(5))
    assert model.chance(5) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("objective", ALL)
def test_the_loss_is_made_in_fp32_under_autocast(objective: type[Objective]) -> None:
    model, given = two_towers(objective), batch(objective)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(given)
        embeddings, targets = model.embed(given), model.targets(given)
    assert all(value.dtype == torch.float32 for value in embeddings.values())
    assert output.loss.dtype == torch.float32
    # Outside of autocast the numbers are equal only if nothing was rounded to 16 bits inside.
    assert torch.equal(output.loss, model.loss(embeddings, targets).loss)
    for half in (torch.bfloat16, torch.float16):
        halves = {name: value.to(half) for name, value in embeddings.items()}
        assert model.full_precision_loss(halves, targets).loss.dtype == torch.float32


@pytest.mark.parametrize("objective", ALL)
def test_a_single_sample_is_an_error(objective: type[Objective]) -> None:
    model = two_towers(objective)
    with pytest.raises(ValueError, match="needs two samples or more, found 1"):
        model(batch(objective, count=1))
    with pytest.raises(ValueError, match=r"a batch of 1: .* two samples or more"):
        model.check(100, 1)
    model.check(100, 2)


# -------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("objective", [*ALL, Gloria])
def test_the_yaml_file_has_the_defaults_of_the_constructor(objective: type[Objective]) -> None:
    file = ROOT / "configs" / "objective" / f"{objective.__module__.rpartition('.')[2]}.yaml"
    node, known = yaml.safe_load(file.read_text(encoding="utf-8")), inspect.signature(objective).parameters
    assert node.pop("_target_") == f"{objective.__module__}.{objective.__name__}"
    assert set(node) == set(known) - {"image_encoder", "text_encoder"}
    assert all(value == known[name].default for name, value in node.items() if not name.endswith("_head"))


@pytest.mark.parametrize("objective", LEARNED)
def test_the_scale_is_clamped_at_one_hundred_after_a_step(objective: type[Objective]) -> None:
    model = two_towers(objective)
    for start, kept in ((6.0, math.log(100)), (-1.0, -1.0)):
        with torch.no_grad():
            model.log_scale.fill_(start)
        model.after_step(StepOutput(torch.zeros(()), {}, {}), 0, 1)
        assert model.log_scale.item() == pytest.approx(kept)
        assert model.similarity_scale() == pytest.approx(math.exp(kept), rel=1e-5)
    assert model.log_scale.requires_grad


@pytest.mark.parametrize("objective", LEARNED)
def test_temperature_sets_the_scale_within_bounds(objective: type[Objective]) -> None:
    assert two_towers(objective, temperature=0.01).similarity_scale() == pytest.approx(100, rel=1e-5)
    losses = [two_towers(objective, temperature=value)(batch(objective)).loss for value in (0.05, 0.5)]
    assert abs(losses[0] - losses[1]) > 1e-3
    for temperature in (0.0, 0.00999, -1.0, 2e3, math.nan):
        with pytest.raises(ValueError, match="temperature="):
            two_towers(objective, temperature=temperature)


@pytest.mark.parametrize("objective", ALL)
def test_heads_are_those_asked_for(objective: type[Objective]) -> None:
    names = ["image_head", "text_head"][: 1 + bool(objective.num_texts)]
    model = two_towers(objective, **{name: partial(MLP, out_dim=3, hidden_dim=5) for name in names})
    assert all(value.shape[-1] == 3 for value in model.embed(batch(objective)).values())
    assert all(isinstance(getattr(model, name), MLP) for name in names)


@pytest.mark.parametrize("objective", WITH_TEXT)
def test_heads_of_different_width_are_refused(objective: type[Objective]) -> None:
    with pytest.raises(ValueError, match=r"image_head.out_dim=6 and text_head.out_dim=7"):
        two_towers(objective, text_head=partial(Linear, out_dim=7))


def test_towers_keep_their_own_widths() -> None:
    model = two_towers(Clip, image_encoder=TinyImages(width=20))
    assert model.image_head.layer.in_features == 20 and model.text_head.layer.in_features == 12
