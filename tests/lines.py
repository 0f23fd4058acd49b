"""A trainer of a line, whose parts remember what the loop does with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from helpers import ALONE
from torch import Tensor, nn

from cxrcl.checkpoint.content import TrainingState
from cxrcl.evaluation.evaluator import EvaluatorResult
from cxrcl.objectives.base import Objective
from cxrcl.training.optim import Constant, Schedule
from cxrcl.training.tracking import Tracker
from cxrcl.training.trainer import Plan, Precision, Trainer
from cxrcl.types import Batch, Features, StepOutput


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
        assert batch.image_features is not None
        return {"value": self.layer(batch.image_features.pooled)}

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

    def save(self, state: TrainingState, score: float | None) -> None:
        self.saved.append((state.progress.step, score))
        self.state = state


class Recorded(Tracker):
    def __init__(self) -> None:
        self.values: dict[int, dict[str, float]] = {}
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def metrics(self, step: int, values: Mapping[str, float], show: str | None = None) -> None:
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
        lambda model, runtime: {
            name: EvaluatorResult(each.run(model, runtime)) for name, each in (evaluators or {}).items()
        },
    )


def weights(loop: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in loop.objective.state_dict().items()}
