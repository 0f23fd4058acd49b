"""A few samples at a time against all at once: the same gradient, whatever the chunks, processes and precision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ALONE, TinyImages, TinyTexts, batch_of, in_processes, text_of
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from cxrcl.distributed import Runtime
from cxrcl.models.heads import Linear
from cxrcl.objectives.base import Objective
from cxrcl.objectives.classify import Classify
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.cxr_clip import CxrClip
from cxrcl.objectives.siglip import SigLip
from cxrcl.objectives.simclr import SimClr
from cxrcl.training.micro_batch import BatchGradient, chunks_of
from cxrcl.training.optim import Constant
from cxrcl.training.tracking import Tracker
from cxrcl.training.trainer import NonFinite, Plan, Precision, Trainer
from cxrcl.types import Batch, StepOutput, Text

HEAD = partial(Linear, out_dim=6)


class Decayed(Clip):
    """A parameter that the embeddings and the loss itself both use; the embeddings are the state."""

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        output = super().loss(embeddings, targets)
        state = {name: value.detach() for name, value in embeddings.items()}
        return StepOutput(output.loss + self.image_head.layer.weight.square().sum(), output.logs, state)

    def after_step(self, output: StepOutput, step: int, total: int) -> None:
        self.after = [*getattr(self, "after", []), {name: len(value) for name, value in output.state.items()}]


def two_towers(kind: type[Objective] = Clip, images: Mapping[str, Any] | None = None, dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    towers = (TinyImages(**(images or {})), TinyTexts(dropout=dropout))
    return kind(*towers, HEAD, HEAD).double()  # type: ignore[call-arg]


def simclr() -> SimClr:
    torch.manual_seed(0)
    return SimClr(TinyImages(), HEAD).double()


def classify(**images: Any) -> Classify:
    torch.manual_seed(0)
    return Classify(TinyImages(**images), ("a", "b")).double()


def batch(count: int = 7) -> Batch:
    """Two views and two texts of each sample, unknown labels, and a text that comes twice."""
    generator = torch.Generator().manual_seed(1)
    ids = [[1, *torch.randint(3, 60, (2 + k % 3,), generator=generator).tolist(), 2] for k in range(2 * count)]
    ids[-1] = ids[0]
    text = Text(*(part.unflatten(0, (count, 2)).squeeze(2) for part in text_of(ids)))
    labels = torch.randint(0, 2, (count, 2), generator=generator).double()
    labels[1, 0] = labels[4, 1] = torch.nan
    images = torch.randn(count, 2, 3, 16, 16, generator=generator, dtype=torch.float64)
    return Batch(images, None, text, labels, torch.arange(count) + 10)


def gradient(model: Objective, size: int | None, runtime: Runtime = ALONE, scale: float = 1.0) -> BatchGradient:
    return BatchGradient(model, runtime, nullcontext, lambda loss: scale * loss, size)


def ignore(loss: Tensor) -> None: ...


def add(model: Objective, size: int | None, given: Batch, **arguments: Any) -> tuple[StepOutput, dict[str, Tensor]]:
    model.zero_grad()
    output = gradient(model, size, **arguments).add(given, 1.0, True, ignore)
    return output, gradients(model)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def in_one_graph(
    model: Objective, size: int, given: Batch, before_chunk: Callable[[int], Any] = id
) -> dict[str, Tensor]:
    """The slow way: chunks pass the towers one by one, and all of their graphs are kept for one backward pass."""
    model.zero_grad()
    parts = []
    for k, chunk in enumerate(chunks_of(given, size)):
        before_chunk(k)
        parts.append(model.embed(chunk))
    embeddings = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    model.loss(embeddings, model.targets(given)).loss.backward()
    return gradients(model)


def assert_close(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], tolerance: float = 1e-10) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert (found[name] - value).abs().max() < tolerance, name


# ------------------------------------------------------------------------------------------------------ chunks


def test_chunks_are_few_small_and_even() -> None:
    for count in range(1, 12):
        for size in range(1, 12):
            chunks = chunks_of(batch_of(torch.arange(float(count)).view(count, 1, 1, 1)), size)
            sizes = [len(chunk.index) for chunk in chunks]
            assert torch.cat([chunk.images for chunk in chunks]).flatten().tolist() == list(range(count))
            assert max(sizes) <= size and max(sizes) - min(sizes) <= 1 and len(sizes) == -(-count // size)


# ---------------------------------------------------------------------------------- the gradient of the whole batch


@pytest.mark.parametrize(
    "model",
    [two_towers(), two_towers(SigLip), two_towers(CxrClip), two_towers(Decayed), simclr()],
    ids=["clip", "siglip", "cxr_clip", "decayed", "simclr"],
)
def test_the_gradient_of_every_parameter_is_that_of_the_whole_batch(model: Objective) -> None:
    output, plain = add(model, None, batch())
    assert plain.keys() == {name for name, _ in model.named_parameters()}
    assert all(value.abs().max() > 1e-9 for value in plain.values())
    for size in range(1, 9):
        found, accumulated = add(model, size, batch())
        assert_close(accumulated, plain)
        assert_close(found.logs, output.logs)
        assert abs(found.loss.item() - output.loss.item()) < 1e-10


def test_in_single_precision_too() -> None:
    model, given = two_towers().float(), batch()
    given.images = given.images.float()
    _, plain = add(model, None, given)
    for size in (1, 3):
        assert_close(add(model, size, given)[1], plain, 1e-5)


def test_weights_and_gradients_that_are_there_already_count() -> None:
    model, given = two_towers(), batch()
    _, plain = add(model, None, given)
    model.zero_grad()
    for weight in (0.25, 0.5):
        gradient(model, 3).add(given, weight, True, ignore)
    assert_close(gradients(model), {name: 0.75 * value for name, value in plain.items()})


def test_the_scale_of_the_loss_is_applied_once() -> None:
    _, plain = add(two_towers(), None, batch())
    _, scaled = add(two_towers(), 3, batch(), scale=1024.0)
    assert_close(scaled, {name: 1024 * value for name, value in plain.items()}, 1e-7)


@pytest.mark.parametrize("trained", ["text_", "log_scale"])
def test_frozen_towers_get_no_gradient_and_break_nothing(trained: str) -> None:
    model = two_towers()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(trained))
    _, plain = add(model, None, batch())
    _, found = add(model, 3, batch())
    assert plain and all(name.startswith(trained) for name in plain)
    assert_close(found, plain)


# ---------------------------------------------------------------------------------------- BatchNorm and dropout


@pytest.mark.parametrize("size", [2, 3, 6])
def test_batchnorm_sees_chunks_and_its_statistics_move_once_for_each(size: int) -> None:
    model = two_towers(images={"norm": True})
    slow = copy.deepcopy(model)
    _, found = add(model, size, batch())
    assert_close(found, in_one_graph(slow, size, batch()))
    statistics = dict(model.image_encoder.norm.named_buffers())
    assert_close(statistics, dict(slow.image_encoder.norm.named_buffers()))
    assert statistics["num_batches_tracked"] == -(-7 // size)
    whole = two_towers(images={"norm": True})
    assert (add(whole, None, batch())[1]["image_encoder.conv.weight"] - found["image_encoder.conv.weight"]).any()


def test_both_passes_draw_the_same_dropout_and_chunks_and_steps_draw_different_ones() -> None:
    model = two_towers(images={"dropout": 0.5}, dropout=0.5)
    seeds: list[int] = []
    hook = model.image_encoder.register_forward_pre_hook(lambda *_: seeds.append(torch.initial_seed()))
    torch.manual_seed(5)
    _, found = add(model, 3, batch())
    torch.manual_seed(6)
    add(model, 3, batch())
    hook.remove()
    assert seeds[:3] == seeds[3:6] and seeds[6:9] == seeds[9:] and len(set(seeds)) == 6
    assert_close(found, in_one_graph(model, 3, batch(), lambda k: torch.manual_seed(seeds[k])))
    torch.manual_seed(5)
    assert_close(add(model, 3, batch())[1], found, 1e-15)


# ------------------------------------------------------------------------------------------ per-sample objectives


class Listing(Classify):
    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        output = super().loss(embeddings, targets)
        return output._replace(state={"logits": embeddings["logits"].detach()})


def test_a_mean_over_samples_accumulates_exactly_and_passes_the_tower_once() -> None:
    torch.manual_seed(0)
    model = Listing(TinyImages(), ("a", "b")).double()
    output, plain = add(model, None, batch())
    seen: list[int] = []
    hook = model.image_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    for size in range(1, 7):
        seen.clear()
        found, accumulated = add(model, size, batch())
        # The classifier gives logits in fp32.
        assert_close(accumulated, plain, 1e-6)
        assert abs(found.logs["loss"] - output.logs["loss"]) < 1e-6 and abs(found.loss - output.loss) < 1e-6
        assert torch.allclose(found.state["logits"], output.state["logits"])
        assert sum(seen) == 7 and max(seen) <= size
    hook.remove()


# ------------------------------------------------------------------------------------------------------ the trainer


class Kept:
    def save(self, state: Mapping[str, Any], score: float | None) -> None: ...


class Recorded(Tracker):
    def __init__(self) -> None:
        self.values: list[Mapping[str, float]] = []

    def metrics(self, step: int, values: Mapping[str, float], show: str | None = None) -> None:
        self.values.append(values)


def trainer(
    model: Objective, size: int | None, precision: str = "fp32", steps: int = 2, accumulate: int = 1
) -> Trainer:
    plan = Plan(steps, steps, 7, None, None, 1, accumulate, None, None, True, 0, micro_batch_size=size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    made = Precision(precision, ALONE.device)
    if made.scaler.is_enabled():
        made.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    return Trainer(model, optimizer, Constant(steps), plan, made, ALONE, Recorded(), Kept(), lambda b: b, lambda *_: {})


def test_towers_never_see_more_samples_than_the_setting_and_training_is_the_same() -> None:
    seen: dict[int | None, list[int]] = {}
    models = {size: two_towers() for size in (None, 3)}
    logged = {}
    for size, model in models.items():
        counts = seen.setdefault(size, [])
        for tower in (model.image_encoder, model.text_encoder):
            tower.register_forward_pre_hook(lambda _, inputs, counts=counts: counts.append(len(inputs[0])))
        loop = trainer(model, size)
        loop.fit(iter([batch()] * 2))
        logged[size] = loop.tracker.values
    assert max(seen[None]) == 7 and max(seen[3]) == 3
    assert_close(dict(models[3].named_parameters()), dict(models[None].named_parameters()))
    assert [set(values) for values in logged[3]] == [set(values) for values in logged[None]]
    assert logged[3][-1] == pytest.approx(logged[None][-1], abs=1e-10)


def test_after_step_is_called_once_a_step_with_the_whole_batch() -> None:
    model = two_towers(Decayed)
    trainer(model, 2).fit(iter([batch()] * 2))
    assert model.after == [{"image": 7, "text": 7}] * 2


def test_chunks_compose_with_accumulation() -> None:
    whole, parts = classify(), classify()
    trainer(whole, None, steps=1).fit(iter([batch(14)]))
    given = batch(14)
    trainer(parts, 3, steps=1, accumulate=2).fit(iter([given.rows(slice(0, 7)), given.rows(slice(7, 14))]))
    assert_close(dict(parts.named_parameters()), dict(whole.named_parameters()), 1e-6)
    assert (parts.classifier.weight - classify().classifier.weight).abs().max() > 1e-3


@pytest.mark.parametrize("make", [two_towers, classify])
def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_rows(make: Callable[[], Objective]) -> None:
    model, given = make(), batch()
    before = copy.deepcopy(dict(model.named_parameters()))
    given.images[0] = torch.nan  # in the first chunk: the others are finite where samples are independent
    with pytest.raises(NonFinite, match=r"at step 1 \(rows 10, 11, 12, 13, 14, 15, 16\); no update"):
        trainer(model, 2).fit(iter([given]))
    assert_close(dict(model.named_parameters()), before, 1e-15)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_and_the_scaler_work_as_without_chunks(precision: str) -> None:
    def trained(size: int | None, name: str) -> Tensor:
        model, given = two_towers().float(), batch()
        given.images = given.images.float()
        trainer(model, size, name, steps=1).fit(iter([given]))
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    start = torch.cat([parameter.detach().flatten() for parameter in two_towers().float().parameters()])
    full, whole, chunks = trained(None, "fp32"), trained(None, precision), trained(3, precision)
    assert not torch.equal(whole, full)
    assert (chunks - whole).norm() < 0.005 * (whole - start).norm()


def test_both_passes_compute_in_the_same_precision() -> None:
    model, given, seen = two_towers().float(), batch(), []
    given.images = given.images.float()
    model.image_encoder.register_forward_hook(lambda *passed: seen.append(passed[2].pooled))
    trainer(model, 3, "bf16", steps=1).fit(iter([given]))
    assert len(seen) == 6 and all(map(torch.equal, seen[:3], seen[3:]))


# -------------------------------------------------------------------------------------------------- two processes


def share_of(given: Batch, runtime: Runtime) -> Batch:
    rows = runtime.shard(len(given.index))
    return given.rows(slice(rows.start, rows.stop))


def scale_only() -> Clip:
    model = two_towers()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "log_scale")
    return model


MODELS: dict[str, Callable[[], Objective]] = {
    "clip": two_towers,
    "decayed": partial(two_towers, Decayed),
    "scale_only": scale_only,
    "norm": partial(two_towers, images={"norm": True}),
    "classify": classify,
}


def _count(calls, bucket):  # type: ignore[no-untyped-def]  # DDP refuses annotations that are strings
    calls[0] += 1
    return allreduce_hook(None, bucket)


def work(runtime: Runtime, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, make in MODELS.items():
        model, calls = make(), [0]
        way = gradient(model, 2, runtime)
        way.wrapped.register_comm_hook(calls, _count)  # type: ignore[operator]
        own, counts = share_of(batch(8), runtime), []
        for last in (False, True):
            way.add(own, 0.5, last, ignore)
            counts.append(calls[0])
        found[name] = {"gradients": gradients(model), "reductions": counts, "buffers": dict(model.named_buffers())}
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The gradient of half the loss, added twice, in each of two processes with four rows, two at a time."""
    return in_processes(2, work, tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize("name", ["clip", "decayed", "scale_only", "classify"])
def test_two_processes_find_the_gradient_of_one(pair: list[dict[str, Any]], name: str) -> None:
    _, alone = add(MODELS[name](), None, batch(8))
    for found in pair:
        assert_close(found[name]["gradients"], alone, 1e-6 if name == "classify" else 1e-10)


def test_batchnorm_sees_the_chunks_of_each_process(pair: list[dict[str, Any]]) -> None:
    wanted = in_one_graph(MODELS["norm"](), 2, batch(8))
    for rank, found in enumerate(pair):
        assert_close(found["norm"]["gradients"], wanted)
        model = MODELS["norm"]()
        for _ in range(2):
            model.embed(batch(8).rows(slice(4 * rank, 4 * rank + 2)))
            model.embed(batch(8).rows(slice(4 * rank + 2, 4 * rank + 4)))
        assert_close(found["norm"]["buffers"], dict(model.named_buffers()))


def test_processes_talk_about_gradients_in_the_last_chunk_of_the_last_batch_only(pair: list[dict[str, Any]]) -> None:
    assert [found[name]["reductions"] for found in pair for name in MODELS] == [[0, 1]] * 2 * len(MODELS)
