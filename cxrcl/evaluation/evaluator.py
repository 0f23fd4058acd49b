"""Evaluators: what measures a model on held-out data, and the collection that runs several of them in one pass."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.score_report import Scores
from cxrcl.evaluation.shared_pass import Request, SharedPass
from cxrcl.types import EvalData, Gathers


@dataclass(frozen=True)
class EvaluatorResult:
    """What one evaluator measured.

    Attributes:
        metrics: named numbers, the same in every process; nan where one does not exist.
        scores: label scores of the images, from which a report computes intervals, subgroups and comparisons.
        held_out: label scores of the held-out splits, on which thresholds and temperatures are fitted.
        artifacts: anything else that a report shows, such as `space`, `confusion` and `examples`.
    """

    metrics: Mapping[str, float]
    scores: Scores | None = None
    held_out: Scores | None = None
    artifacts: Mapping[str, Any] = field(default_factory=dict)


class Evaluator:
    """Base of all evaluators: metrics of a model on data that the constructor takes.

    A constructor is given what it names of `data` (the splits, `cxrcl.types.EvalData`), `prompts` (reads a prompts
    file: its name, labels -> label -> "pos" and "neg" -> sentences) and `batch_size`. `splits` are the scored ones,
    whose images are pooled.

    Attributes:
        needs: protocols that the model must meet.
        selects: the metric that chooses the best checkpoint where the user names none.
        higher_is_better: of that metric.
    """

    needs: ClassVar[tuple[type, ...]] = ()
    selects: ClassVar[str]
    higher_is_better: ClassVar[bool] = True

    @property
    def rule(self) -> str:
        """How the metrics are computed, in words; by default the first line of the class's docstring."""
        return (inspect.getdoc(type(self)) or "").split("\n")[0]

    def requests(self, model: nn.Module, device: torch.device) -> Sequence[Request]:
        """What `run` will need of every image.

        Raises:
            ValueError: this model cannot be evaluated so.
        """
        return ()

    def run(self, shared: SharedPass) -> EvaluatorResult:
        """Measure the model of the pass."""
        raise TypeError(f"{type(self).__name__} does not define run()")


class Evaluators:
    """Several evaluators on the same data; what they share is computed once.

    Args:
        evaluators: by name.
        data: the splits.
        batch_size: images encoded at a time.
        held_out: splits that are not scored, on which a report fits thresholds and temperatures. Empty in training.
        prompts: evaluator -> prompts file -> the sentences that it read there, for a report.
    """

    def __init__(
        self,
        evaluators: Mapping[str, Evaluator],
        data: EvalData,
        batch_size: int,
        held_out: Sequence[str] = (),
        prompts: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.evaluators, self.data, self.batch_size = dict(evaluators), data, batch_size
        self.held_out, self.prompts = tuple(held_out), prompts or {}

    def __call__(self, model: nn.Module, runtime: Gathers) -> Mapping[str, EvaluatorResult]:
        """Results by evaluator, of a model in evaluation mode.

        Raises:
            TypeError: an evaluator returns something other than an EvaluatorResult.
        """
        requests = [
            request._replace(splits=tuple(dict.fromkeys((*request.splits, *self.held_out))))
            for evaluator in self.evaluators.values()
            for request in evaluator.requests(model, runtime.device)
        ]
        shared = SharedPass(model, runtime, self.data, self.batch_size, requests, self.held_out)
        results = {}
        for name, evaluator in self.evaluators.items():
            result: object = evaluator.run(shared)
            if not isinstance(result, EvaluatorResult):
                raise TypeError(
                    f"{type(evaluator).__name__}.run() returned a {type(result).__name__}; expected "
                    "cxrcl.evaluation.evaluator.EvaluatorResult(metrics={name: value})"
                )
            results[name] = result
        return results


def patients_of(data: EvalData, splits: Sequence[str], resamples: int) -> Patients:
    """The patients of the pooled images of some splits, and how often they are drawn."""
    return Patients([patient for split in splits for patient in data.column(split, "patient")], resamples)


def check_label_names(named: Sequence[str] | None, existing: Sequence[str], argument: str) -> None:
    """Check that labels named in an argument exist.

    Raises:
        ValueError: with the labels that do.
    """
    unknown = [name for name in named or () if name not in existing]
    if unknown:
        raise ValueError(f"{argument}: no label {', '.join(unknown)}; there are {', '.join(existing) or 'none'}")
