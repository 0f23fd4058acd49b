"""Sums of objectives against their parts, each computed by itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from helpers import ALONE, TinyImages, TinyTexts, batch_of, equal_everywhere
from torch import Tensor

from cxrcl.app.plan import make_plan
from cxrcl.config import sections
from cxrcl.errors import ConfigError
from cxrcl.models.heads import MLP, Linear
from cxrcl.objectives.base import Objective
from cxrcl.objectives.classify import Classify
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.combined import Sum
from cxrcl.objectives.cxr_clip import CxrClip
from cxrcl.objectives.moco import Moco
from cxrcl.objectives.simclr import SimClr
from cxrcl.training.micro_batch import BatchGradient
from cxrcl.types import Batch, Classifies, EmbedsImages, EmbedsText

HEADS = {"image_head": partial(Linear, out_dim=6), "text_head": partial(Linear, out_dim=6)}
WEIGHTS = {"clip": 2.0, "simclr": 0.5}
OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "clip": partial(Clip, **HEADS),
    "cxr_clip": partial(CxrClip, **HEADS),
    "simclr": partial(SimClr, image_head=partial(MLP, out_dim=5)),
    "moco": partial(Moco, image_head=partial(MLP, out_dim=5), queue_size=10, momentum=0.5),
    "classify": partial(Classify, labels=("a", "b")),
}


def towers(norm: bool = False) -> dict[str, Any]:
    torch.manual_seed(0)
    return {"image_encoder": TinyImages(norm=norm), "text_encoder": TinyTexts(width=12)}


def waiting(name: str, towers: Mapping[str, Any], **arguments: Any) -> Callable[..., Objective]:
    """As a config makes them: all arguments are there, the call is not."""
    make = OBJECTIVES[name]
    reads = name in ("clip", "cxr_clip")
    return partial(make, **{key: towers[key] for key in towers if reads or key == "image_encoder"}, **arguments)


def added(*names: str, norm: bool = False, **arguments: Any) -> Sum:
    """float64, with every weight moved from where it starts."""
    shared = towers(norm)
    model = Sum(**{"parts": {name: waiting(name, shared) for name in names}, "primary": names[0], **arguments}).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def batch(views: int = 2, texts: int = 2, count: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, views, 3, 16, 16, generator=generator, dtype=torch.float64)
    ids = [[[1, 4 + k % 3, *[7 + n] * (k + 1), 2] for n in range(texts)] for k in range(count)]
    labels = torch.tensor([[1, 0], [0, math.nan], [1, 1], [0, 0], [1, 0]], dtype=torch.float64)[:count]
    return batch_of(images, ids if texts else None, labels)


def alone(model: Sum, name: str) -> Objective:
    """The part by itself, with towers of its own and the weights of the sum."""
    part = waiting(name, towers())().double()
    state = model.state_dict()
    own = {key.removeprefix(f"parts.{name}."): value for key, value in state.items()}
    part.load_state_dict({key: own[key].clone() for key in part.state_dict()})
    return part


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


# -------------------------------------------------------------------------------------------- value and gradient


@pytest.mark.parametrize(
    "names", [("clip", "simclr"), ("clip", "classify"), ("cxr_clip", "moco", "classify"), ("simclr", "moco")]
)
def test_value_and_gradient_are_the_weighted_sum_of_the_parts(names: tuple[str, ...]) -> None:
    weights = {name: 0.5 + k for k, name in enumerate(names)}
    model = added(*names, weights=weights)
    given = batch(views=model.num_views, texts=model.num_texts)
    output = model(given)
    output.loss.backward()
    total, expected = torch.zeros((), dtype=torch.float64), {}
    for name, weight in weights.items():
        part = alone(model, name)
        found = part(given)
        (weight * found.loss).backward()
        total += weight * found.loss.detach()
        for key, value in found.logs.items():
            assert abs(output.logs[f"{name}/{key}"] - value) < 1e-10
        for key, grad in gradients(part).items():
            full = key if key.split(".")[0].endswith("_encoder") else f"parts.{name}.{key}"
            expected[full] = expected.get(full, 0) + grad
    assert abs(output.loss - total) < 1e-10 and output.logs["loss"] == output.loss
    assert gradients(model).keys() == expected.keys()
    for name, grad in expected.items():
        assert (gradients(model)[name] - grad).abs().max() < 1e-10, name


def test_weights_default_to_one_and_change_the_loss() -> None:
    given = batch(texts=1)
    plain, doubled = added("clip", "simclr")(given), added("clip", "simclr", weights={"simclr": 2.0})(given)
    assert abs(plain.loss - plain.logs["clip/loss"] - plain.logs["simclr/loss"]) < 1e-12
    assert abs(doubled.loss - plain.loss - plain.logs["simclr/loss"]) < 1e-12


def test_each_tower_is_called_once_a_step_with_all_that_the_parts_ask_for() -> None:
    model, seen = added("simclr", "cxr_clip", "clip", "classify"), []
    assert (model.num_views, model.num_texts) == (2, 2) and not model.per_sample
    for name in ("image_encoder", "text_encoder"):
        getattr(model, name).register_forward_pre_hook(lambda _, rows, name=name: seen.append((name, len(rows[0]))))
    model(batch(views=3, texts=3))
    assert seen == [("image_encoder", 10), ("text_encoder", 10)]


@pytest.mark.parametrize(
    ("names", "symmetric", "views"),
    [
        (("clip", "moco"), False, 1),
        (("clip", "moco"), True, 2),
        (("clip", "simclr", "moco"), False, 2),
        (("cxr_clip", "moco"), False, 2),
    ],
)
def test_the_tower_sees_only_the_views_that_some_part_embeds(
    names: tuple[str, ...], symmetric: bool, views: int
) -> None:
    shared, seen = towers(), []
    parts = {name: waiting(name, shared) for name in names if name != "moco"}
    model = Sum({**parts, "moco": waiting("moco", shared, symmetric=symmetric)}, names[0]).double()
    assert (model.embedded_views, model.num_views) == (views, 2)
    model.image_encoder.register_forward_pre_hook(lambda _, rows: seen.append(len(rows[0])))
    model(batch(views=2))
    assert seen == [5 * views]


def test_whether_the_loss_selects_is_for_the_primary_part_to_say() -> None:
    assert added("clip", "moco").loss_selects and not added("moco", "clip").loss_selects


def test_some_samples_at_a_time_embed_to_the_same() -> None:
    model, given = added("clip", "simclr", "moco"), batch(texts=1)
    whole = model.embed(given)
    parts = [model.embed(given.rows(slice(start, end))) for start, end in ((0, 2), (2, 5))]
    for name, value in whole.items():
        assert (torch.cat([part[name] for part in parts]) - value).abs().max() < 1e-12
    assert given.image_features is None and given.text_features is None


def test_micro_batches_give_the_same_gradient_and_the_keys_of_the_whole_batch() -> None:
    model, found = added("clip", "moco", "classify"), []
    for size in (None, 2):
        model.zero_grad()
        step = BatchGradient(model, ALONE, nullcontext, lambda loss: loss, size)
        output = step.add(batch(texts=1), 1.0, True, lambda loss: None)
        found.append({**gradients(model), **output.state, "loss": output.loss.detach()})
    plain, chunks = found
    assert plain.keys() == chunks.keys() and plain["moco/key"].shape == (5, 1, 5)
    assert max((plain[name] - chunks[name]).abs().max() for name in plain) < 1e-12


def test_a_sum_of_means_over_samples_is_one() -> None:
    shared = towers()
    parts = {name: waiting("classify", shared) for name in ("one", "two")}
    assert Sum(parts, "one").per_sample and not added("clip", "classify").per_sample


def test_a_sum_may_be_a_part() -> None:
    shared = towers()
    inner = partial(Sum, {name: waiting(name, shared) for name in ("simclr", "classify")}, "simclr", {"simclr": 3.0})
    model = Sum({"both": inner, "clip": waiting("clip", shared)}, "clip", {"both": 0.5}).double()
    output = model(batch(texts=1))
    logs = output.logs
    expected = logs["clip/loss"] + 0.5 * (3 * logs["both/simclr/loss"] + logs["both/classify/loss"])
    assert abs(output.loss - expected) < 1e-10
    assert sum(key.endswith("conv.weight") for key in model.state_dict()) == 1


# --------------------------------------------------------------------------------------------------- the parts


def test_after_each_step_the_parts_have_their_turn() -> None:
    model, given = added("clip", "moco"), batch(texts=1)
    with torch.no_grad():
        model.parts["clip"].log_scale.fill_(9.0)
    before = copy.deepcopy(dict(model.state_dict()))
    output = model(given)
    model.after_step(output, 0, 1)
    assert model.parts["clip"].log_scale.item() == pytest.approx(math.log(100))
    moco = model.parts["moco"]
    assert moco.place == 5 and torch.equal(moco.queue[:5], output.state["moco/key"][:, 0])
    assert torch.equal(moco.queue[5:], before["parts.moco.queue"][5:])
    expected = (before["parts.moco.key_tower.0.conv.weight"] + model.image_encoder.conv.weight) / 2
    assert (moco.key_tower[0].conv.weight - expected).abs().max() < 1e-12


def test_the_parts_check_sizes() -> None:
    plan = sections.Trainer(max_steps=1, batch_size=8)
    with pytest.raises(ConfigError, match="queue_size=10: larger than the 9 training samples"):
        make_plan(plan, 0, added("clip", "moco"), 9)
    make_plan(plan, 0, added("clip", "moco"), 10)
    with pytest.raises(ConfigError, match="batch_size=1"):
        make_plan(sections.Trainer(max_steps=1, batch_size=1), 0, added("classify", "clip"), 9)


def test_chance_is_the_weighted_sum_where_every_part_has_one() -> None:
    model = added("clip", "simclr", weights=WEIGHTS)
    assert model.chance(8) == pytest.approx(2 * math.log(8) + 0.5 * math.log(15))
    assert added("clip", "classify").chance(8) is None


def test_evaluators_see_the_primary_part() -> None:
    model = added("clip", "classify")
    assert model.evaluated() is model.parts["clip"]
    assert isinstance(model.evaluated(), EmbedsImages) and isinstance(model.evaluated(), EmbedsText)
    other = added("clip", "classify", primary="classify").evaluated()
    assert isinstance(other, Classifies) and not isinstance(other, EmbedsText)
    seen = model.evaluated().encode_images(batch().images[:, 0])
    assert torch.equal(model.evaluated().embed_images(seen), alone(model, "clip").embed_images(seen))


def test_the_mode_reaches_the_towers_and_all_parts() -> None:
    model = added("clip", "moco", norm=True)
    for mode in (False, True):
        model.train(mode)
        assert {part.training for part in model.modules()} == {mode} == {model.parts["clip"].image_encoder.training}


def test_a_part_that_freezes_the_tower_has_the_last_word() -> None:
    shared = towers(norm=True)
    parts = {"probe": waiting("classify", shared, freeze_encoder=True), "clip": waiting("clip", shared)}
    model = Sum(parts, "clip").double().train()
    assert model.text_encoder.training and not model.image_encoder.training and not model.image_encoder.norm.training
    before = copy.deepcopy(model.image_encoder.state_dict())
    model(batch(1, 1)).loss.backward()
    assert equal_everywhere(dict(model.image_encoder.state_dict()), dict(before))
    assert not any(name.startswith("image_encoder.") for name in gradients(model))
    assert {"parts.probe.classifier.weight", "parts.clip.image_head.layer.weight"} <= gradients(model).keys()


def test_a_copy_shares_nothing_and_its_parts_share_its_towers() -> None:
    model = added("clip", "moco")
    copied = copy.deepcopy(model)
    assert copied.parts["clip"].image_encoder is copied.image_encoder is copied.parts["moco"].image_encoder
    given = batch(texts=1)
    assert torch.equal(copied(given).loss, model(given).loss)
    with torch.no_grad():
        copied.image_encoder.conv.weight.zero_()
    assert model.image_encoder.conv.weight.abs().sum() > 0 and copied(given).loss != model(given).loss


# ------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parts": {}}, "expected two objectives or more, found none"),
        ({"parts": {"clip": waiting("clip", towers())}}, "expected two objectives or more, found clip"),
        ({"primary": "moco"}, r"primary=moco: no such part \(parts: clip, simclr\)"),
        ({"weights": {"clip": 1.0, "moco": 1.0, "x": 1.0}}, r"weights=moco, x: no such part \(parts: clip, simclr\)"),
    ],
)
def test_wrong_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        added("clip", "simclr", **arguments)


def test_parts_with_different_encoders_are_refused() -> None:
    with pytest.raises(AssertionError, match="different encoders"):
        Sum({"clip": waiting("clip", towers()), "simclr": waiting("simclr", towers())}, "clip")
