"""Questions about images (labels, sentences, phrases), and what answers them with a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cxrcl.checkpoint.content import Recipe
from cxrcl.config.nodes import nearest
from cxrcl.data.text import prompts as prompt_files
from cxrcl.data.text.prompts import ANY, Prompts
from cxrcl.errors import ConfigError
from cxrcl.evaluation.embed import embed_texts
from cxrcl.inference.probabilities import ClassifierProbabilities, LabelProbabilities, ZeroShotProbabilities
from cxrcl.types import Classifies, EmbedsImages, EmbedsText, Features, ScalesSimilarity

SHOWN = 5  # best-matching sentences of an image
ANY_NAME = "; --prompts pair.json makes sentences of any name"


@dataclass(frozen=True)
class Questions:
    """Questions of a user; errors name them as options of inference.py.

    Attributes:
        labels: these only; None: those of the checkpoint, or of the prompts file.
        prompts: a prompts file; None: the shipped one, and for other labels the training's.
        sentences: a file of sentences, one a line, that images are compared with; None: the prompts.
        phrases: texts whose cosine with every image is reported.
    """

    labels: Sequence[str] | None = None
    prompts: str | None = None
    sentences: str | None = None
    phrases: Sequence[str] = ()


ALL = Questions()  # every label that the checkpoint has


def sentences_of(recipe: Recipe) -> tuple[Prompts, list[str]]:
    """The shipped sentences, and for other labels those that training used; and the labels to score.

    These are the labels of the data that have both sides; where none has, those of the shipped file.
    """
    shipped = prompt_files.load("zero_shot.json")
    sentences = {**recipe.prompt_sentences, **shipped}
    labels = [name for name in recipe.labels if sentences.get(name, {}).get("neg")]
    return sentences, labels or list(shipped)


def has_words(phrase: str) -> bool:
    """Whether a phrase has a letter or digit: a model has a vector for '...' too, which means nothing."""
    return any(map(str.isalnum, phrase))


class Answerer:
    """Answers one model's questions about images; the texts are encoded once.

    Attributes:
        labels: that get a probability.
        probabilities: how they are computed.

    Raises:
        ConfigError: the model answers nothing, or not this question.
    """

    labels: list[str]
    probabilities: LabelProbabilities

    def answers(self, features: Features) -> list[dict[str, Any]]:
        """An entry for each of B images, with `probabilities` and whatever else was requested.

        Args:
            features: what `encode_images` gives for the images.
        """
        return [{"probabilities": row} for row in self.probabilities.from_features(features)]


class ClassifierAnswerer(Answerer):
    """Answers of a classifier.

    Attributes:
        columns: of the classifier, one for each of `labels`.
    """

    def __init__(self, model: Any, recipe: Recipe, questions: Questions) -> None:
        texts = {"--prompts": questions.prompts, "--sentences": questions.sentences, "--phrase": questions.phrases}
        for option, value in texts.items():
            if value:
                raise ConfigError(f"{option}: this checkpoint is a classifier and reads no text")
        classes = list(recipe.labels)
        self.labels = classes if questions.labels is None else _checked_labels(questions.labels, classes)
        self.columns = [classes.index(name) for name in self.labels]
        self.probabilities = ClassifierProbabilities(model, classes)

    def answers(self, features: Features) -> list[dict[str, Any]]:
        rows = self.probabilities.from_features(features)
        return [{"probabilities": {name: row[name] for name in self.labels}} for row in rows]


class ZeroShotAnswerer(Answerer):
    """Answers of a model that compares images with texts.

    Attributes:
        directions: float32 [L, D], mean positive minus mean negative prompt of each label.
        phrases: P texts.
        phrase_vectors: their unit vectors, float32 [P, D].
    """

    def __init__(self, model: Any, recipe: Recipe, questions: Questions, device: torch.device) -> None:
        prompts, self.labels = _prompts(recipe, questions)
        sentences = None if questions.sentences is None else _lines(questions.sentences)
        if blank := [phrase for phrase in questions.phrases if not has_words(phrase)]:
            raise ConfigError(f"--phrase {blank[0]!r}: expected words, such as 'left pleural effusion'")
        self.probabilities = probabilities = ZeroShotProbabilities(model, prompts, self.labels, device)
        self.directions = probabilities.directions
        of_labels = [text for name in self.labels for side in ("pos", "neg") for text in prompts[name][side]]
        self.sentences = list(dict.fromkeys(of_labels if sentences is None else sentences))
        self.phrases = list(dict.fromkeys(questions.phrases))
        embedded = embed_texts(model, [*self.sentences, *self.phrases], device)
        self._model, self._texts = model, embedded
        self.phrase_vectors = embedded[len(self.sentences) :]

    def answers(self, features: Features) -> list[dict[str, Any]]:
        embedded = self._model.embed_images(features).float().cpu()
        with torch.autocast("cpu", enabled=False):  # bf16 would make ties of near neighbours
            cosines = embedded @ self._texts.T
        entries = super().answers(features)
        for entry, row in zip(entries, cosines, strict=True):
            entry["sentences"] = self._best_sentences(row[: len(self.sentences)])
            if self.phrases:
                entry["phrases"] = dict(zip(self.phrases, row[len(self.sentences) :].tolist(), strict=True))
        return entries

    def _best_sentences(self, cosines: Tensor) -> list[dict[str, Any]]:
        """The most similar sentences, the best first, from the cosines of all, [S]."""
        values, places = cosines.topk(min(SHOWN, len(cosines)))
        return [{"text": self.sentences[k], "cosine": v} for k, v in zip(places.tolist(), values.tolist())]


def answerer_for(
    model: nn.Module, recipe: Recipe, questions: Questions, device: torch.device
) -> ClassifierAnswerer | ZeroShotAnswerer:
    """What answers questions to this model.

    Raises:
        ConfigError: the model answers nothing, or not this question.
    """
    if isinstance(model, Classifies):
        return ClassifierAnswerer(model, recipe, questions)
    if isinstance(model, EmbedsImages) and isinstance(model, EmbedsText) and isinstance(model, ScalesSimilarity):
        return ZeroShotAnswerer(model, recipe, questions, device)
    raise ConfigError(
        f"{type(model).__name__} neither classifies nor compares images with text: train a classifier on it with "
        "finetune.py init_from=CHECKPOINT"
    )


def _prompts(recipe: Recipe, questions: Questions) -> tuple[Prompts, list[str]]:
    """Sentences by label, and the labels to read."""
    if questions.prompts is None:
        sentences, labels = sentences_of(recipe)
        if questions.labels is None:
            return sentences, labels
        return sentences, _checked_labels(questions.labels, _two_sided(sentences), ANY_NAME)
    try:
        sentences = prompt_files.load(questions.prompts)
    except ValueError as error:
        raise ConfigError(f"--prompts: {error}") from None
    if ANY in sentences:
        requested = recipe.labels if questions.labels is None else questions.labels
        if not requested:
            raise ConfigError(
                f"--prompts {questions.prompts}: for any label, and the checkpoint has none: add --labels"
            )
        sentences = prompt_files.fill(sentences, requested)
        labels = [name for name in requested if sentences[name].get("neg")]
    else:
        labels = _two_sided(sentences)
    if not labels:
        raise ConfigError(
            f"--prompts {questions.prompts}: no label has `neg` sentences: a probability needs both sides"
        )
    if questions.labels is None:
        return sentences, labels
    return sentences, _checked_labels(questions.labels, _two_sided(sentences))


def _two_sided(sentences: Prompts) -> list[str]:
    """Labels with positive and negative sentences."""
    return [name for name, kinds in sentences.items() if kinds.get("neg") and name != ANY]


def _checked_labels(labels: Sequence[str], existing: Sequence[str], remedy: str = "") -> list[str]:
    """The labels, each of which must exist: a misspelt one would be taken for a finding in silence."""
    if not labels or not all(labels):
        raise ConfigError("--labels: expected names separated by commas, such as 'Edema,Pleural Effusion'")
    if twice := sorted({name for name in labels if list(labels).count(name) > 1}):
        raise ConfigError(f"--labels: {', '.join(twice)} is named twice")
    for name in labels:
        if name not in existing:
            raise ConfigError(f"--labels: no such label {name!r}{nearest(name, existing)}{remedy}")
    return list(labels)


def _lines(file: str) -> list[str]:
    """The lines of a file of sentences that are not blank."""
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"--sentences {file}: cannot be read ({reason})") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ConfigError(f"--sentences {file}: no sentence in it, expected one a line")
    return lines
