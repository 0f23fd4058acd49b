"""Sums of objectives against their parts, each computed by itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import as_checkpoint
from helpers import TinyImages, TinyTexts, batch_of, equal_everywhere
from torch import Tensor

from cxrcl.app import restore as restoring
from cxrcl.app.model import build_model
from cxrcl.app.plan import make_plan
from cxrcl.checkpoint.file import load, save
from cxrcl.commands.hydra import compose
from cxrcl.config import sections
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.distributed import Runtime
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

ALONE = Runtime(0, 1, torch.device("cpu"))
PACKAGES = (*OWN_PACKAGES, "helpers")
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


# ------------------------------------------------------------------------------------------ configs, checkpoints


def node(name: str, **changes: Any) -> dict[str, Any]:
    linear = {"_target_": "cxrcl.models.heads.Linear", "out_dim": 6}
    classes = {
        "clip": {"_target_": "cxrcl.objectives.clip.Clip", "image_head": linear, "text_head": linear},
        "simclr": {"_target_": "cxrcl.objectives.simclr.SimClr", "image_head": linear},
        "moco": {"_target_": "cxrcl.objectives.moco.Moco", "image_head": linear, "queue_size": 10},
        "classify": {"_target_": "cxrcl.objectives.classify.Classify"},
    }
    return {**classes[name], **changes}


def nodes_of(*names: str, **changes: Any) -> dict[str, Any]:
    objective = {
        "_target_": "cxrcl.objectives.combined.Sum",
        "primary": names[0],
        "parts": {name: node(name) for name in names},
        **changes,
    }
    towers = {"image_encoder": {"_target_": "helpers.TinyImages"}, "text_encoder": {"_target_": "helpers.TinyTexts"}}
    return {"objective": objective if len(names) > 1 else node(names[0], **changes), **towers}


def built(*names: str, labels: tuple[str, ...] = ("a", "b"), **changes: Any) -> tuple[Any, dict[str, Any]]:
    """The model, and the checkpoint of it after its weights have moved."""
    torch.manual_seed(len(names))
    nodes = nodes_of(*names, **changes)
    model = build_model(nodes, labels, None, PACKAGES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    state = {"model": copy.deepcopy(model.state_dict()), "config": {"model": nodes, "labels": list(labels)}}
    return model, state


def test_a_checkpoint_holds_each_tower_once_by_its_own_name(tmp_path: Path) -> None:
    model, state = built("clip", "simclr", "moco", "classify")
    assert {key.split(".")[0] for key in state["model"]} == {"image_encoder", "text_encoder", "parts"}
    assert not [key for key in state["model"] if key.startswith("parts.") and "_encoder" in key]
    save(as_checkpoint(state), tmp_path / "last.pt")
    restored = restoring.restore_model(load(tmp_path / "last.pt"), PACKAGES)
    assert equal_everywhere(dict(restored.state_dict()), dict(model.state_dict()))
    given = batch(texts=1)
    given.images = given.images.float()
    assert torch.equal(restored(given).loss, model.eval()(given).loss)


def test_a_sum_that_reads_no_text_needs_no_text_encoder() -> None:
    model, state = built("simclr", "moco")
    assert model.num_texts == 0 and not any(name.startswith("text_encoder") for name in state["model"])
    assert getattr(model, "tokenizer", None) is None
    fresh = built("simclr", "moco", weights={"moco": 2})[0]
    restoring.init_from(fresh, as_checkpoint(state), "a file")
    assert equal_everywhere(dict(fresh.state_dict()), state["model"])
    assert built("clip", "moco")[0].tokenizer is not None


@pytest.mark.parametrize(
    ("source", "target"),
    [(("clip", "simclr"), ("classify",)), (("clip",), ("clip", "simclr")), (("clip", "classify"), ("moco", "clip"))],
)
def test_towers_travel_between_sums_and_single_objectives(source: tuple[str, ...], target: tuple[str, ...]) -> None:
    _, state = built(*source)
    model, _ = built(*target)
    assert not torch.equal(model.image_encoder.conv.weight, state["model"]["image_encoder.conv.weight"])
    restoring.init_from(model, as_checkpoint(state), "a file")
    own = model.state_dict()
    shared = [key for key in own if key.split(".")[0] in ("image_encoder", "text_encoder")]
    assert shared and all(torch.equal(own[key], state["model"][key]) for key in shared)
    for part in model.modules():
        if isinstance(part, Moco):
            assert torch.equal(part.key_tower[0].conv.weight, own["image_encoder.conv.weight"])


def test_rows_of_another_list_of_labels_are_left_out() -> None:
    _, state = built("clip", "classify", labels=("a", "b"))
    model, _ = built("clip", "classify", "simclr", labels=("b", "c"))
    before = model.state_dict()["parts.classify.classifier.weight"].clone()
    restoring.init_from(model, as_checkpoint(state), "a file")
    assert torch.equal(model.state_dict()["parts.classify.classifier.weight"], before)
    same, _ = built("clip", "classify", "simclr", labels=("a", "b"))
    restoring.init_from(same, as_checkpoint(state), "a file")
    assert torch.equal(
        same.state_dict()["parts.classify.classifier.weight"], state["model"]["parts.classify.classifier.weight"]
    )


@pytest.mark.parametrize("name", ["clip_simclr", "clip_classify"])
def test_shipped_configs_build_and_overrides_reach_the_parts(name: str) -> None:
    def loss(*overrides: str) -> float:
        torch.manual_seed(0)
        nodes = {**nodes_of("clip"), "objective": compose("train", [f"objective={name}", *overrides])["objective"]}
        model = build_model(nodes, ("a", "b"), None, PACKAGES)
        given = batch(model.num_views, model.num_texts)
        given.images = given.images.float()
        return model(given).loss.item()

    part = name.removeprefix("clip_")
    plain = loss()
    changed = {loss(f"objective.weights.{part}=2"), loss("objective.parts.clip.temperature=0.1")}
    assert len({plain, *changed}) == 3


# ------------------------------------------------------------------------------------------- starting from each other


def laid_in(target: Objective, source: Objective, labels: tuple[str, ...] = ("a", "b")) -> Objective:
    """`target` started from a checkpoint of `source`, whose weights were changed before."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn_like(parameter))
    about = {"model": {}, "labels": list(labels), "evaluated": restoring.evaluated_part(source)}
    restoring.init_from(target, as_checkpoint({"model": source.state_dict(), "config": about}), "x.pt")
    return target


def clip_and_classify(labels: tuple[str, ...] = ("a", "b")) -> Sum:
    image, text = TinyImages(), TinyTexts(width=12)
    clip = partial(Clip, image, text, partial(Linear, out_dim=6), partial(Linear, out_dim=6))
    return Sum({"clip": clip, "classify": partial(Classify, image, labels)}, "clip")


def clip_alone() -> Clip:
    return Clip(TinyImages(), TinyTexts(width=12), partial(Linear, out_dim=6), partial(Linear, out_dim=6))


def test_an_objective_starts_from_the_primary_part_of_a_sum_and_the_other_way_round() -> None:
    source = clip_and_classify()
    target = laid_in(clip_alone(), source)
    for name, value in source.parts["clip"].state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name
    one = clip_alone()
    both = laid_in(clip_and_classify(), one)
    assert torch.equal(both.parts["clip"].log_scale, one.log_scale)
    assert torch.equal(both.image_encoder.conv.weight, one.image_encoder.conv.weight)


def test_only_the_labelled_part_stays_new_with_other_labels() -> None:
    source, target = clip_and_classify(), clip_and_classify(("c", "d"))
    before = target.parts["classify"].classifier.weight.clone()
    laid_in(target, source)
    assert torch.equal(target.parts["classify"].classifier.weight, before)
    assert torch.equal(target.parts["clip"].text_head.layer.weight, source.parts["clip"].text_head.layer.weight)
