"""MoCo against its formula and published numbers: loss, moving average, queue."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from checkpoints import as_checkpoint
from helpers import TinyImages, assert_golden, assert_same, batch_of, equal_everywhere, golden, unit_rows
from torch import Tensor
from torch.nn import functional as F

from cxrcl.app import restore as restoring
from cxrcl.app.model import build_model
from cxrcl.app.plan import make_plan
from cxrcl.commands.hydra import compose
from cxrcl.config import sections
from cxrcl.errors import ConfigError
from cxrcl.models.heads import MLP, Linear
from cxrcl.objectives import moco as module
from cxrcl.objectives.base import Objective
from cxrcl.objectives.losses import moco_loss
from cxrcl.objectives.moco import Moco
from cxrcl.objectives.simclr import SimClr
from cxrcl.objectives.towers import unit_vectors
from cxrcl.training.optim import parameter_groups
from cxrcl.types import Batch, EncodesImages


def moco(dtype: torch.dtype = torch.float64, norm: bool = False, **arguments: Any) -> Moco:
    """Keys differ from queries: the moving average has gone another way."""
    torch.manual_seed(0)
    given = {"image_head": partial(MLP, out_dim=6), "queue_size": 10, "momentum": 0.9, **arguments}
    model = Moco(TinyImages(norm=norm), **given)
    with torch.no_grad():
        for parameter in model.key_tower.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.to(dtype)


def batch(step: int = 0, count: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(100 + step)
    return batch_of(torch.randn(count, 2, 3, 16, 16, generator=generator, dtype=torch.float64))


def by_loop(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    total = torch.zeros((), dtype=query.dtype)
    for q, k in zip(query, key, strict=True):
        own = torch.exp((q * k).sum() / temperature)
        others = [torch.exp((q * row).sum() / temperature) for row in queue]
        total = total - torch.log(own / (own + sum(others)))
    return total / len(query)


def keys_of(model: Moco, images: Tensor) -> Tensor:
    encoder, head = model.key_tower
    return F.normalize(head(encoder(images).pooled), dim=-1)


def queries_of(model: Moco, images: Tensor) -> Tensor:
    return F.normalize(model.image_head(model.image_encoder(images).pooled), dim=-1)


def train(model: Objective, steps: range, count: int = 4) -> list[float]:
    """SGD without a state of its own, as the trainer does it."""
    optimizer = torch.optim.SGD(parameter_groups(model, 0.0), lr=0.1)
    losses = []
    for step in steps:
        model.train()
        optimizer.zero_grad()
        output = model(batch(step, count))
        output.loss.backward()
        optimizer.step()
        model.after_step(output, step, 100)
        losses.append(output.loss.item())
    return losses


# ------------------------------------------------------------------------------------------------------ the loss


def test_golden_value_and_gradient() -> None:
    given, values = golden("moco")
    # The file's inputs are raw; keys and queue carry no gradient.
    query, key, queue = given["query"], given["key"].detach(), given["queue"].detach()
    loss = moco_loss(unit_vectors(query), unit_vectors(key), queue, json.loads(str(values["meta"]))["temperature"])
    assert_golden({"query": query}, values, loss, within=1e-10)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize(("count", "size"), [(1, 1), (3, 7), (6, 2)])
def test_value_and_gradient_equal_a_double_loop(count: int, size: int, temperature: float) -> None:
    query, key, queue = unit_rows(1, count, 5), unit_rows(2, count, 5), unit_rows(3, size, 5)
    fast = moco_loss(query, key, queue, temperature)
    assert_same([fast], [by_loop(query, key, queue, temperature)], [query, key], within=1e-10)


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_objective_contrasts_the_first_view_with_the_key_of_the_second(symmetric: bool) -> None:
    model, given = moco(symmetric=symmetric, temperature=0.3), batch()
    one, other = given.images.unbind(1)
    terms = [by_loop(queries_of(model, one), keys_of(model, other).detach(), model.queue, 0.3)]
    if symmetric:
        terms.append(by_loop(queries_of(model, other), keys_of(model, one).detach(), model.queue, 0.3))
    own = [*model.image_encoder.parameters(), *model.image_head.parameters()]
    assert_same([model(given).loss], [sum(terms) / len(terms)], own, within=1e-10)


@pytest.mark.parametrize(("symmetric", "views"), [(False, 1), (True, 2)])
def test_the_tower_of_queries_sees_the_views_that_are_queries(symmetric: bool, views: int) -> None:
    model, seen = moco(symmetric=symmetric), []
    assert (model.embedded_views, model.num_views) == (views, 2) and not model.loss_selects
    model.image_encoder.register_forward_pre_hook(lambda _, rows: seen.append(len(rows[0])))
    model(batch())
    assert seen == [4 * views]


def test_equal_cosines_give_chance() -> None:
    model = moco(queue_size=7)
    query, key = torch.tensor([1.0, 0.0]), torch.tensor([0.3, 0.91**0.5])
    logs: dict[str, Tensor] = {}
    loss = moco_loss(query.expand(5, 2), key.expand(5, 2), key.expand(7, 2), 0.2, logs=logs)
    assert loss.item() == pytest.approx(model.chance(64), abs=1e-6)
    assert model.chance(64) == math.log(8)
    assert logs["accuracy"] == 0  # a key as near as one of the queue is not found


def test_logs_are_the_mean_cosines_and_how_often_the_own_key_is_nearest() -> None:
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    model = moco(torch.float32, image_head=partial(Linear, out_dim=2), queue_size=2)
    model.queue.copy_(torch.tensor([[0.8, 0.6], [-1.0, 0.0]]))
    key = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    output = model.loss({"query": query[:, None]}, {"key": key[:, None]})
    expected = {"positive_cosine": (0.6 + 1) / 2, "queue_cosine": (0.8 - 1 + 0.6 + 0) / 4, "accuracy": 0.5}
    assert {name: value.item() for name, value in output.logs.items() if name != "loss"} == pytest.approx(expected)
    assert output.logs["loss"].item() == output.loss.item()


def test_the_loss_is_fp32_under_bf16_autocast() -> None:
    model, given = moco(torch.float32), batch()
    given.images = given.images.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, targets, embeddings = model(given), model.targets(given), model.embed(given)
    assert output.loss.dtype == targets["key"].dtype == embeddings["query"].dtype == torch.float32
    # The same embeddings outside of autocast: equal only if no product was rounded to bf16.
    assert torch.equal(output.loss, model.loss(embeddings, targets).loss)


# ----------------------------------------------------------------------------------------------- the key tower


def test_keys_carry_no_gradient_and_the_optimizer_does_not_know_their_tower() -> None:
    model = moco()
    output = model(batch())
    output.loss.backward()
    assert not output.state["key"].requires_grad
    trained = {id(p) for group in parameter_groups(model, 0.1) for p in group["params"]}
    own = {id(p) for name, p in model.named_parameters() if not name.startswith("key_tower.")}
    assert trained == own and len(own) == 6
    assert all(p.grad is None for p in model.key_tower.parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999, 1.0])
def test_after_each_step_keys_follow_queries_in_encoder_and_head(momentum: float) -> None:
    model = moco(momentum=momentum)
    for step in range(2):
        before = [p.clone() for p in model.key_tower.parameters()]
        train(model, range(step, step + 1))
        own = [*model.image_encoder.parameters(), *model.image_head.parameters()]
        for old, q, k in zip(before, own, model.key_tower.parameters(), strict=True):
            assert (k - (momentum * old + (1 - momentum) * q)).abs().max() < 1e-15


def test_queries_start_equal_to_keys() -> None:
    model = Moco(TinyImages(), partial(MLP, out_dim=6), queue_size=4)
    assert torch.equal(queries_of(model, torch.ones(2, 3, 16, 16)), keys_of(model, torch.ones(2, 3, 16, 16)))


def test_weights_of_another_objective_reach_both_towers() -> None:
    torch.manual_seed(7)
    other = SimClr(TinyImages(), partial(MLP, out_dim=6))
    state = {"model": other.state_dict(), "config": {"labels": [], "model": {}}}
    model = moco(torch.float32)
    restoring.init_from(model, as_checkpoint(state), "a file")
    for tower in (model.image_encoder, model.key_tower[0]):
        assert equal_everywhere(tower.state_dict(), other.image_encoder.state_dict())
    assert equal_everywhere(model.key_tower[1].state_dict(), other.image_head.state_dict())


def test_weights_of_the_same_objective_keep_the_towers_apart() -> None:
    other, model = moco(), moco(queue_size=4)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.1
    restoring.init_from(
        model, as_checkpoint({"model": other.state_dict(), "config": {"labels": [], "model": {}}}), "a file"
    )
    for name, value in other.named_parameters():
        assert torch.equal(model.get_parameter(name), value)


def test_a_tower_with_batchnorm_trains() -> None:
    model = moco(norm=True, image_head=partial(MLP, out_dim=6, batch_norm=True), symmetric=True)
    losses = train(model, range(6))
    assert all(map(math.isfinite, losses))
    # Statistics of the key tower are its own: two batches of keys a step, one of queries.
    assert model.image_encoder.norm.num_batches_tracked == 6 and model.key_tower[0].norm.num_batches_tracked == 12


# ---------------------------------------------------------------------------------------------------- the queue


def test_the_queue_is_written_after_the_step_and_goes_on_past_its_end() -> None:
    model = moco()
    assert (model.queue.norm(dim=1) - 1).abs().max() < 1e-6
    written = []
    for step, place in enumerate((4, 8, 2)):
        before = model.queue.clone()
        output = model(batch(step))
        output.loss.backward()
        assert torch.equal(model.queue, before)
        written.append(keys_of(model, batch(step).images[:, 1]).detach())
        model.after_step(output, step, 3)
        assert model.place == place
    expected = torch.cat([written[2][2:], written[0][2:4], written[1], written[2][:2]])
    assert (model.queue - expected).abs().max() < 1e-15


def test_symmetric_queues_the_keys_of_both_views_once() -> None:
    model = moco(symmetric=True)
    first, (one, other) = model.queue.clone(), batch().images.unbind(1)
    expected = torch.stack([keys_of(model, other), keys_of(model, one)], dim=1).flatten(0, 1)
    model.after_step(model(batch()), 0, 1)
    assert model.place == 8
    assert (model.queue[:8] - expected).abs().max() < 1e-15 and torch.equal(model.queue[8:], first[8:])


def test_training_goes_on_from_a_checkpoint_bit_for_bit() -> None:
    model, resumed = moco(symmetric=True, norm=True), moco(symmetric=True, norm=True)
    train(model, range(3))
    state = copy.deepcopy(model.state_dict())
    assert {"queue", "place"} <= state.keys()
    torch.manual_seed(9)
    resumed.queue.copy_(torch.randn(10, 6))
    resumed.load_state_dict(state)
    assert train(model, range(3, 6)) == train(resumed, range(3, 6))
    assert equal_everywhere(dict(model.state_dict()), dict(resumed.state_dict()))


def test_a_copy_has_its_own_queue_and_towers() -> None:
    model = moco()
    copied, before = copy.deepcopy(model), copy.deepcopy(dict(model.state_dict()))
    train(copied, range(2))
    assert equal_everywhere(dict(model.state_dict()), before)


# -------------------------------------------------------------------------------------------------- the settings


def after_two_steps(**arguments: Any) -> list[float]:
    return train(moco(**arguments), range(3))


@pytest.mark.parametrize("setting", [{"momentum": 0.5}, {"temperature": 0.5}, {"symmetric": True}, {"queue_size": 8}])
def test_every_setting_changes_training(setting: dict[str, Any]) -> None:
    assert abs(after_two_steps(**setting)[-1] - after_two_steps()[-1]) > 1e-6


@pytest.mark.parametrize(("symmetric", "calls"), [(False, 1), (True, 2)])
def test_keys_are_shuffled_where_asked_and_in_training_only(
    monkeypatch: pytest.MonkeyPatch, symmetric: bool, calls: int
) -> None:
    seen: list[str] = []
    for name in ("shuffle", "unshuffle"):
        plain: Callable[..., Any] = getattr(module, name)
        counted = lambda *rows, name=name, plain=plain: seen.append(name) or plain(*rows)  # noqa: E731
        monkeypatch.setattr(module, name, counted)
    moco(symmetric=symmetric)(batch())
    assert seen == ["shuffle", "unshuffle"] * calls
    moco(symmetric=symmetric).eval()(batch())
    moco(symmetric=symmetric, shuffle_batch_norm=False)(batch())
    assert len(seen) == 2 * calls


def planned(model: Moco, samples: int, batch_size: int = 8) -> Any:
    return make_plan(sections.Trainer(max_steps=1, batch_size=batch_size), 0, model, samples)


@pytest.mark.parametrize(("symmetric", "valid"), [(False, 24), (True, 48)])
def test_a_queue_larger_than_the_training_set_is_refused(symmetric: bool, valid: int) -> None:
    with pytest.raises(ConfigError, match=f"queue_size=64: larger than the 30 .* set queue_size={valid}, or"):
        planned(moco(queue_size=64, symmetric=symmetric), 30)
    planned(moco(queue_size=valid, symmetric=symmetric), 30)
    planned(moco(queue_size=60 if symmetric else 30, symmetric=symmetric), 30)  # the keys of each image, once
    planned(moco(queue_size=64, symmetric=symmetric, allow_stale_queue=True), 30)


@pytest.mark.parametrize(("symmetric", "least"), [(False, 8), (True, 16)])
def test_a_queue_smaller_than_the_keys_of_a_step_is_refused(symmetric: bool, least: int) -> None:
    message = f"^objective: queue_size={least - 1}: a step brings {least} keys; set queue_size={least} or more"
    with pytest.raises(ConfigError, match=message):
        planned(moco(queue_size=least - 1, symmetric=symmetric), 30)
    planned(moco(queue_size=least, symmetric=symmetric), 30)


def test_a_batch_larger_than_the_training_set_is_named_and_not_the_queue() -> None:
    with pytest.raises(ConfigError, match=r"trainer.batch_size=8 .* is larger than the 5 training samples"):
        planned(moco(queue_size=64), 5)


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"a batch of 1: a contrastive loss needs two samples or more \(trainer.batch_size=1\)$"
    ):
        planned(moco(), 30, batch_size=1)


@pytest.mark.parametrize("name", ["moco", "moco_vit"])
def test_shipped_configs_build_and_a_checkpoint_restores(name: str) -> None:
    composed = compose("train", [f"objective={name}", "objective.queue_size=16"])
    nodes = {"objective": composed["objective"], "image_encoder": {"_target_": "helpers.TinyImages"}}
    model = build_model(nodes, (), None, ("cxrcl", "helpers")).double()
    train(model, range(2))
    state = {"model": model.float().state_dict(), "config": {"model": nodes, "labels": []}}
    restored = restoring.restore_model(as_checkpoint(state), ("cxrcl", "helpers"))
    assert equal_everywhere(dict(restored.state_dict()), dict(state["model"]))
    assert isinstance(restored, EncodesImages) and isinstance(restored.evaluated(), EncodesImages)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(restored.encode_images(images).pooled, restored.image_encoder(images).pooled)
