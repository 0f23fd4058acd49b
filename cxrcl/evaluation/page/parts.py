"""What a report is made of, as plain data: HTML, Markdown, JSON and CSV are written from this alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cxrcl.evaluation.score_report import ModelScores, ScoreReport, Scores

if TYPE_CHECKING:  # a page of scores alone needs no torch
    from cxrcl.evaluation.examples import Example
    from cxrcl.evaluation.representation import Space

Figures = Mapping[str, float]
EXAMPLES = 6  # of retrieval


class ClassSimilarity(NamedTuple):
    """Cosines [C, C] between the prompts of classes."""

    classes: tuple[str, ...]
    cosines: np.ndarray


class ClassConfusion(NamedTuple):
    """Films [C, C] by class (row) and by the class that was chosen (column)."""

    classes: tuple[str, ...]
    counts: np.ndarray


@dataclass(frozen=True)
class Films:
    """The films that were scored, [N]: names as they stand in the manifest, and splits."""

    images: Sequence[str]
    splits: Sequence[str]


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint gave.

    Attributes:
        facts: what holds for this one alone: its file, step, weights, what it was trained on.
        figures: evaluator -> figure -> value.
        scores, confusions, spaces, examples: by evaluator, of those that give any.
        at_start: evaluator -> class similarity of the weights that training began with.
        training: lines of metrics.jsonl, `step` among their keys.
        films: of `scores`.
    """

    name: str
    facts: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Figures] = field(default_factory=dict)
    scores: Mapping[str, Scores] = field(default_factory=dict)
    confusions: Mapping[str, ClassConfusion] = field(default_factory=dict)
    spaces: Mapping[str, Space] = field(default_factory=dict)
    examples: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    at_start: Mapping[str, ClassSimilarity] = field(default_factory=dict)
    training: Sequence[Mapping[str, float | None]] = ()
    films: Films | None = None


def from_look(
    name: str,
    facts: Mapping[str, str],
    figures: Mapping[str, Figures],
    left: Mapping[str, Mapping[str, Any]],
    at_start: Mapping[str, ClassSimilarity] | None = None,
    training: Sequence[Mapping[str, float | None]] = (),
) -> Checkpoint:
    """Of what an `Evaluation` found and left.

    Examples are read from the data here, so they must be open still.
    """
    return Checkpoint(
        name=name,
        facts=facts,
        figures=figures,
        scores={key: found["scores"] for key, found in left.items() if "scores" in found},
        confusions={key: ClassConfusion(**found["confusion"]) for key, found in left.items() if "confusion" in found},
        spaces={key: found["space"] for key, found in left.items() if "space" in found},
        examples={key: found["examples"](EXAMPLES) for key, found in left.items() if "examples" in found},
        at_start=at_start or {},
        training=training,
    )


@dataclass(frozen=True)
class Page:
    """Attributes:
    facts: what was scored and how; values are texts, numbers, or {text: text}. Keys that end with ` rule` are rules.
    notes: warnings, such as data that a checkpoint was trained on.
    scores: evaluator -> label scores of all models; they share films, labels and truth. The models of an evaluator
        are named as the checkpoints.
    controls: names of models, and of evaluators, that are there to compare with: random weights, shuffled films.
    config: as text; command: what was typed.
    """

    title: str
    facts: Mapping[str, Any]
    notes: Sequence[str] = ()
    checkpoints: Sequence[Checkpoint] = ()
    scores: Mapping[str, ScoreReport] = field(default_factory=dict)
    controls: Sequence[str] = ()
    config: str = ""
    command: str = ""

    @property
    def proper(self) -> list[Checkpoint]:
        """Those that are no controls."""
        return [one for one in self.checkpoints if one.name not in self.controls]

    def of(self, model: str, evaluator: str) -> str:
        """How figures of this evaluator are called: the model is named unless it is the only checkpoint."""
        if not evaluator:
            return model
        return evaluator if [one.name for one in self.proper] == [model] else f"{model} / {evaluator}"

    def series(self) -> dict[str, Scores]:
        """Label scores of every checkpoint and evaluator, by how they are called."""
        return {self.of(one.name, name): found for one in self.checkpoints for name, found in one.scores.items()}

    def models(self) -> list[ModelScores]:
        """Those that are no controls, under the names that they are called by."""
        return [
            model
            for evaluator in self.scores
            if evaluator not in self.controls
            for model in self.of_evaluator(evaluator)
        ]

    def of_evaluator(self, evaluator: str) -> list[ModelScores]:
        """Its models that are no controls."""
        models = self.scores[evaluator].models
        return [self._called(evaluator, model) for model in models if model.name not in self.controls]

    def controls_of(self, evaluator: str) -> list[ModelScores]:
        """Controls among its models."""
        return [model for model in self.scores[evaluator].models if model.name in self.controls]

    def _called(self, evaluator: str, model: ModelScores) -> ModelScores:
        return replace(model, name=self.of(model.name, evaluator))


def of_scores(report: ScoreReport, scores: Mapping[str, Scores] | None = None, title: str = "Scores") -> Page:
    """A page for predictions of any origin; curves are drawn of `scores`, by model."""
    models = [Checkpoint(name=name, scores={"": found}) for name, found in (scores or {}).items()]
    return Page(title=title, facts=report.facts, notes=report.notes, scores={"": report}, checkpoints=models)
