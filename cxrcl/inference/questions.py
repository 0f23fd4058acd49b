"""What is asked of films: labels, sentences, phrases; and the answers of a model that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cxrcl import config
from cxrcl.data import prompts as prompt_files
from cxrcl.data.prompts import ANY, Prompts
from cxrcl.errors import ConfigError
from cxrcl.evaluation.embed import embed_texts
from cxrcl.evaluation.readers import ClassifierReader, Reader, ZeroShotReader
from cxrcl.types import Classifies, EmbedsImages, EmbedsText, Features, ScalesSimilarity

SHOWN = 5  # best-matching sentences of a film
ANY_NAME = "; --prompts pair.json makes sentences of any name"


@dataclass(frozen=True)
class Asked:
    """What a user asks for; errors name these as options of inference.py.

    Attributes:
        labels: read these only; None: those of the checkpoint, or of the prompts file.
        prompts: a prompts file; None: the shipped one, and for other labels the training's.
        sentences: a file of sentences, one a line, that films are compared with; None: the prompts.
        phrases: texts whose cosine is told for every film.
    """

    labels: Sequence[str] | None = None
    prompts: str | None = None
    sentences: str | None = None
    phrases: Sequence[str] = ()


ALL = Asked()  # every label that the checkpoint has


def sentences_of(stored: Mapping[str, Any]) -> tuple[Prompts, list[str]]:
    """The shipped sentences, and for labels of the user's own those that training used; and the labels to read.

    These are the labels of the data that have both sides; where none has, those of the shipped file.
    """
    shipped = prompt_files.load("zero_shot.json")
    sentences = {**stored["prompt_sentences"], **shipped}
    labels = [name for name in stored["labels"] if sentences.get(name, {}).get("neg")]
    return sentences, labels or list(shipped)


def has_words(phrase: str) -> bool:
    """A model has a place for '...' too, but it means nothing."""
    return any(map(str.isalnum, phrase))


class Questions:
    """Questions to one model, their texts encoded once.

    Raises:
        ConfigError: the model reads nothing, or a question that it cannot answer.
    """

    labels: list[str]
    reader: Reader

    def answers(self, features: Features) -> list[dict[str, Any]]:
        """Of films as `encode_images` gives them, an entry for each: `probabilities`, and what else was asked."""
        return [{"probabilities": row} for row in self.reader.of(features)]


class ClassifierQuestions(Questions):
    """Attributes:
    columns: of the classifier, one for each of `labels`.
    """

    def __init__(self, model: Any, stored: Mapping[str, Any], asked: Asked) -> None:
        texts = {"--prompts": asked.prompts, "--sentences": asked.sentences, "--phrase": asked.phrases}
        for option, given in texts.items():
            if given:
                raise ConfigError(f"{option}: this checkpoint is a classifier and reads no text")
        known = list(stored["labels"])
        self.labels = known if asked.labels is None else _chosen(asked.labels, known)
        self.columns = [known.index(name) for name in self.labels]
        self.reader = ClassifierReader(model, known)

    def answers(self, features: Features) -> list[dict[str, Any]]:
        rows = self.reader.of(features)
        return [{"probabilities": {name: row[name] for name in self.labels}} for row in rows]


class ZeroShotQuestions(Questions):
    """Attributes:
    directions: [L, D], mean positive minus mean negative prompt of each label.
    phrases, places: the phrases, and their unit vectors [P, D].
    """

    def __init__(self, model: Any, stored: Mapping[str, Any], asked: Asked, device: torch.device) -> None:
        sentences, self.labels = _prompts(stored, asked)
        own = None if asked.sentences is None else _lines(asked.sentences)
        if blank := [phrase for phrase in asked.phrases if not has_words(phrase)]:
            raise ConfigError(f"--phrase {blank[0]!r}: expected words, such as 'left pleural effusion'")
        self.reader = reader = ZeroShotReader(model, sentences, self.labels, device)
        self.directions = reader.directions
        of_labels = [text for name in self.labels for kind in ("pos", "neg") for text in sentences[name][kind]]
        self.sentences = list(dict.fromkeys(of_labels if own is None else own))
        self.phrases = list(dict.fromkeys(asked.phrases))
        embedded = embed_texts(model, [*self.sentences, *self.phrases], device)
        self._model, self._texts = model, embedded
        self.places = embedded[len(self.sentences) :]

    def answers(self, features: Features) -> list[dict[str, Any]]:
        embedded = self._model.embed_images(features).float().cpu()
        with torch.autocast("cpu", enabled=False):  # bf16 would make ties of near neighbours
            cosines = embedded @ self._texts.T
        entries = super().answers(features)
        for entry, row in zip(entries, cosines, strict=True):
            entry["sentences"] = self._best(row[: len(self.sentences)])
            if self.phrases:
                entry["phrases"] = dict(zip(self.phrases, row[len(self.sentences) :].tolist(), strict=True))
        return entries

    def _best(self, cosines: Tensor) -> list[dict[str, Any]]:
        values, places = cosines.topk(min(SHOWN, len(cosines)))
        return [{"text": self.sentences[k], "cosine": v} for k, v in zip(places.tolist(), values.tolist())]


def questions(
    model: nn.Module, stored: Mapping[str, Any], asked: Asked, device: torch.device
) -> ClassifierQuestions | ZeroShotQuestions:
    if isinstance(model, Classifies):
        return ClassifierQuestions(model, stored, asked)
    if isinstance(model, EmbedsImages) and isinstance(model, EmbedsText) and isinstance(model, ScalesSimilarity):
        return ZeroShotQuestions(model, stored, asked, device)
    raise ConfigError(
        f"{type(model).__name__} neither classifies nor compares images with text: train a classifier on it with "
        "finetune.py init_from=CHECKPOINT"
    )


def _prompts(stored: Mapping[str, Any], asked: Asked) -> tuple[Prompts, list[str]]:
    """Sentences by label, and the labels to read."""
    if asked.prompts is None:
        sentences, labels = sentences_of(stored)
        return sentences, labels if asked.labels is None else _chosen(asked.labels, _two_sided(sentences), ANY_NAME)
    try:
        sentences = prompt_files.load(asked.prompts)
    except ValueError as error:
        raise ConfigError(f"--prompts: {error}") from None
    if ANY in sentences:
        wanted = stored["labels"] if asked.labels is None else asked.labels
        if not wanted:
            raise ConfigError(f"--prompts {asked.prompts}: for any label, and the checkpoint has none: add --labels")
        sentences = prompt_files.fill(sentences, wanted)
        labels = [name for name in wanted if sentences[name].get("neg")]
    else:
        labels = _two_sided(sentences)
    if not labels:
        raise ConfigError(f"--prompts {asked.prompts}: no label has `neg` sentences: a probability needs both sides")
    if asked.labels is None:
        return sentences, labels
    return sentences, _chosen(asked.labels, _two_sided(sentences))


def _two_sided(sentences: Prompts) -> list[str]:
    return [name for name, kinds in sentences.items() if kinds.get("neg") and name != ANY]


def _chosen(labels: Sequence[str], known: Sequence[str], remedy: str = "") -> list[str]:
    """The labels as they are, each of which must be known: a misspelt one would be read as nonsense in silence."""
    if not labels or not all(labels):
        raise ConfigError("--labels: expected names separated by commas, such as 'Edema,Pleural Effusion'")
    if twice := sorted({name for name in labels if list(labels).count(name) > 1}):
        raise ConfigError(f"--labels: {', '.join(twice)} stands twice")
    for name in labels:
        if name not in known:
            raise ConfigError(f"--labels: no such label {name!r}{config.nearest(name, known)}{remedy}")
    return list(labels)


def _lines(file: str) -> list[str]:
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"--sentences {file}: cannot be read ({reason})") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ConfigError(f"--sentences {file}: no sentence in it, expected one a line")
    return lines
