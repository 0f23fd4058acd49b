"""What the text encoder reads: which prompts, how they are written, which tokens of them."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cxrcl.evaluation.choices.choice import NOW, Choice, Stage, Variant, chosen
from cxrcl.types import Tokens

Sentences = Mapping[str, Mapping[str, Sequence[str]]]  # label -> "pos" or "neg" -> sentences
TEMPLATES = ("a photo of {}", "a chest x-ray of {}", "chest radiograph showing {}", "findings: {}")
LENGTHS = (8, 16, 32, 77)


@dataclass(frozen=True)
class Texts:
    """What is read, and how.

    Attributes:
        sentences: of each label.
        write: sentence -> how it is written.
        tokens: tokens of several texts -> those that are read.
        settings: of the text encoder's node, laid over those of the checkpoint.
    """

    sentences: Sentences
    write: tuple[Callable[[str], str], ...] = ()
    tokens: tuple[Callable[[Tokens], Tokens], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def written(self, label: str, side: str) -> list[str]:
        """The sentences of a side of a label as they are read; none where there are none."""
        texts = list(self.sentences.get(label, {}).get(side, ()))
        for write in self.write:
            texts = [write(text) for text in texts]
        return texts


def family_choice(families: Mapping[str, Sentences], current: str, evaluator: str = "zero_shot") -> Choice:
    """Which prompts are read.

    Args:
        families: name of a prompts file -> its sentences.
        current: the name of the current one.
        evaluator: whose settings a remedy overrides.
    """
    variants = [
        Variant(name, _read(sentences), f"evals.{evaluator}.file={name}") for name, sentences in families.items()
    ]
    return chosen("prompts", Stage.TEXTS, variants, current)


def _read(sentences: Sentences) -> Callable[[Texts], Texts]:
    return lambda texts: replace(texts, sentences=sentences)


def _written(name: str, write: Callable[[str], str]) -> Variant:
    return Variant(name, lambda texts: replace(texts, write=(*texts.write, write)), "sentences of your own: file=FILE")


def _with_stop(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _without_punctuation(text: str) -> str:
    return text.translate(str.maketrans("", "", string.punctuation))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _template(form: str) -> Callable[[str], str]:
    return lambda text: form.replace("{}", text)


def writing_choices() -> list[Choice]:
    """How sentences are written."""
    templates = [_written(form, _template(form)) for form in TEMPLATES]
    case = [_written("small letters", str.lower), _written("first letter large", _capital)]
    case.append(_written("all letters large", str.upper))
    stops = [
        _written("with a full stop", _with_stop),
        _written("without a full stop", lambda text: text.rstrip(". ")),
        _written("without punctuation", _without_punctuation),
    ]
    return [
        Choice("template around a sentence", Stage.TEXTS, NOW, tuple(templates)),
        Choice("letters", Stage.TEXTS, NOW, tuple(case)),
        Choice("punctuation", Stage.TEXTS, NOW, tuple(stops)),
    ]


def without_last_special(tokens: Tokens) -> Tokens:
    """Without the special token that ends a text, such as [SEP]; one that also begins it is left."""
    return _kept(tokens, lambda words, k, end: not (k == end - 1 and k > 0 and words[k] < 0))


def without_first_special(tokens: Tokens) -> Tokens:
    """Without the special token that begins a text, such as [CLS]."""
    return _kept(tokens, lambda words, k, end: not (k == 0 and end > 1 and words[k] < 0))


def without_special(tokens: Tokens) -> Tokens:
    """Without any special token; a text of nothing else keeps its first."""
    return _kept(tokens, lambda words, k, end: words[k] >= 0 or max(words[:end]) < 0 == k)


def cut(length: int) -> Callable[[Tokens], Tokens]:
    """At most so many tokens; the special ones at the end of a text stay its end."""

    def shorten(tokens: Tokens) -> Tokens:
        def stays(words: Sequence[int], k: int, end: int) -> bool:
            last = max((place for place in range(end) if words[place] >= 0), default=end - 1)
            ending = end - 1 - last
            return end <= length or k < length - ending or k > last

        return _kept(tokens, stays)

    return shorten


def _kept(tokens: Tokens, stays: Callable[[Sequence[int], int, int], bool]) -> Tokens:
    """Those tokens of each text that stay, by the words of the text, the place, and the number of its tokens."""
    rows: list[list[list[int]]] = [[], [], []]
    for ids, mask, words in zip(*tokens, strict=True):
        end = sum(mask)
        places = [k for k in range(end) if stays(words, k, end)]
        for row, values in zip(rows, (ids, mask, words), strict=True):
            row.append([values[k] for k in places])
    longest = max((len(ids) for ids in rows[0]), default=0)
    pads = (next((i for ids, mask, _ in zip(*tokens) for i, m in zip(ids, mask) if not m), 0), 0, -1)
    return Tokens(*([values + [pad] * (longest - len(values)) for values in row] for row, pad in zip(rows, pads)))


def _reading_tokens(name: str, change: Callable[[Tokens], Tokens], remedy: str) -> Variant:
    return Variant(name, lambda texts: replace(texts, tokens=(*texts.tokens, change)), remedy)


def token_choices() -> list[Choice]:
    """Which tokens of a sentence are read."""
    special = [
        _reading_tokens("without [SEP]", without_last_special, "ids[:-1] of each text, before padding"),
        _reading_tokens("without [CLS]", without_first_special, "ids[1:] of each text"),
        _reading_tokens("none", without_special, "tokenizer(..., add_special_tokens=False)"),
    ]
    lengths = [_reading_tokens(f"{count} tokens", cut(count), f"max_length={count}") for count in LENGTHS]
    return [
        Choice("special tokens", Stage.TEXTS, NOW, tuple(special)),
        Choice("longest text", Stage.TEXTS, NOW, tuple(lengths)),
    ]


def _set(setting: str, value: Any) -> Callable[[Texts], Texts]:
    return lambda texts: replace(texts, settings={**texts.settings, setting: value})


def pooling_choice(setting: str, others: Sequence[Any]) -> Choice:
    """How the states of tokens become one vector, where the encoder has a setting for it."""
    variants = [
        Variant(
            str(other),
            _set(setting, other),
            f"text_encoder.{setting}={other} in the training",
        )
        for other in others
    ]
    return Choice("text pooling", Stage.TEXTS, NOW, tuple(variants))
