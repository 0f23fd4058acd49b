"""Two processes against one. A single pair of processes does all the work; the tests compare what it found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import as_checkpoint
from helpers import ALONE, FixedData, TinyImages, TinyTexts, batch_of, equal_everywhere, in_processes
from recording import read_in_training
from tiny import write_tiny_set
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.app.exposure import gather_hashes
from cxrcl.checkpoint.content import exposure_to_plain
from cxrcl.distributed import Runtime, gather
from cxrcl.errors import DataError
from cxrcl.evaluation.evaluator import Evaluators
from cxrcl.evaluation.loss import Loss
from cxrcl.evaluation.retrieval import Retrieval
from cxrcl.evaluation.shared_pass import SharedPass, pooled_request
from cxrcl.evaluation.zero_shot import ZeroShot
from cxrcl.models.heads import Linear
from cxrcl.models.image import TimmEncoder
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.losses import gather_sides, info_nce
from cxrcl.training.optim import Constant, parameter_groups
from cxrcl.training.run_folder import RunFolder
from cxrcl.training.tracking import Tracker
from cxrcl.training.trainer import NonFinite, Plan, Precision, Trainer
from cxrcl.types import Batch, StepOutput

# ------------------------------------------------------------------ what both sides compute (rank 0 of 1, or r of 2)


def local(rows: Tensor, runtime: Runtime) -> Tensor:
    """This process's share of the rows of the global batch."""
    share = runtime.shard(len(rows))
    return rows[share.start : share.stop]


def unit_rows(seed: int, count: int = 8, dim: int = 5) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def contrast(runtime: Runtime, identity: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients (of the local rows and of the scale) of InfoNCE in float64, averaged as DDP does."""
    a = local(unit_rows(0), runtime).requires_grad_()
    b = local(unit_rows(1), runtime).requires_grad_()
    scale = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    own = None if identity is None else local(identity, runtime)[:, None]
    to_b, to_a = info_nce(*gather_sides([a, b], [own, own]), scale)
    loss = to_b + 2 * to_a
    (loss / runtime.world).backward()
    mean_of_gradients = runtime.mean(scale.grad) * runtime.world
    return runtime.mean(loss), torch.stack([a.grad, b.grad]), mean_of_gradients


def tower() -> TimmEncoder:
    """configs/image_encoder/groupnorm.yaml, narrower: no batch statistics."""
    options = {"norm_layer": "groupnorm", "stem_type": "deep", "channels": [64, 64, 128, 256]}
    return TimmEncoder("resnet10t", size=32, channels_last=False, options=options)


def clip(targets: str, image: Callable[[], nn.Module] = TinyImages) -> Clip:
    torch.manual_seed(0)
    head = partial(Linear, out_dim=16)
    return Clip(image(), TinyTexts(width=12), head, head, targets=targets)


def global_batch(step: int, size: int = 32, count: int = 8) -> Batch:
    """The last text repeats the first one: over two processes the pair lies on both sides."""
    generator = torch.Generator().manual_seed(step)
    ids = [[1, *torch.randint(3, 60, (3 + k % 3,), generator=generator).tolist(), 2] for k in range(count - 1)]
    return batch_of(torch.randn(count, 3, size, size, generator=generator), [*ids, ids[0]])


def share_of(batch: Batch, runtime: Runtime) -> Batch:
    rows = runtime.shard(len(batch.index))
    return batch.rows(slice(rows.start, rows.stop))


def train_clip(runtime: Runtime, steps: int) -> dict[str, Any]:
    model = clip("same_text", tower)
    wrapped = runtime.wrap(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=5e-4, betas=(0.9, 0.98), eps=1e-6)
    found: dict[str, Any] = {"losses": []}
    for step in range(steps):
        optimizer.zero_grad()
        loss = wrapped(share_of(global_batch(step), runtime)).loss
        loss.backward()
        if step == 0:
            found["gradients"] = {name: p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
        found["losses"].append(runtime.mean(loss).item())
    found["weights"] = model.state_dict()
    return found


def first_loss(runtime: Runtime, targets: str) -> float:
    return runtime.mean(clip(targets)(share_of(global_batch(0, 16), runtime)).loss).item()


PROMPTS = {"a": {"pos": ["alpha", "alpha here"], "neg": ["no alpha"]}, "b": {"pos": ["beta"], "neg": ["no beta"]}}


def data_of(count: int) -> FixedData:
    generator = torch.Generator().manual_seed(count)
    labels = torch.tensor([[float(k % 2), float(k % 3 == 0)] for k in range(count)])
    images = torch.randn(count, 3, 16, 16, generator=generator)
    texts = [f"text {k % 5}" for k in range(count)]
    return FixedData(("a", "b"), {"valid": (images, labels, texts, [f"p{k // 2}" for k in range(count)])})


def figures(runtime: Runtime, count: int, batch_size: int) -> dict[str, dict[str, float]]:
    model, data = clip("same_text").eval(), data_of(count)
    evaluators = {
        "zero_shot": ZeroShot(data, lambda *_: PROMPTS, resamples=20),
        "retrieval": Retrieval(data, at=(1, 2)),
        "loss": Loss(data, batch_size),
    }
    with torch.no_grad():
        results = Evaluators(evaluators, data, batch_size)(model, runtime)
        return {name: dict(result.metrics) for name, result in results.items()}


def message_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


class _OneBadRank(TinyImages):
    """A loss that is not finite in one process only."""

    def forward(self, batch: Batch) -> StepOutput:  # type: ignore[override]
        loss = self.conv.weight.sum() * (torch.inf if 6 in batch.index else 1.0)
        return StepOutput(loss + self.conv.bias.sum(), {"loss": loss.detach()}, {})


def fit_one_bad_rank(runtime: Runtime, folder: Path) -> str:
    model: Any = _OneBadRank()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan = Plan(3, 3, 8, None, None, 10, 1, None, None, True, 0)
    precision, store = Precision("fp32", runtime.device), RunFolder(folder, 1, as_checkpoint({}).origin)
    loop = Trainer(model, optimizer, Constant(3), plan, precision, runtime, Tracker(), store, lambda b: b, {})
    return message_of(lambda: loop.fit(iter([share_of(global_batch(0, 16), runtime)])))


# ------------------------------------------------------------------------------------------------- the two processes


def _statistics(runtime: Runtime) -> dict[str, Any]:
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(float(runtime.rank))
    norm.running_var.fill_(3.0 + runtime.rank)
    with runtime.averaged_statistics(norm):
        inside = (norm.running_mean.tolist(), norm.running_var.tolist())

    def fails() -> None:
        with runtime.averaged_statistics(norm):
            raise ValueError("inside")

    return {
        "inside": inside,
        "error": message_of(fails),
        "after": (norm.running_mean[0].item(), norm.running_var[0].item()),
    }


def _trailing(runtime: Runtime) -> dict[str, Tensor]:
    rows = torch.full((2, 3 + runtime.rank, 4 - runtime.rank), float(runtime.rank + 1), requires_grad=True)
    everything = gather(rows)
    (everything * (runtime.rank + 1)).sum().backward()
    return {"value": everything.detach(), "grad": rows.grad}


def _plain_gather(runtime: Runtime) -> dict[str, Tensor]:
    rows = local(unit_rows(5), runtime).requires_grad_()
    everything = gather(rows)
    ((runtime.rank + 1) * unit_rows(6) * everything).sum().backward()
    return {"value": everything.detach(), "grad": rows.grad}


def _raise_in_main() -> None:
    raise DataError("the main process says no")


def _work(runtime: Runtime, folder: Path) -> dict[str, Any]:
    rank = runtime.rank
    return {
        "hashes": gather_hashes(torch.tensor([5, 0, 7]) if rank else torch.tensor([0, -3, 7]), runtime).tolist(),
        "exposure": read_in_training(runtime, folder / "set", steps=20),
        "runtime": (runtime.rank, runtime.world, runtime.is_main),
        "gather": _plain_gather(runtime),
        "integers": gather(torch.tensor([rank, 10 + rank])),
        "contrast": contrast(runtime, None),
        "contrast_same": contrast(runtime, torch.tensor([0, 1, 2, 0, 1, 5, 0, 7])),
        "unequal": message_of(lambda: gather(torch.zeros(2 + rank, 3))),
        "trailing": _trailing(runtime),
        "uneven": runtime.gather_rows(torch.full((1 + 3 * rank, 2), float(rank))),
        "nothing_from_one": runtime.gather_rows(torch.full((3 * (1 - rank), 2), 7.0)),
        "mean": runtime.mean(torch.tensor([1.0 + rank, 5.0])),
        "any": runtime.any(rank == 1, False, True, rank == 0),
        "objects": runtime.gather_objects({"rank": rank}),
        "decided": runtime.main_decides(lambda: f"by {rank}"),
        "refused": message_of(lambda: runtime.main_decides(_raise_in_main)),
        "after_refusal": runtime.main_decides(lambda: "still in step"),
        "statistics": _statistics(runtime),
        "clip": train_clip(runtime, 20),
        "first_losses": {targets: first_loss(runtime, targets) for targets in ("identity", "same_text")},
        "figures": {count: figures(runtime, count, 4) for count in (7, 9)},
        "one_image": rows_of_one_image(runtime),
        "bad_rank": fit_one_bad_rank(runtime, folder / "bad"),
        "device": runtime.device == torch.device("cpu"),
    }


def rows_of_one_image(runtime: Runtime) -> tuple[Tensor, Tensor]:
    """The second process has no share of a single image and still takes part."""
    from cxrcl.evaluation.embed import over_images

    model, data = clip("same_text").eval(), data_of(1)
    with torch.no_grad():
        shared = SharedPass(model, runtime, data, 2, [pooled_request(("valid",))])
        rows = shared.rows("pooled", ("valid",))
        return rows, over_images(data, "valid", runtime, lambda b: {"it": b.images.flatten(1)[:, :4]}, 64)["it"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("pair")
    write_tiny_set(folder / "set")
    return in_processes(2, _work, folder)


# ------------------------------------------------------------------------------------------------------- collectives


def test_each_process_knows_its_place(pair: list[dict[str, Any]]) -> None:
    assert [found["runtime"] for found in pair] == [(0, 2, True), (1, 2, False)]
    assert all(found["device"] for found in pair)


def test_gather_gives_all_rows_and_sums_the_gradients_of_all_processes(pair: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(pair):
        assert torch.equal(found["gather"]["value"], unit_rows(5))
        expected = (1 + 2) * unit_rows(6)[4 * rank : 4 * rank + 4]
        assert (found["gather"]["grad"] - expected).abs().max() < 1e-10
        assert found["integers"].tolist() == [0, 10, 1, 11]


@pytest.mark.parametrize("key", ["contrast", "contrast_same"])
def test_infonce_over_two_processes_is_that_of_one(pair: list[dict[str, Any]], key: str) -> None:
    identity = None if key == "contrast" else torch.tensor([0, 1, 2, 0, 1, 5, 0, 7])
    loss, rows, scale = contrast(ALONE, identity)
    for found in pair:
        assert abs(found[key][0] - loss) < 1e-10
        assert abs(found[key][2] - scale) < 1e-10
    assert (torch.cat([found[key][1] for found in pair], dim=1) - rows).abs().max() < 1e-10


def test_unequal_batches_are_an_error_in_every_process(pair: list[dict[str, Any]]) -> None:
    for found in pair:
        assert found["unequal"] == "RuntimeError: processes hold batches of different sizes: [2, 3]"


def test_trailing_dimensions_are_padded_to_the_longest(pair: list[dict[str, Any]]) -> None:
    expected = torch.zeros(4, 4, 4)
    expected[:2, :3, :4] = 1
    expected[2:, :4, :3] = 2
    for found in pair:
        assert torch.equal(found["trailing"]["value"], expected)
        assert (found["trailing"]["grad"] == 3).all()
    assert [tuple(found["trailing"]["grad"].shape) for found in pair] == [(2, 3, 4), (2, 4, 3)]


def test_gather_rows_takes_uneven_and_empty_shares(pair: list[dict[str, Any]]) -> None:
    for found in pair:
        assert found["uneven"][:, 0].tolist() == [0, 1, 1, 1, 1]
        assert found["nothing_from_one"].tolist() == [[7, 7]] * 3


def test_mean_any_and_objects(pair: list[dict[str, Any]]) -> None:
    for found in pair:
        assert found["mean"].tolist() == [1.5, 5.0]
        assert found["any"] == (True, False, True, True)
        assert found["objects"] == [{"rank": 0}, {"rank": 1}]


def test_the_main_process_decides_and_its_error_reaches_all(pair: list[dict[str, Any]]) -> None:
    for found in pair:
        assert found["decided"] == "by 0"
        assert found["refused"] == "DataError: the main process says no"
        assert found["after_refusal"] == "still in step"


def test_statistics_are_averaged_inside_and_restored_afterwards(pair: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(pair):
        assert found["statistics"]["inside"] == ([0.5, 0.5], [3.5, 3.5])
        assert found["statistics"]["error"] == "ValueError: inside"
        assert found["statistics"]["after"] == (float(rank), 3.0 + rank)


def test_a_loss_that_is_not_finite_in_one_process_stops_all_and_names_the_rows(pair: list[dict[str, Any]]) -> None:
    for found in pair:
        assert found["bad_rank"].startswith(NonFinite.__name__)
        assert "step 1 (rows 0, 1, 2, 3, 4, 5, 6, 7)" in found["bad_rank"]


# ---------------------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def trained_alone() -> dict[str, Any]:
    return train_clip(ALONE, 20)


def test_first_loss_and_gradients_of_clip_are_those_of_one_process(
    pair: list[dict[str, Any]], trained_alone: dict[str, Any]
) -> None:
    for found in pair:
        assert abs(found["clip"]["losses"][0] - trained_alone["losses"][0]) < 1e-6
        for name, grad in trained_alone["gradients"].items():
            assert (found["clip"]["gradients"][name] - grad).abs().max() < 1e-5, name


def test_twenty_steps_stay_with_one_process(pair: list[dict[str, Any]], trained_alone: dict[str, Any]) -> None:
    for found in pair:
        differences = torch.tensor(found["clip"]["losses"]) - torch.tensor(trained_alone["losses"])
        assert differences.abs().max() < 5e-3
        for name, weight in trained_alone["weights"].items():
            assert (found["clip"]["weights"][name] - weight).abs().max() < 5e-3, name


def test_processes_hold_equal_weights(pair: list[dict[str, Any]]) -> None:
    one, other = (found["clip"]["weights"] for found in pair)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_equal_texts_are_recognised_across_processes(pair: list[dict[str, Any]]) -> None:
    alone = {targets: first_loss(ALONE, targets) for targets in ("identity", "same_text")}
    assert alone["identity"] - alone["same_text"] > 1e-3
    for found in pair:
        assert found["first_losses"] == pytest.approx(alone, abs=1e-6)


# -------------------------------------------------------------------------------------------------------- evaluation


def test_what_two_processes_read_is_recorded_as_of_one(pair: list[dict[str, Any]], own_set: Path) -> None:
    alone = exposure_to_plain(read_in_training(ALONE, own_set, steps=20))
    assert len(alone["trainings"][0]["pixels"]) > 12
    for found in pair:
        assert equal_everywhere(exposure_to_plain(found["exposure"]), alone)
        assert found["hashes"] == [5, -3, 7]


@pytest.mark.parametrize("count", [7, 9])
def test_figures_do_not_depend_on_the_number_of_processes(pair: list[dict[str, Any]], count: int) -> None:
    alone = figures(ALONE, count, 4)
    for found in pair:
        for name in ("zero_shot", "retrieval"):
            np.testing.assert_equal(found["figures"][count][name], alone[name])  # nan, where there is none, is equal
        assert found["figures"][count]["loss"] == pytest.approx(alone["loss"], abs=1e-6)


def test_a_process_without_a_share_takes_part(pair: list[dict[str, Any]]) -> None:
    expected = rows_of_one_image(ALONE)
    for found in pair:
        assert all(map(torch.equal, found["one_image"], expected))


# ---------------------------------------------------------------------------------------------------- pure functions


@pytest.mark.parametrize("world", [1, 2, 3, 8, 1024])
@pytest.mark.parametrize("count", [0, 1, 7, 1023, 1024, 5000])
def test_shares_cover_everything_once_and_differ_by_at_most_one(world: int, count: int) -> None:
    shares = [Runtime(rank, world, torch.device("cpu")).shard(count) for rank in range(world)]
    assert [k for share in shares for k in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_alone_needs_no_group() -> None:
    rows = torch.ones(2, 3)
    assert gather(rows) is rows and ALONE.gather_rows(rows) is rows
    assert ALONE.any(True, False) == (True, False)
    module = nn.Linear(2, 2)
    assert ALONE.wrap(module) is module and ALONE.sync_batchnorm(module) is module
