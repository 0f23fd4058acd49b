"""The loop. It knows no objective, data set or metric by name."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cxrcl.checkpoint.content import Progress, TrainingState
from cxrcl.data.exposure import Exposure
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError, DataError
from cxrcl.evaluation.evaluator import EvaluatorResult
from cxrcl.objectives.base import Objective
from cxrcl.training.averaging import Average
from cxrcl.training.micro_batch import BatchGradient
from cxrcl.training.optim import Schedule
from cxrcl.training.tracking import Tracker
from cxrcl.types import Batch, StepOutput

Evaluators = Callable[[nn.Module, Runtime], Mapping[str, EvaluatorResult]]  # results by evaluator


class Store(Protocol):
    """Where checkpoints go."""

    def save(self, state: TrainingState, score: float | None) -> None:
        """Keep `state` as the last checkpoint, and among the best if `score` (higher is better) says so."""


@dataclass(frozen=True)
class Plan:
    """The run in steps: every duration was converted once, before it began."""

    total_steps: int
    steps_per_epoch: int
    batch_size: int  # over all processes
    evaluate_every: int | None
    save_every: int | None
    log_every: int
    accumulate: int
    clip_norm: float | None
    select: str | None
    higher_is_better: bool
    seed: int
    micro_batch_size: int | None = None  # samples of a process that go through the encoders at a time; None: all
    ema_decay: float | None = None  # of the weights that are evaluated; None: the trained ones themselves
    max_bad_fraction: float = 0.0  # of the samples so far: the run stops when more had an image that cannot be read
    patience: int | None = None  # evaluations without a better `select` after which the run ends; None: never


SAMPLES_BEFORE_BAD_FRACTION_COUNTS = 100  # a fraction of fewer means little


class NonFinite(RuntimeError):
    """The loss or the gradient is not a number; nothing of it was saved."""

    argument = "learning_rate"  # what mends it, as in `cxrcl.errors.UserError`


class _StopRequest:
    """SIGTERM, SIGUSR1, SIGUSR2 and the first Ctrl-C ask for a stop after the step; a second Ctrl-C stops at once."""

    NAMES = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: object) -> None:
        if number == signal.SIGINT and self.asked:
            raise KeyboardInterrupt
        self.asked = True

    @contextmanager
    def installed(self) -> Iterator[_StopRequest]:
        before = {name: signal.signal(name, self) for name in self.NAMES}
        try:
            yield self
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)


class Precision:
    """Autocast and loss scaling. `name` is fp32, bf16 or fp16."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> Any:
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, dtype=self.dtype)


class _FiniteLosses:
    """Whether losses are finite. The flags leave the device while backward passes run: no pipeline bubble."""

    def __init__(self) -> None:
        self.flags: list[Tensor] = []
        self.arrived: torch.cuda.Event | None = None

    def watch(self, loss: Tensor) -> None:
        self.flags.append(torch.isfinite(loss.detach()).to("cpu", non_blocking=True))
        if loss.device.type == "cuda":
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def all(self) -> bool:
        if self.arrived is not None:
            self.arrived.synchronize()
        return all(map(bool, self.flags))


class Trainer:
    """Runs an objective to the end of its plan.

    Args:
        objective: on its device.
        prepare: host batch -> device-ready batch.
        evaluators: gives results by evaluator, whose metrics are logged as <evaluator>/<metric>.
        why_unreadable: row of an image that cannot be read -> the reason, for messages.
        exposure: gives what the model has been trained on so far, for checkpoints; every process calls it.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        plan: Plan,
        precision: Precision,
        runtime: Runtime,
        tracker: Tracker,
        store: Store,
        prepare: Callable[[Batch], Batch],
        evaluators: Evaluators,
        why_unreadable: Callable[[int], str] = lambda row: "the image cannot be read",
        exposure: Callable[[], Exposure | None] = lambda: None,
    ) -> None:
        self.objective, self.optimizer, self.schedule = objective, optimizer, schedule
        self.average = None if plan.ema_decay is None else Average(objective, plan.ema_decay)
        self.plan, self.precision, self.runtime = plan, precision, runtime
        self.tracker, self.store, self.prepare = tracker, store, prepare
        self.evaluators = evaluators
        self.gradient = BatchGradient(
            objective, runtime, precision.autocast, lambda loss: precision.scaler.scale(loss), plan.micro_batch_size
        )
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.done = 0  # updates applied or skipped by the loss scaler
        self.seconds = 0.0  # of training, over all sittings
        self.best_score = -math.inf  # of the selecting metric, higher is better
        self.waited = 0  # evaluations since then
        self.stopped_early = False
        self.why_unreadable, self.exposure = why_unreadable, exposure
        self.bad_images = 0  # samples in whose place others stood, of all processes and sittings
        self._bad_rows: list[int] = []  # those of this process that are not counted yet
        self._reported_bad_rows: set[int] = set()
        self._bad_gradient = torch.zeros((), device=runtime.device)

    # ------------------------------------------------------------------------------------------ the loop

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to do: the plan's end, or `patience` is used up."""
        return self.stopped_early or self.done >= self.plan.total_steps

    def fit(self, batches: Iterator[Batch]) -> bool:
        """Train on host batches (`accumulate` of them a step) until `complete`; False when asked to stop before."""
        plan = self.plan
        self.objective.train()  # not in each step: it walks all modules, which takes longer than the step of a probe
        self.tracker.begin(self.done, plan.total_steps, plan.batch_size * plan.accumulate)
        with _StopRequest().installed() as request:
            while not self.complete:
                started = time.monotonic()
                step_batches = [next(batches) for _ in range(plan.accumulate)]
                for batch in step_batches:
                    if batch.unreadable_row is not None:
                        self._bad_rows += batch.unreadable_row[batch.unreadable_row > 0].tolist()
                logs = self._step(step_batches)
                self.done += 1
                self.seconds += time.monotonic() - started
                if self.done % plan.log_every == 0 or self.done == plan.total_steps:
                    self._log(logs)
                self.tracker.step(self.done)
                score = self._evaluate() if self._due(plan.evaluate_every) else None
                stop, self.stopped_early = self.runtime.any(request.asked, self._patience_is_over(score))
                if score is not None or stop or self._due(plan.save_every) or self.done == plan.total_steps:
                    self._save(score)
                if self.stopped_early:
                    self.tracker.say(
                        f"stopped early after step {self.done}: {plan.select} was not better in the last "
                        f"{self.waited} evaluations (patience={plan.patience})"
                    )
                if stop and not self.complete:
                    self.tracker.say(f"stopped after step {self.done}: saved; the same command goes on from there")
                    return False
        return True

    def _patience_is_over(self, score: float | None) -> bool:
        """Count the evaluations that were not better than the best one (nan is not better)."""
        if score is None:
            return False
        self.best_score, self.waited = (score, 0) if score > self.best_score else (self.best_score, self.waited + 1)
        return self.plan.patience is not None and self.waited >= self.plan.patience

    def _due(self, every: int | None) -> bool:
        return every is not None and (self.done % every == 0 or self.done == self.plan.total_steps)

    def _step(self, batches: list[Batch]) -> dict[str, Tensor]:
        # Dropout is a function of (seed, step, rank): resuming needs no generator state.
        self.runtime.seed(self.plan.seed, self.done)
        factor = self.schedule.factor(self.done)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        for k, batch in enumerate(batches):
            output = self._forward_backward(batch, 1 / len(batches), last=k == len(batches) - 1)
        self.precision.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.plan.clip_norm or math.inf)
        if not self.precision.scaler.is_enabled():  # with a scaler, an overflow is its business
            self._bad_gradient += ~torch.isfinite(norm)
        before = self.precision.scaler.get_scale()
        self.precision.scaler.step(self.optimizer)
        self.precision.scaler.update()
        if self.precision.scaler.get_scale() >= before:  # else the update was skipped
            self.objective.after_step(output, self.done, self.plan.total_steps)
            if self.average is not None:
                self.average.update()
        return {**output.logs, "gradient_norm": norm.detach()}

    def _forward_backward(self, host: Batch, weight: float, last: bool) -> StepOutput:
        finite = _FiniteLosses()
        output = self.gradient.add(self.prepare(host), weight, last, finite.watch)
        (bad,) = self.runtime.any(not finite.all())
        if bad:
            rows = [row for part in self.runtime.gather_objects(host.index.tolist()) for row in part]
            shown = ", ".join(map(str, rows[:16])) + (", ..." if len(rows) > 16 else "")
            raise NonFinite(
                f"the loss is not finite at step {self.done + 1} (rows {shown}); no update was applied. "
                "Look at these rows, lower the learning rate, or compute in fp32"
            )
        return output

    # --------------------------------------------------------------------------------- metrics and files

    def _check_gradients(self) -> None:
        (bad,) = self.runtime.any(bool(self._bad_gradient > 0))
        if bad:
            raise NonFinite(
                f"the gradient became non-finite within the {self.plan.log_every} steps before step {self.done + 1}; "
                "the last checkpoint was written before. Lower the learning rate, or compute in fp32"
            )

    def _count_bad_images(self) -> None:
        """Name each row once, and stop when too many images cannot be read: the same in every process."""
        rows = [row for part in self.runtime.gather_objects(self._bad_rows) for row in part]
        self._bad_rows = []
        self.bad_images += len(rows)
        if self.runtime.is_main:
            for row in dict.fromkeys(rows):
                if row not in self._reported_bad_rows:
                    self.tracker.say(f"image of row {row}: {self.why_unreadable(row)}; another sample stands in for it")
            self._reported_bad_rows.update(rows)
        count = self.done * self.plan.batch_size * self.plan.accumulate
        if count >= SAMPLES_BEFORE_BAD_FRACTION_COUNTS and self.bad_images > self.plan.max_bad_fraction * count:
            raise DataError(
                f"{self.bad_images} of {count} samples had an image that cannot be read, more than "
                f"max_bad_fraction={self.plan.max_bad_fraction}: mend the rows named above, or raise it",
                argument="max_bad_fraction",
            )

    def _log(self, logs: Mapping[str, Tensor]) -> None:
        self._check_gradients()
        self._count_bad_images()
        values = {name: float(self.runtime.mean(value.float())) for name, value in logs.items()}
        chance = self.objective.chance(self.plan.batch_size)
        if chance is not None:
            values["chance"] = chance
        values["bad_images"] = self.bad_images
        values["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        values["epoch"] = self.done / self.plan.steps_per_epoch
        against = f" (chance {chance:.3f})" if chance is not None else ""
        named = {f"train/{name}": value for name, value in values.items()}
        self.tracker.metrics(self.done, named, show=f"loss {values['loss']:.3f}{against}")

    def _evaluate(self) -> float | None:
        """Run all evaluators; returns the selecting metric, higher is better."""
        metrics: dict[str, float] = {}
        model = self.objective if self.average is None else self.average.model
        with self.runtime.averaged_statistics(model):
            for name, result in evaluate(model, self.evaluators, self.runtime, self.precision).items():
                metrics |= {f"{name}/{metric}": value for metric, value in result.metrics.items()}
        self.tracker.metrics(self.done, metrics)
        brief = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if name.count("/") == 1)
        if brief:
            self.tracker.say(f"step {self.done}  {brief}")
        if self.plan.select is None:
            return None
        if self.plan.select not in metrics:
            raise ConfigError(
                f"select={self.plan.select}: no evaluator gives this metric (they give {', '.join(metrics)})",
                argument="select",
            )
        value = metrics[self.plan.select]
        self.schedule.observe(value, self.plan.higher_is_better)
        return value if self.plan.higher_is_better else -value

    def _save(self, score: float | None) -> None:
        self._check_gradients()
        self._count_bad_images()
        models = [self.objective] if self.average is None else [self.objective, self.average.model]
        with ExitStack() as stack:
            for model in models:
                stack.enter_context(self.runtime.averaged_statistics(model))
            state = self.state()
            self.runtime.main_decides(lambda: self.store.save(state, score))

    def state(self) -> TrainingState:
        """All that resuming needs. Order, augmentation, texts and dropout are functions of the step."""
        average = self.average
        return TrainingState(
            weights=self.objective.state_dict(),
            average=None if average is None else average.state_dict(),
            average_updates=0 if average is None else average.updates,
            optimizer=self.optimizer.state_dict(),
            schedule=self.schedule.state_dict(),
            scaler=self.precision.scaler.state_dict(),
            progress=Progress(
                step=self.done,
                total=self.plan.total_steps,
                seconds=self.seconds,
                bad_images=self.bad_images,
                best_score=self.best_score,
                waited=self.waited,
                stopped_early=self.stopped_early,
            ),
            exposure=self.exposure(),
        )

    def restore(self, state: TrainingState) -> None:
        """Go on from what `state` gave."""
        assert state.weights is not None  # an exported model is refused before
        self.objective.load_state_dict(state.weights)
        if self.average is not None and state.average is not None:
            self.average.load_state_dict(state.average, state.average_updates)
        self.optimizer.load_state_dict(dict(state.optimizer))
        self.schedule.load_state_dict(dict(state.schedule))
        self.precision.scaler.load_state_dict(dict(state.scaler))
        progress = state.progress
        self.done, self.seconds, self.bad_images = progress.step, progress.seconds, progress.bad_images
        self.best_score, self.waited, self.stopped_early = progress.best_score, progress.waited, progress.stopped_early


def evaluate(
    model: Objective, evaluators: Evaluators, runtime: Runtime, precision: Precision
) -> Mapping[str, EvaluatorResult]:
    """Results of the evaluators for a model, in evaluation mode and without gradients."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), precision.autocast():
            return evaluators(model.evaluated(), runtime)
    finally:
        model.train(was_training)
