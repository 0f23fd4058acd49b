"""What a report is made of, as plain data: HTML, Markdown, JSON and CSV are written from this alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cxrcl.evaluation.report.facts import DataFacts, ModelFacts
from cxrcl.evaluation.report.table import Table
from cxrcl.evaluation.report.tables import Metrics
from cxrcl.evaluation.scores.score_report import ModelScores, ScoreReport, Scores

if TYPE_CHECKING:  # a page of scores alone needs no torch
    from cxrcl.evaluation.evaluator import EvaluatorResult
    from cxrcl.evaluation.examples import Example
    from cxrcl.evaluation.representation import Space
    from cxrcl.evaluation.zero_shot_classes import ClassConfusion

EXAMPLES = 6  # of retrieval


class ClassSimilarity(NamedTuple):
    """Cosines float [C, C] between the prompts of classes."""

    classes: tuple[str, ...]
    cosines: np.ndarray


@dataclass(frozen=True)
class ScoredImages:
    """The images that were scored, [N]: names as they stand in the manifest, and splits."""

    names: Sequence[str]
    splits: Sequence[str]


@dataclass(frozen=True)
class Checkpoint:
    """The results of one checkpoint.

    Attributes:
        facts: what holds for this one alone; None of random weights and of ensembles.
        metrics: evaluator -> metric -> value.
        scores, confusions, spaces, examples: by evaluator, of those that have any.
        tables: by evaluator, of those that say themselves how their metrics are shown.
        at_start: evaluator -> class similarity of the weights that training began with.
        training: lines of metrics.jsonl, `step` among their keys.
        images: of `scores`.
        found: what each of them is in the record of what the checkpoint was trained on (see `output`); () without one.
    """

    name: str
    facts: ModelFacts | None = None
    metrics: Mapping[str, Metrics] = field(default_factory=dict)
    scores: Mapping[str, Scores] = field(default_factory=dict)
    confusions: Mapping[str, ClassConfusion] = field(default_factory=dict)
    spaces: Mapping[str, Space] = field(default_factory=dict)
    examples: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Table]] = field(default_factory=dict)
    at_start: Mapping[str, ClassSimilarity] = field(default_factory=dict)
    training: Sequence[Mapping[str, float | None]] = ()
    images: ScoredImages | None = None
    found: Sequence[str] = ()

    @property
    def shown_facts(self) -> dict[str, str]:
        """The facts as texts, by label."""
        return {} if self.facts is None else self.facts.shown()


def from_results(
    name: str,
    facts: ModelFacts | None,
    results: Mapping[str, EvaluatorResult],
    at_start: Mapping[str, ClassSimilarity] | None = None,
    training: Sequence[Mapping[str, float | None]] = (),
    images: ScoredImages | None = None,
    found: Sequence[str] = (),
) -> Checkpoint:
    """A checkpoint from the results of its evaluators.

    Examples are read from the data here, so they must be open still.
    """

    def artifacts(kind: str) -> dict[str, Any]:
        return {name: result.artifacts[kind] for name, result in results.items() if kind in result.artifacts}

    return Checkpoint(
        name=name,
        facts=facts,
        metrics={name: result.metrics for name, result in results.items()},
        scores={name: result.scores for name, result in results.items() if result.scores is not None},
        confusions=artifacts("confusion"),
        spaces=artifacts("space"),
        examples={name: make(EXAMPLES) for name, make in artifacts("examples").items()},
        tables=artifacts("tables"),
        at_start=at_start or {},
        training=training,
        images=images,
        found=found,
    )


@dataclass(frozen=True)
class Page:
    """The content of one report.

    Attributes:
        data: what was scored and how; None for predictions of any origin.
        facts: further facts; values are texts, numbers, or {text: text}.
        notes: warnings, such as data that a checkpoint was trained on.
        scores: evaluator -> label scores of all models, on the same images and labels. The models of an evaluator are
            named as the checkpoints.
        controls: names of models, and of evaluators, that are there to compare with: random weights, shuffled images.
        config: the settings as text.
        command: what was typed.
        run: these again for programs, with the code, the environment and the time, as plain values.
    """

    title: str
    data: DataFacts | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    checkpoints: Sequence[Checkpoint] = ()
    scores: Mapping[str, ScoreReport] = field(default_factory=dict)
    controls: Sequence[str] = ()
    config: str = ""
    command: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def proper(self) -> list[Checkpoint]:
        """Checkpoints that are no controls."""
        return [one for one in self.checkpoints if one.name not in self.controls]

    def shown_facts(self, with_rules: bool = True) -> dict[str, Any]:
        """Facts of the data, after those of the model where there is only one, by label."""
        model = self.proper[0].shown_facts if len(self.proper) == 1 else {}
        data = {} if self.data is None else self.data.shown(with_rules)
        return {**model, **data, **self.facts}

    def of(self, model: str, evaluator: str) -> str:
        """What the results of this evaluator are called: the model is named unless it is the only checkpoint."""
        if not evaluator:
            return model
        return evaluator if [one.name for one in self.proper] == [model] else f"{model} / {evaluator}"

    def metrics(self, with_controls: bool = True) -> dict[str, Metrics]:
        """Metrics of every checkpoint and evaluator, by how they are called; checkpoints that are controls at will."""
        checkpoints = self.checkpoints if with_controls else self.proper
        return {self.of(one.name, name): metrics for one in checkpoints for name, metrics in one.metrics.items()}

    def tables(self, with_controls: bool = True) -> dict[str, Sequence[Table]]:
        """Tables that evaluators made themselves, by how their results are called; of controls at will."""
        checkpoints = self.checkpoints if with_controls else self.proper
        return {self.of(one.name, name): made for one in checkpoints for name, made in one.tables.items()}

    def series(self) -> dict[str, Scores]:
        """Label scores of every checkpoint and evaluator, by how they are called."""
        return {self.of(one.name, name): scores for one in self.checkpoints for name, scores in one.scores.items()}

    def models(self) -> list[ModelScores]:
        """Scores of models that are no controls, under the names that they are called by."""
        return [
            model
            for evaluator in self.scores
            if evaluator not in self.controls
            for model in self.of_evaluator(evaluator)
        ]

    def of_evaluator(self, evaluator: str) -> list[ModelScores]:
        """Scores of an evaluator's models that are no controls."""
        return [
            replace(model, name=self.of(model.name, evaluator))
            for model in self.scores[evaluator].models
            if model.name not in self.controls
        ]

    def controls_of(self, evaluator: str) -> list[ModelScores]:
        """Scores of controls among an evaluator's models."""
        return [model for model in self.scores[evaluator].models if model.name in self.controls]


def of_scores(report: ScoreReport, scores: Mapping[str, Scores] | None = None) -> Page:
    """A page for predictions of any origin; curves are drawn of `scores`, by model."""
    models = [Checkpoint(name=name, scores={"": part}) for name, part in (scores or {}).items()]
    return Page(title="Scores", facts=report.facts, notes=report.notes, scores={"": report}, checkpoints=models)
