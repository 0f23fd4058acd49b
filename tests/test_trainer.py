"""The loop: what it applies, saves, logs and refuses, and that a stopped run goes on exactly."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from helpers import PACKAGES, FixedData, StopsRun, TinyImages, batch_of, equal_everywhere, settings, write_manifest
from torch import Tensor, nn

from cxrcl import app, assemble, checkpoint, config, evaluators
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError
from cxrcl.evaluation.loss import Loss
from cxrcl.models.heads import Linear
from cxrcl.objectives.classify import Classify
from cxrcl.objectives.moco import Moco
from cxrcl.objectives.simclr import SimClr
from cxrcl.optim import Constant, Cosine, Plateau, Schedule
from cxrcl.tracking import Tracker
from cxrcl.trainer import NonFinite, Plan, Precision, Trainer, _StopRequest, evaluate
from cxrcl.types import Batch, Features, Objective, StepOutput

ALONE = Runtime(0, 1, torch.device("cpu"))


class Line(Objective):
    """Least squares on known features; labels hold the wanted value."""

    per_sample: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[0.5, -0.25, 1.0, 0.125]]))
            self.layer.bias.zero_()
        self.after: list[int] = []

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.seen is not None
        return {"value": self.layer(batch.seen.pooled)}

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        return {"wanted": batch.labels}

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        loss = ((embeddings["value"].float() - targets["wanted"]) ** 2).mean()
        return StepOutput(loss, {"loss": loss.detach()}, {})

    def after_step(self, output: StepOutput, step: int, total: int) -> None:
        self.after.append(step)


class Overflows(Line):
    """The loss is finite at every step, the gradient at step `at` is not."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        output = super().loss(embeddings, targets)
        now = targets["wanted"][0, 0].item() == self.at
        # sqrt(0) is 0 and its slope is infinite.
        return output._replace(loss=output.loss + torch.sqrt(0 * self.layer.bias.float()).sum()) if now else output


def line_batch(step: int, count: int = 6) -> Batch:
    features = torch.randn(count, 4, generator=torch.Generator().manual_seed(step))
    labels = torch.full((count, 1), float(step))
    return Batch(None, None, None, labels, torch.arange(count) + 100 * step, Features(features, features))


def forever(make: Callable[[int], Batch] = line_batch) -> Iterator[Batch]:
    step = 0
    while True:
        yield make(step)
        step += 1


class Kept:
    """A store that remembers."""

    def __init__(self) -> None:
        self.saved: list[tuple[int, float | None]] = []
        self.state: Any = None

    def save(self, state: Mapping[str, Any], score: float | None) -> None:
        self.saved.append((state["progress"]["step"], score))
        self.state = state


class Recorded(Tracker):
    def __init__(self) -> None:
        self.values: dict[int, dict[str, float]] = {}
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def figures(self, step: int, values: Mapping[str, float], show: str | None = None) -> None:
        self.values.setdefault(step, {}).update(values)


class Scores:
    """An evaluator that gives the numbers it was told."""

    selects = "value"
    higher_is_better = True

    def __init__(self, *numbers: float) -> None:
        self.numbers = iter(numbers)
        self.modes: list[tuple[bool, bool]] = []

    def run(self, model: nn.Module, runtime: Any) -> dict[str, float]:
        self.modes.append((model.training, torch.is_grad_enabled()))
        return {"value": next(self.numbers)}


PLAN = Plan(
    total_steps=5,
    steps_per_epoch=5,
    batch_size=6,
    evaluate_every=None,
    save_every=None,
    log_every=1,
    accumulate=1,
    clip_norm=None,
    select=None,
    higher_is_better=True,
    seed=0,
)


def trainer(
    model: Objective | None = None,
    schedule: Schedule | None = None,
    precision: str = "fp32",
    evaluators: Mapping[str, Any] | None = None,
    lr: float = 0.01,
    **plan: Any,
) -> Trainer:
    model = model or Line()
    made = replace(PLAN, **plan)
    return Trainer(
        model,
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr),
        schedule or Constant(made.total_steps),
        made,
        Precision(precision, torch.device("cpu")),
        ALONE,
        Recorded(),
        Kept(),
        lambda batch: batch,
        lambda model, runtime: {name: each.run(model, runtime) for name, each in (evaluators or {}).items()},
        {"config": {"name": "test"}},
    )


def weights(loop: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in loop.objective.state_dict().items()}


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


def test_large_gradients_are_clipped_and_logged_unclipped() -> None:
    loop, free = trainer(clip_norm=0.5, lr=1.0, total_steps=1), trainer(lr=1.0, total_steps=1)
    before = weights(loop)
    for each in (loop, free):
        each.fit(forever(lambda step: line_batch(step + 50)))

    def moved(each: Trainer) -> float:
        return math.sqrt(sum(float(((value - before[name]) ** 2).sum()) for name, value in weights(each).items()))

    assert moved(loop) == pytest.approx(0.5, rel=1e-5)
    assert moved(free) > 10
    for each in (loop, free):
        assert each.tracker.values[1]["train/gradient_norm"] == pytest.approx(moved(free), rel=1e-5)


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
        return assemble.make_plan(config.Trainer(max_steps=1, batch_size=8, **values), 0, Line(), 8).micro_batch_size

    assert planned() is None and planned(micro_batch_size=3) == 3
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        planned(micro_batch_size=0)


def planned(objective: Objective, batch_size: int, micro_batch_size: int | None = None, processes: int = 1) -> Plan:
    values = config.Trainer(max_steps=1, batch_size=batch_size, micro_batch_size=micro_batch_size)
    return assemble.make_plan(values, 0, objective, 100, processes)


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


# ----------------------------------------------------------------------------------- evaluations and checkpoints


def test_evaluations_and_saves_happen_at_the_asked_steps() -> None:
    scores = Scores(1, 2, 3)
    loop = trainer(
        evaluators={"e": scores}, total_steps=7, evaluate_every=3, save_every=2, select="e/value", higher_is_better=True
    )
    assert loop.fit(forever())
    assert loop.store.saved == [(2, None), (3, 1), (4, None), (6, 2), (7, 3)]
    assert loop.tracker.values[6]["e/value"] == 2


def test_without_a_selecting_figure_evaluations_save_nothing() -> None:
    loop = trainer(evaluators={"e": Scores(1, 2, 3)}, evaluate_every=2)
    loop.fit(forever())
    assert loop.store.saved == [(5, None)]


def test_a_figure_that_should_be_small_is_saved_with_its_sign_turned() -> None:
    loop = trainer(evaluators={"e": Scores(3.0, 1.0)}, evaluate_every=3, select="e/value", higher_is_better=False)
    loop.fit(forever())
    assert loop.store.saved == [(3, -3.0), (5, -1.0)]


def test_selecting_by_a_figure_that_does_not_exist_is_an_error() -> None:
    loop = trainer(evaluators={"e": Scores(3.0)}, evaluate_every=1, select="e/other")
    with pytest.raises(
        ConfigError, match=r"trainer.select=e/other: no evaluator gives this figure \(they give e/value"
    ):
        loop.fit(forever())


def test_evaluation_runs_in_eval_mode_without_gradients_and_restores_the_mode() -> None:
    scores, model = Scores(1, 2), Line()
    for mode in (True, False):
        model.train(mode)
        evaluate(model, lambda *given: {"e": scores.run(*given)}, ALONE, Precision("fp32", torch.device("cpu")))
        assert model.training == mode
    assert scores.modes == [(False, False)] * 2


def test_plateau_waits_on_the_selecting_figure_and_its_state_is_saved() -> None:
    def loop() -> Trainer:
        schedule = Plateau(9, decay=0.5, patience=0)
        scores = Scores(1, 5, 4, 3, 6, 6)
        return trainer(schedule=schedule, evaluators={"e": scores}, total_steps=6, evaluate_every=1, select="e/value")

    first = loop()
    first.fit(forever())
    rates = [first.tracker.values[step]["train/learning_rate"] for step in range(1, 7)]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.0025, 0.0025])
    second = loop()
    second.restore(first.store.state)
    assert second.schedule.state_dict() == {"current": 0.125, "best": 6, "waited": 0}
    assert second.schedule.factor(6) == 0.125


class _Figure(Scores):
    higher_is_better = False


def test_the_selecting_figure_is_the_first_evaluators_unless_named() -> None:
    def chosen(**values: Any) -> tuple[str | None, bool]:
        plan = evaluators.with_selector(
            replace(PLAN, evaluate_every=1), config.Trainer(**values), {"a": Scores(), "b": _Figure()}, Line()
        )
        return plan.select, plan.higher_is_better

    assert chosen() == ("a/value", True)
    assert chosen(select="b/value") == ("b/value", False)
    assert chosen(select="b/other", select_mode="min") == ("b/other", False)
    with pytest.raises(ConfigError, match=r"trainer.select_mode=max\|min"):
        chosen(select="b/other")
    assert chosen(select="b/other", select_mode="max") == ("b/other", True)
    assert chosen(select_mode="min") == ("a/value", False)
    with pytest.raises(ConfigError, match=r"trainer.select=aa/x: no evaluator aa \(did you mean `a`"):
        chosen(select="aa/x")


def test_selecting_without_evaluations_is_an_error() -> None:
    for select, mode in (("a/value", None), ("a/other", "min")):
        values = config.Trainer(select=select, select_mode=mode)
        with pytest.raises(ConfigError, match=f"trainer.select={select}: nothing is evaluated; set trainer.evaluate_e"):
            evaluators.with_selector(PLAN, values, {"a": Scores()}, Line())
    assert evaluators.with_selector(PLAN, config.Trainer(), {"a": Scores()}, Line()).select is None


class _RisingLoss(Line):
    loss_selects: ClassVar[bool] = False


@pytest.mark.parametrize(
    ("objective", "select", "chosen"),
    [
        (Line, None, ("loss/total", False)),
        (_RisingLoss, None, ("a/value", True)),
        (_RisingLoss, "loss/total", ("loss/total", False)),
    ],
)
def test_a_loss_that_tells_nothing_of_the_model_selects_only_when_it_is_named(
    objective: type[Objective], select: str | None, chosen: tuple[str, bool]
) -> None:
    data: Any = FixedData((), {"valid": (torch.zeros(2, 3, 16, 16), torch.zeros(2, 0), ["", ""], ["", ""])})
    loss, plan = Loss(data, batch_size=2), replace(PLAN, evaluate_every=1)
    found = evaluators.with_selector(plan, config.Trainer(select=select), {"loss": loss, "a": Scores()}, objective())
    assert (found.select, found.higher_is_better) == chosen
    if select is None:
        alone = evaluators.with_selector(plan, config.Trainer(), {"loss": loss}, objective()).select
        assert alone == ("loss/total" if objective.loss_selects else None)


# ------------------------------------------------------------------------------------------------- not a number


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_step_and_rows() -> None:
    loop, kept = trainer(), {}

    def batches(step: int) -> Batch:
        batch = line_batch(step)
        if step == 2:
            kept.update(weights(loop))
            batch.seen.pooled[1, 1] = torch.nan
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


# -------------------------------------------------------------------------------------------------------- resuming


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("data") / "set", studies=40, size=40)


HARD = (  # all that draws random numbers: augmentation, sentences, dropout, BatchNorm's batches
    "data.reports.sentences=2",
    "transform.blur_probability=0.5",
    "text_encoder.dropout=0.2",
    "schedule=cosine",
    "trainer.warmup_steps=3",
    "trainer.max_steps=20",
    "trainer.evaluate_every_steps=5",
    "trainer.batch_size=8",
)


def run(
    data: Path, folder: Path, stop_at: int | None = None, workers: int = 0, extra: tuple[str, ...] = ()
) -> app.Trained:
    values = settings(data, folder, *HARD, *extra)
    values["data"]["num_workers"] = workers
    values["evals"] = {"stops": {"_target_": "helpers.StopsRun"}}
    StopsRun.at = stop_at
    return app.train(values, packages=PACKAGES)


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = run(data, tmp_path_factory.mktemp("unbroken"))
    assert done.finished and done.steps == 20
    return checkpoint.load(done.folder / "checkpoints" / "last.pt")


def test_a_stopped_run_goes_on_to_exactly_the_same_weights(
    data: Path, tmp_path: Path, unbroken: dict[str, Any]
) -> None:
    # 28 studies in batches of 8 are 3 steps an epoch: step 10 lies inside the fourth.
    first = run(data, tmp_path, stop_at=2)
    assert not first.finished and first.steps == 10
    half = checkpoint.load(tmp_path / "checkpoints" / "last.pt")
    assert not equal_everywhere(half["model"], unbroken["model"])
    second = run(data, tmp_path, workers=2)
    assert second.finished and second.steps == 20
    last = checkpoint.load(tmp_path / "checkpoints" / "last.pt")
    assert equal_everywhere(last["model"], unbroken["model"])
    assert equal_everywhere(last["optimizer"], unbroken["optimizer"])
    assert last["optimizer"]["state"] and any("running_mean" in key for key in last["model"])
    # The same command on a finished run changes nothing.
    again = run(data, tmp_path)
    assert again.finished and again.steps == 20
    assert equal_everywhere(checkpoint.load(tmp_path / "checkpoints" / "last.pt"), last)


def test_the_seed_decides(data: Path, tmp_path: Path, unbroken: dict[str, Any]) -> None:
    run(data, tmp_path, extra=("seed=1",))
    other = checkpoint.load(tmp_path / "checkpoints" / "last.pt")
    assert not equal_everywhere(other["model"], unbroken["model"])


def test_other_settings_in_the_same_folder_are_refused(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path, stop_at=1)
    with pytest.raises(ConfigError, match=r"other settings \(seed\)"):
        run(data, tmp_path, extra=("seed=1",))
