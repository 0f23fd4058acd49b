"""Every objective over 2 and 4 processes against one: the same loss and the same gradient of every parameter.

A group of processes does all the work; the tests compare what it found. To add an objective, add a row to `TABLE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest import mock

import pytest
import torch
from helpers import ALONE, TinyImages, TinyTexts, batch_of, in_processes, two_towers
from torch import Tensor

from cxrcl.distributed import Runtime
from cxrcl.models.heads import Linear
from cxrcl.objectives.base import Objective
from cxrcl.objectives.classify import Classify
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.combined import Sum
from cxrcl.objectives.convirt import ConVirt
from cxrcl.objectives.cxr_clip import CxrClip
from cxrcl.objectives.gloria import Gloria
from cxrcl.objectives.losses import tiled
from cxrcl.objectives.moco import Moco
from cxrcl.objectives.siglip import SigLip
from cxrcl.objectives.simclr import SimClr
from cxrcl.types import Batch, Text

COUNT = 8  # samples of the global batch


def pairs(views: int = 1, texts: int = 1) -> Batch:
    """Studies 0, 3, 5 and 7 share texts, so with 2 processes as with 4 they lie apart; later texts are longer."""
    images = torch.randn(COUNT, views, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    same = {3: 0, 5: 0, 7: 2}
    ids = [
        [[1, *[5 + same.get(k, k)] * (1 + n), *[30] * (same.get(k, k) % 5), 2] for n in range(texts)]
        for k in range(COUNT)
    ]
    return batch_of(images, ids if texts else None)


class Row(NamedTuple):
    make: Callable[[], Objective]
    batch: Callable[[], Batch]
    tiled: bool = False  # in the group, InfoNCE and NT-Xent a tile at a time


def of(objective: type[Objective], tiled: bool = False, **arguments: Any) -> Row:
    return Row(
        lambda: two_towers(objective, torch.float64, **arguments),
        lambda: pairs(objective.num_views, objective.num_texts),
        tiled,
    )


LOCAL_HEADS: dict[str, Any] = {"region_head": partial(Linear, out_dim=5), "word_head": partial(Linear, out_dim=5)}


def probe(task: Literal["multi_label", "multi_class"]) -> Classify:
    torch.manual_seed(0)
    return Classify(TinyImages(), ("a", "b", "c"), task=task, class_weights={"b": 3.0}, focal_gamma=1.0).double()


def labelled(unusable: Sequence[int] = ()) -> Batch:
    batch = pairs(texts=0)
    batch.labels = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 2, 1, 0, 1, 1]]
    batch.labels[list(unusable)] = torch.nan
    return batch


UNEVEN = (0, 1, 2, 5)  # of two processes one has 1 usable sample and one 3; of four one has none and one has 2


def clip_and_simclr() -> Sum:
    torch.manual_seed(0)
    image, text = TinyImages(), TinyTexts(width=12)
    clip = partial(Clip, image, text, partial(Linear, out_dim=6), partial(Linear, out_dim=6))
    parts = {"clip": clip, "simclr": partial(SimClr, image, partial(Linear, out_dim=6))}
    return Sum(parts, "clip", {"simclr": 0.5}).double()


TABLE = {
    "clip, identity": of(Clip, targets="identity"),
    "clip": of(Clip),
    "clip, tiled": of(Clip, tiled=True),
    "siglip, identity": of(SigLip, targets="identity", bias=-1.0),
    "siglip": of(SigLip, bias=-1.0),
    "convirt": of(ConVirt),
    "cxr_clip": of(CxrClip, label_smoothing=0.1),
    "cxr_clip, tiled": of(CxrClip, tiled=True, label_smoothing=0.1),
    "simclr": of(SimClr),
    "simclr, tiled": of(SimClr, tiled=True),
    "moco": of(Moco, queue_size=24),
    "moco, symmetric": of(Moco, queue_size=24, symmetric=True),
    "gloria": of(Gloria, **LOCAL_HEADS),
    "gloria, low memory": of(Gloria, **LOCAL_HEADS, low_memory=True, aggregation="mean"),
    "classify": Row(lambda: probe("multi_label"), labelled),
    "classify, multi_class": Row(lambda: probe("multi_class"), labelled),
    "classify, uneven": Row(lambda: probe("multi_label"), partial(labelled, UNEVEN)),
    "classify, multi_class, uneven": Row(lambda: probe("multi_class"), partial(labelled, UNEVEN)),
    "sum": Row(clip_and_simclr, lambda: pairs(2, 1)),
}


def share_of(batch: Batch, runtime: Runtime) -> Batch:
    """This process's samples, its texts padded no further than its own longest."""
    rows = runtime.shard(COUNT)
    batch = batch.rows(slice(rows.start, rows.stop))
    if batch.text is not None:
        batch.text = Text(*(part[..., : int(batch.text.mask.sum(dim=-1).max())] for part in batch.text))
    return batch


@contextmanager
def small_tiles(wanted: bool) -> Iterator[None]:
    with ExitStack() as stack:
        if wanted:
            stack.enter_context(mock.patch.object(tiled, "MAX_LOGITS", 1))
        stack.enter_context(mock.patch.object(tiled, "TILE_CPU", 3))
        yield


def step(row: Row, runtime: Runtime) -> dict[str, Tensor]:
    """Mean loss, and gradients as the optimizer sees them."""
    model = row.make()
    wrapped = runtime.wrap(model)  # its hooks last as long as this name
    output = wrapped(share_of(row.batch(), runtime))
    output.loss.backward()
    found = {"loss": runtime.mean(output.loss), **{f"logs.{k}": runtime.mean(v) for k, v in output.logs.items()}}
    return found | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def work(runtime: Runtime, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"lengths": runtime.gather_objects(share_of(pairs(), runtime).text.ids.shape[-1])}  # type: ignore[union-attr]
    for name, row in TABLE.items():
        with small_tiles(row.tiled):
            found[name] = step(row, runtime)
    return found


@pytest.fixture(scope="module", params=[2, 4], ids=["2 processes", "4 processes"])
def group(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process of a group found."""
    return in_processes(request.param, work, tmp_path_factory.mktemp("group"))


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Tensor]]:
    return {name: step(row, ALONE) for name, row in TABLE.items()}


@pytest.mark.parametrize("name", TABLE)
def test_loss_and_gradients_are_those_of_one_process(
    group: list[dict[str, Any]], alone: dict[str, dict[str, Tensor]], name: str
) -> None:
    for found in group:
        assert found[name].keys() == alone[name].keys()
        for key, value in alone[name].items():
            assert (found[name][key] - value).abs().max() < 1e-10, key


def test_samples_that_are_not_used_are_spread_unevenly() -> None:
    used = [k not in UNEVEN for k in range(COUNT)]
    assert [sum(used[:4]), sum(used[4:])] == [1, 3] and [sum(used[k : k + 2]) for k in range(0, 8, 2)] == [0, 1, 1, 2]


def test_equal_texts_lie_apart_and_count(group: list[dict[str, Any]], alone: dict[str, dict[str, Tensor]]) -> None:
    assert len(set(group[0]["lengths"])) > 1
    for name in ("clip", "siglip"):
        assert abs(alone[name]["loss"] - alone[f"{name}, identity"]["loss"]) > 1e-3
