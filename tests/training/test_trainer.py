"""The loop: what it applies, saves, logs and refuses."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from helpers import TinyImages, batch_of, equal_everywhere
from lines import Line, Overflows, forever, line_batch, trainer, weights
from torch import Tensor

from cxrcl.app.plan import make_plan
from cxrcl.config import sections
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError, DataError
from cxrcl.models.heads import Linear
from cxrcl.objectives.base import Objective
from cxrcl.objectives.classify import Classify
from cxrcl.objectives.moco import Moco
from cxrcl.objectives.simclr import SimClr
from cxrcl.training.optim import Cosine
from cxrcl.training.trainer import NonFinite, Plan, Trainer, _StopRequest
from cxrcl.types import Batch

# ----------------------------------------------------------------------------------------------- plain steps


def test_steps_are_those_of_the_optimizer_with_the_rate_of_the_schedule() -> None:
    loop = trainer(schedule=Cosine(5, 2))
    assert loop.fit(forever())
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(5):
        optimizer.param_groups[0]["lr"] = 0.01 * Cosine(5, 2).factor(step)
        optimizer.zero_grad()
        model(line_batch(step)).loss.backward()
        optimizer.step()
    assert equal_everywhere(model.state_dict(), weights(loop))
    assert loop.done == 5 and loop.objective.after == [0, 1, 2, 3, 4]


def test_figures_are_logged_at_the_asked_steps_and_at_the_last() -> None:
    loop = trainer(log_every=2, schedule=Cosine(5, 1), steps_per_epoch=2)
    loop.fit(forever())
    values = loop.tracker.values
    assert list(values) == [2, 4, 5]
    logged = ("loss", "gradient_norm", "learning_rate", "epoch", "bad_images")
    assert set(values[2]) == {f"train/{name}" for name in logged}
    assert values[5]["train/epoch"] == 2.5
    assert values[5]["train/learning_rate"] == pytest.approx(0.01 * Cosine(5, 1).factor(4))


def test_where_nothing_is_evaluated_nothing_is_said() -> None:
    loop = trainer(evaluate_every=2)
    loop.fit(forever())
    assert not [line for line in loop.tracker.said if line.startswith("step")]


@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-5), ("fp16", 1e-3)])
def test_large_gradients_are_clipped_and_logged_unclipped_and_unscaled(precision: str, within: float) -> None:
    loop, free = (trainer(clip_norm=norm, lr=1.0, total_steps=1, precision=precision) for norm in (0.5, None))
    before = weights(loop)
    for each in (loop, free):
        each.precision.scaler = torch.amp.GradScaler("cpu", init_scale=16.0, enabled=precision == "fp16")
        each.fit(forever(lambda step: line_batch(step + 50)))

    def moved(each: Trainer) -> float:
        return math.sqrt(sum(float(((value - before[name]) ** 2).sum()) for name, value in weights(each).items()))

    assert moved(loop) == pytest.approx(0.5, rel=within)
    assert moved(free) > 10
    for each in (loop, free):
        assert each.tracker.values[1]["train/gradient_norm"] == pytest.approx(moved(free), rel=within)


def test_accumulating_two_batches_equals_one_of_twice_the_size() -> None:
    images = torch.randn(5, 8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = (torch.rand(5, 8, 3, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    labels[0, 1, :2] = torch.nan  # samples without any label are left out of the training data

    def run(accumulate: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        loop = trainer(Classify(TinyImages(), ("a", "b", "c")), lr=0.5, accumulate=accumulate)
        size = 8 // accumulate
        loop.fit(
            batch_of(images[step, k * size : (k + 1) * size], labels=labels[step, k * size : (k + 1) * size])
            for step in range(5)
            for k in range(accumulate)
        )
        return weights(loop)

    whole, halves = run(1), run(2)
    for name, value in whole.items():
        assert torch.allclose(value, halves[name], atol=1e-6), name
    torch.manual_seed(0)
    start = Classify(TinyImages(), ("a", "b", "c")).state_dict()
    assert (whole["image_encoder.conv.weight"] - start["image_encoder.conv.weight"]).abs().max() > 1e-3


def test_the_size_of_micro_batches_reaches_the_plan() -> None:
    def planned(**values: Any) -> int | None:
        return make_plan(sections.Trainer(max_steps=1, batch_size=8, **values), 0, Line(), 8).micro_batch_size

    assert planned() is None and planned(micro_batch_size=3) == 3
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        planned(micro_batch_size=0)


def planned(objective: Objective, batch_size: int, micro_batch_size: int | None = None, processes: int = 1) -> Plan:
    values = sections.Trainer(max_steps=1, batch_size=batch_size, micro_batch_size=micro_batch_size)
    return make_plan(values, 0, objective, 100, processes)


HEAD = partial(Linear, out_dim=6)
NORMS: dict[str, Callable[[], Objective]] = {
    "one view": lambda: Classify(TinyImages(norm=True), ("a", "b")),
    "queries of one view": lambda: Moco(TinyImages(norm=True), HEAD, queue_size=50),
    "two views": lambda: SimClr(TinyImages(norm=True), HEAD),
    "no norm": lambda: Classify(TinyImages(), ("a", "b")),
    "frozen": lambda: Classify(TinyImages(norm=True), ("a", "b"), freeze_encoder=True),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_single_image_at_a_time_through_batchnorm_is_refused(name: str) -> None:
    sizes: list[tuple[int, int | None, int]] = [(8, 1, 1), (8, None, 8), (8, 2, 8), (6, 2, 2)]  # the last: 2 and 1
    for size, micro, processes in sizes:
        if name.endswith("one view"):
            with pytest.raises(
                ConfigError, match=f"batch_size={size} over {processes} processes with micro_batch_size"
            ):
                planned(NORMS[name](), size, micro, processes)
        else:
            planned(NORMS[name](), size, micro, processes)
    planned(NORMS[name](), 5, 3)  # chunks of 2 and 3
    planned(NORMS[name](), 8, None, 4)


# -------------------------------------------------------------------------------------------------- random numbers


class Seeds(Line):
    """Remembers what the random numbers of its steps are drawn from."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds: list[int] = []

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        self.seeds.append(torch.initial_seed())
        return super().embed(batch)


def seeds_of(rank: int, seed: int = 0) -> list[int]:
    loop = trainer(Seeds(), seed=seed)
    loop.runtime = Runtime(rank, 1, torch.device("cpu"))
    loop.fit(forever())
    return loop.objective.seeds  # type: ignore[no-any-return]


def test_random_numbers_are_of_the_seed_the_step_and_the_process() -> None:
    first, second, other = seeds_of(rank=0), seeds_of(rank=1), seeds_of(rank=0, seed=1)
    assert len({*first, *second, *other}) == 3 * 5
    assert seeds_of(rank=1) == second


# ------------------------------------------------------------------------------------------- images that are unreadable


def one_unreadable(step: int) -> Batch:
    return replace(line_batch(step), unreadable_row=torch.tensor([0, 0, 7, 0, 0, 0]))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_too_many_unreadable_images_stop_a_run_from_its_hundredth_sample_on(accumulate: int) -> None:
    loop = trainer(batch_size=50 // accumulate, accumulate=accumulate, max_bad_fraction=0.01)
    with pytest.raises(DataError, match=rf"^{2 * accumulate} of 100 samples had an image that cannot be read, more"):
        loop.fit(forever(one_unreadable))
    assert loop.done == 2
    assert [line for line in loop.tracker.said if "row 7" in line] == [
        "image of row 7: the image cannot be read; another sample stands in for it"
    ]


def test_as_many_unreadable_images_as_are_allowed_stop_no_run() -> None:
    assert trainer(batch_size=50, max_bad_fraction=0.02).fit(forever(one_unreadable))


def test_unreadable_images_of_earlier_sittings_count() -> None:
    first, second = (trainer(batch_size=50, total_steps=steps, max_bad_fraction=0.01) for steps in (1, 2))
    first.fit(forever(one_unreadable))
    second.restore(first.store.state)
    with pytest.raises(DataError, match=r"^2 of 100 samples"):
        second.fit(forever(one_unreadable))


# ------------------------------------------------------------------------------------------------- not a number


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_step_and_rows() -> None:
    loop, kept = trainer(), {}

    def batches(step: int) -> Batch:
        batch = line_batch(step)
        if step == 2:
            kept.update(weights(loop))
            batch.image_features.pooled[1, 1] = torch.nan
        return batch

    with pytest.raises(NonFinite, match=r"at step 3 \(rows 200, 201, 202, 203, 204, 205\); no update"):
        loop.fit(forever(batches))
    assert loop.done == 2 and loop.objective.after == [0, 1]
    assert equal_everywhere(kept, weights(loop)) and loop.store.saved == []


@pytest.mark.parametrize("asked", ["log_every", "save_every"])
def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(asked: str) -> None:
    loop = trainer(Overflows(at=3), total_steps=8, **{"log_every": 100, "save_every": None, asked: 2})
    with pytest.raises(NonFinite, match="gradient became non-finite"):
        loop.fit(forever())
    assert [step for step, _ in loop.store.saved] == ([2] if asked == "save_every" else [])
    assert loop.done == 4


# ---------------------------------------------------------------------------------------------------- precision


def test_bf16_is_close_to_fp32_and_not_equal() -> None:
    found = {}
    for name in ("fp32", "bf16"):
        loop = trainer(precision=name)
        loop.fit(forever())
        found[name] = weights(loop)["layer.weight"]
    assert not torch.equal(found["fp32"], found["bf16"])
    assert torch.allclose(found["fp32"], found["bf16"], rtol=0.05, atol=0.02)


def test_an_overflow_under_fp16_skips_the_update_only() -> None:
    before: dict[str, Tensor] = {}
    after: dict[str, Tensor] = {}

    def batches(step: int) -> Batch:
        if step in (2, 3):
            (before if step == 2 else after).update(weights(loop))
        return line_batch(step)

    loop = trainer(Overflows(at=2), precision="fp16", clip_norm=1.0)
    loop.precision.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    assert loop.fit(forever(batches))  # no NonFinite
    assert loop.objective.after == [0, 1, 3, 4] and loop.done == 5
    assert equal_everywhere(before, after)
    assert loop.precision.scaler.get_scale() == 512
    assert all(torch.isfinite(value).all() for value in weights(loop).values())
    assert not equal_everywhere(after, weights(loop))
    again = trainer(precision="fp16")
    again.restore(loop.store.state)
    assert again.precision.scaler.get_scale() == 512


# ------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_stops_after_the_step_with_a_checkpoint_and_handlers_are_restored(number: signal.Signals) -> None:
    handler = signal.getsignal(number)

    def batches(step: int) -> Batch:
        if step == 1:
            os.kill(os.getpid(), number)
        return line_batch(step)

    loop = trainer()
    assert not loop.fit(forever(batches))
    assert loop.done == 2 and loop.store.saved == [(2, None)]
    assert "stopped after step 2" in loop.tracker.said[-1]
    assert signal.getsignal(number) == handler


def test_a_signal_during_the_last_step_does_not_make_the_run_unfinished() -> None:
    def batches(step: int) -> Batch:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return line_batch(step)

    assert trainer().fit(forever(batches))


def test_the_second_interrupt_stops_at_once() -> None:
    request = _StopRequest()
    request(signal.SIGINT, None)
    assert request.asked
    with pytest.raises(KeyboardInterrupt):
        request(signal.SIGINT, None)
