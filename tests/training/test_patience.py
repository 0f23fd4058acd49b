"""Early stopping: when a run ends, that it stays ended, and that all processes end together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from checkpoints import plain_checkpoint
from helpers import ALONE, batch_of, in_processes, said_once, settings, write_manifest
from torch import Tensor, nn

from cxrcl.app.train import train
from cxrcl.checkpoint.content import Progress, TrainingState
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError
from cxrcl.evaluation.evaluator import EvaluatorResult
from cxrcl.objectives.base import Objective
from cxrcl.training.optim import Constant
from cxrcl.training.tracking import Tracker
from cxrcl.training.trainer import Plan, Precision, Trainer
from cxrcl.types import Batch, StepOutput


class Point(Objective):
    """One weight."""

    per_sample: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        return {"value": self.weight.expand(len(batch.index))}

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        loss = (embeddings["value"] ** 2).mean()
        return StepOutput(loss, {"loss": loss.detach()}, {})


class Kept:
    state: Any = None

    def save(self, state: TrainingState, score: float | None) -> None:
        self.state = state


class Said(Tracker):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def forever() -> Iterator[Batch]:
    while True:
        yield batch_of(torch.zeros(2, 3, 4, 4))


def trainer(numbers: Sequence[float], patience: int | None, runtime: Runtime = ALONE, better: str = "max") -> Trainer:
    """Ten steps with an evaluation after each, which finds these numbers one after the other."""
    model, found = Point(), iter(numbers)
    plan = Plan(10, 10, 2, 1, None, 1, 1, None, "e/value", better == "max", 0, patience=patience)
    return Trainer(
        *(model, torch.optim.SGD(model.parameters(), lr=0.01), Constant(10), plan),
        *(Precision("fp32", torch.device("cpu")), runtime, Said(), Kept(), lambda batch: batch),
        lambda model, runtime: {"e": EvaluatorResult({"value": next(found)})},
    )


@pytest.mark.parametrize(
    ("numbers", "patience", "better", "steps"),
    [
        ([1, 2, 2, 1], 2, "max", 4),  # an equal figure is not a better one
        ([1, 2, 2], 1, "max", 3),
        ([1, 2, 1, 3, 2, 1, 4, 1, 1, 1], 3, "max", 10),  # the plan's end comes first, or at the same step
        ([3, 2, 4, 5], 2, "min", 4),
        ([1, math.nan, math.nan], 2, "max", 3),
        (range(10, 0, -1), None, "max", 10),
    ],
)
def test_a_run_ends_after_so_many_evaluations_that_are_not_better(
    numbers: Sequence[float], patience: int | None, better: str, steps: int
) -> None:
    loop = trainer(numbers, patience, better=better)
    assert loop.fit(forever()) and loop.complete
    assert loop.done == steps
    said = any("stopped early" in line for line in loop.tracker.lines)  # type: ignore[attr-defined]
    assert said == loop.stopped_early == loop.store.state.progress.stopped_early  # type: ignore[attr-defined]
    assert loop.stopped_early or steps == 10


def test_evaluations_that_were_waited_for_count_after_going_on() -> None:
    first = trainer([2, 1], patience=2)
    first.plan = Plan(**{**vars(first.plan), "total_steps": 2})
    first.fit(forever())
    assert not first.stopped_early
    second = trainer([1, 1, 1], patience=2)
    second.restore(first.store.state)  # type: ignore[attr-defined]
    assert second.fit(forever()) and second.done == 3
    third = trainer([], patience=2)
    third.restore(second.store.state)  # type: ignore[attr-defined]
    assert third.complete and third.fit(forever()) and third.done == 3


def test_a_checkpoint_of_before_there_was_patience_can_go_on() -> None:
    first = trainer([1], patience=None)
    state = first.state()
    progress = Progress(step=state.progress.step, total=state.progress.total, seconds=state.progress.seconds)
    second = trainer([1, 1], patience=1)
    second.restore(replace(state, progress=progress))
    assert not second.complete and second.fit(forever()) and second.done == 2


# ------------------------------------------------------------------------------------------------ processes


def _in_one_of_two(runtime: Runtime, folder: Path) -> tuple[int, bool]:
    """The first process finds better and better figures, the second worse and worse."""
    torch.manual_seed(0)
    loop = trainer(range(10) if runtime.rank == 0 else range(10, 0, -1), 2, runtime)
    loop.fit(forever())
    return loop.done, loop.stopped_early


def test_processes_that_see_different_figures_end_together(tmp_path: Path) -> None:
    assert in_processes(2, _in_one_of_two, tmp_path) == [(3, True), (3, True)]


# ------------------------------------------------------------------------------------------ the application


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("data"))


def values(data: Path, run_dir: Path, *more: str) -> dict[str, Any]:
    """A classifier that learns nothing, so that no evaluation is better than the first one."""
    given = (
        *("image_encoder=small_resnet", "image_encoder.name=test_resnet", "image_encoder.size=32"),
        *("optimizer=sgd", "optimizer.lr=1e-30", "objective.freeze_encoder=true"),
        *("trainer.max_epochs=null", "trainer.max_steps=8", "trainer.warmup_epochs=null", "trainer.batch_size=8"),
        *("trainer.evaluate_every_epochs=null", "trainer.evaluate_every_steps=1", "data.num_workers=0"),
    )
    return settings(data, run_dir, *given, *more, name="finetune")


def test_a_run_that_stopped_early_is_complete(data: Path, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    given = values(data, tmp_path / "run", "trainer.patience=2")
    done = train(given)
    assert done.finished and done.steps == 3
    assert said_once(log, "stopped early", "step 3", "classification/mean_auroc", "last 2 evaluations")
    assert plain_checkpoint(done.checkpoint)["progress"]["step"] == 1  # best.pt is the first of equals
    again = train(given)
    assert again.finished and again.steps == 3 and again.checkpoint == done.checkpoint
    assert "already complete" in log.text


@pytest.mark.parametrize("off", ["trainer.evaluate_every_steps=null", "evals=[]"])
def test_patience_without_a_figure_to_wait_for_is_an_error(data: Path, tmp_path: Path, off: str) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.patience=2: no metric is measured"):
        train(values(data, tmp_path / "run", "trainer.patience=2", off))
