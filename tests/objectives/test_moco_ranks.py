"""MoCo over two processes against one: gradients, the queue, and keys shuffled between processes.

A single pair of processes does all the work; the tests compare what it found.
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ALONE, TinyImages, batch_of, equal_everywhere, in_processes
from torch import Tensor
from torch.nn import functional as F

from cxrcl.distributed import Runtime, shuffle, unshuffle
from cxrcl.models.heads import MLP
from cxrcl.objectives.moco import Moco
from cxrcl.training.optim import parameter_groups
from cxrcl.types import Batch

COUNT = 8  # samples of the global batch
STEPS = 5


def moco(norm: bool = False, **arguments: Any) -> Moco:
    """A queue that no step fills evenly; keys that have gone another way than queries."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"queue_size": 20, "momentum": 0.9, **arguments}
    model = Moco(TinyImages(norm=norm), partial(MLP, out_dim=6), **settings).double()
    with torch.no_grad():
        for parameter in model.key_tower.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def global_batch(step: int) -> Batch:
    generator = torch.Generator().manual_seed(100 + step)
    return batch_of(torch.randn(COUNT, 2, 3, 16, 16, generator=generator, dtype=torch.float64))


def share_of(rows: Batch, runtime: Runtime) -> Batch:
    part = runtime.shard(COUNT)
    return rows.rows(slice(part.start, part.stop))


def seed(step: int, runtime: Runtime) -> None:
    """As in training, processes draw different numbers."""
    torch.manual_seed(10 * step + runtime.rank)


def first_gradients(runtime: Runtime, symmetric: bool) -> dict[str, Tensor]:
    model = moco(symmetric=symmetric)
    wrapped = runtime.wrap(model)  # its hooks live as long as it
    output = wrapped(share_of(global_batch(0), runtime))
    output.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {**gradients, "loss": runtime.mean(output.loss)}


def train(model: Moco, runtime: Runtime, steps: range) -> dict[str, Tensor]:
    """The state after these steps; the queue is what the tests look at."""
    wrapped = runtime.wrap(model)
    optimizer = torch.optim.SGD(parameter_groups(model, 0.0), lr=0.1)
    for step in steps:
        seed(step, runtime)
        model.train()
        optimizer.zero_grad()
        output = wrapped(share_of(global_batch(step), runtime))
        output.loss.backward()
        optimizer.step()
        model.after_step(output, step, STEPS)
    return copy.deepcopy(dict(model.state_dict()))


def resumed(runtime: Runtime) -> dict[str, dict[str, Tensor]]:
    """Straight on, and from the state that the main process would save in the middle."""
    model = moco(norm=True)
    train(model, runtime, range(2))
    other = moco(norm=True)
    other.load_state_dict(runtime.main_decides(model.state_dict))
    return {"on": train(model, runtime, range(2, STEPS)), "again": train(other, runtime, range(2, STEPS))}


def keys(runtime: Runtime, shuffled: bool) -> Tensor:
    """[4, 6] of this process, from towers with BatchNorm."""
    model = moco(norm=True, shuffle_batch_norm=shuffled).train()
    seed(0, runtime)
    return model.targets(share_of(global_batch(0), runtime))["key"][:, 0].detach()


def exchange(runtime: Runtime, step: int) -> dict[str, Tensor]:
    seed(step, runtime)
    rows = torch.arange(8.0)[runtime.shard(8).start : runtime.shard(8).stop, None]
    there, order = shuffle(rows)
    return {"there": there[:, 0], "order": order, "back": unshuffle(there * 10, order)[:, 0]}


def work(runtime: Runtime, folder: Path) -> dict[str, Any]:
    return {
        "gradients": {symmetric: first_gradients(runtime, symmetric) for symmetric in (False, True)},
        "trained": {way: train(moco(symmetric=way), runtime, range(STEPS)) for way in (False, True)},
        "trained_norm": train(moco(norm=True, symmetric=True), runtime, range(STEPS)),
        "resumed": resumed(runtime),
        "keys": {shuffled: keys(runtime, shuffled) for shuffled in (False, True)},
        "exchange": [exchange(runtime, step) for step in (0, 0, 1)],
    }


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    return in_processes(2, work, tmp_path_factory.mktemp("pair"))


# ------------------------------------------------------------------------------------------ the same as one process


@pytest.mark.parametrize("symmetric", [False, True])
def test_loss_and_gradients_are_those_of_one_process(pair: list[dict[str, Any]], symmetric: bool) -> None:
    alone = first_gradients(ALONE, symmetric)
    for found in pair:
        assert found["gradients"][symmetric].keys() == alone.keys()
        for name, value in alone.items():
            assert value.abs().max() > 1e-6
            assert (found["gradients"][symmetric][name] - value).abs().max() < 1e-10, name


@pytest.mark.parametrize("symmetric", [False, True])
def test_queue_and_towers_are_those_of_one_process_in_order(pair: list[dict[str, Any]], symmetric: bool) -> None:
    """A process queues the keys of its samples one after the other, whichever view they are of: so does one alone."""
    alone = train(moco(symmetric=symmetric), ALONE, range(STEPS))
    assert alone["place"] == STEPS * COUNT * (1 + symmetric) % 20
    for found in pair:
        for name, value in alone.items():
            assert (found["trained"][symmetric][name] - value).abs().max() < 1e-10, name


def test_processes_hold_the_same_queue(pair: list[dict[str, Any]]) -> None:
    one, other = pair
    for name in (False, True):
        assert equal_everywhere(one["trained"][name], other["trained"][name])
    for name in ("queue", "place"):
        assert torch.equal(one["trained_norm"][name], other["trained_norm"][name])
    assert not torch.equal(one["trained_norm"]["queue"], moco(norm=True).queue)


def test_a_resumed_run_has_the_same_queue(pair: list[dict[str, Any]]) -> None:
    for found in pair:
        for name in ("queue", "place", "key_tower.0.conv.weight"):
            assert torch.equal(found["resumed"]["on"][name], found["resumed"]["again"][name])
    assert torch.equal(*(found["resumed"]["again"]["queue"] for found in pair))


# --------------------------------------------------------------------------------------------------------- shuffling


def test_rows_change_places_and_come_back(pair: list[dict[str, Any]]) -> None:
    for step in range(3):
        one, other = (found["exchange"][step] for found in pair)
        assert torch.equal(one["order"], other["order"])
        assert torch.cat([one["there"], other["there"]]).tolist() == one["order"].tolist()
        assert torch.cat([one["back"], other["back"]]).tolist() == [10.0 * k for k in range(8)]


def test_the_order_is_another_with_another_seed(pair: list[dict[str, Any]]) -> None:
    first, same, another = (found["order"] for found in pair[0]["exchange"])
    assert torch.equal(first, same) and not torch.equal(first, another)
    assert not torch.equal(first, torch.arange(8))


def test_alone_rows_stay() -> None:
    rows = torch.arange(6.0)
    there, order = shuffle(rows)
    assert there is rows and unshuffle(rows, order) is rows


def keys_by_hand(order: Tensor) -> Tensor:
    """Each half of the reordered samples has batch statistics of its own; then every key goes back to its sample."""
    encoder, head = moco(norm=True).train().key_tower
    images = global_batch(0).images[:, 1][order]
    found = torch.cat([F.normalize(head(encoder(half).pooled), dim=-1) for half in images.chunk(2)])
    back = torch.empty_like(found)
    back[order] = found
    return back.detach()


def test_keys_see_the_batch_statistics_of_shuffled_samples(pair: list[dict[str, Any]]) -> None:
    torch.manual_seed(0)  # that of the main process, whose order counts
    order = torch.randperm(COUNT)
    plain, shuffled = (torch.cat([found["keys"][way] for found in pair]) for way in (False, True))
    assert (plain - keys_by_hand(torch.arange(COUNT))).abs().max() < 1e-12
    assert (shuffled - keys_by_hand(order)).abs().max() < 1e-12
    assert (shuffled - plain).abs().max() > 1e-4
