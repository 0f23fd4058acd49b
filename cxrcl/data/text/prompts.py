"""Sentences for labels: prompt files, and texts for data sets that have labels and no reports."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from cxrcl.errors import ConfigError

KINDS = ("pos", "neg", "unc")
ANY = "*"
Prompts = dict[str, dict[str, list[str]]]
_SHIPPED = Path(str(resources.files("cxrcl.data.text"))) / "prompt_files"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"the key {twice[0]!r} stands twice")
    return dict(pairs)


def shipped() -> list[str]:
    """Names of the prompt files that come with the package."""
    return sorted(path.name for path in _SHIPPED.glob("*.json"))


def find_file(name: str) -> Path:
    """The path of a prompt file: one on the disk, else one that comes with the package.

    Raises:
        ValueError: there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.name == name and (_SHIPPED / name).is_file():
        return _SHIPPED / name
    raise ValueError(f"prompts file {name} not found; shipped ones: {', '.join(shipped())}")


def load(name: str) -> Prompts:
    """Read {label: {"pos": [...], "neg": [...], "unc": [...]}}; `neg` and `unc` may be absent.

    An object of named parts, {"severity": ["", "mild"], "subtype": [...], ...}, may stand in place of a list: every
    combination of one phrase of each part, in the file's order, is a sentence (a blank phrase adds nothing). The label
    "*" stands for every label that the file does not name (see `fill`).

    Raises:
        ValueError: the file and the place in it, what was found and what is expected.
    """
    path = find_file(name)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_duplicates)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    shape = '{label: {"pos": [sentence, ...], "neg": [...], "unc": [...]}}'
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: expected {shape}, found {type(content).__name__}")
    for label, kinds in content.items():
        if not isinstance(kinds, dict) or not kinds.get("pos"):
            raise ValueError(f"{path}: /{label} needs at least one sentence in `pos`; expected {shape}")
        for kind, forms in kinds.items():
            if kind not in KINDS:
                raise ValueError(f"{path}: /{label}/{kind}: unknown kind, use {', '.join(KINDS)}")
            if isinstance(forms, dict):
                kinds[kind] = forms = _combined(forms, f"{path}: /{label}/{kind}")
            if not isinstance(forms, list):
                raise ValueError(f"{path}: /{label}/{kind}: expected a list of sentences, found {forms!r}")
            for k, sentence in enumerate(forms):
                if not isinstance(sentence, str) or not sentence.strip():
                    raise ValueError(f"{path}: /{label}/{kind}/{k}: expected a sentence, found {sentence!r}")
    return content


def fill(prompts: Prompts, labels: Sequence[str]) -> Prompts:
    """The prompts, with sentences made of those of "*" for labels that the file does not name.

    `{}` becomes the label as it is written, `{lower}` the label in small letters.
    """
    if ANY not in prompts:
        return prompts
    by_label = {name: kinds for name, kinds in prompts.items() if name != ANY}
    made = {
        name: {
            kind: [form.replace("{}", name).replace("{lower}", name.lower()) for form in forms]
            for kind, forms in prompts[ANY].items()
        }
        for name in labels
        if name not in by_label
    }
    return {**by_label, **made}


def for_labels(name: str, labels: Sequence[str]) -> Prompts:
    """Load a prompt file, with sentences for labels that it leaves to "*"."""
    return fill(load(name), labels)


def _combined(parts: Mapping[str, Any], place: str) -> list[str]:
    """Every combination of one phrase of each part, joined by a space.

    Raises:
        ValueError: a part is not a list of phrases, or a combination comes twice.
    """
    for name, phrases in parts.items():
        if not isinstance(phrases, list) or not phrases or not all(isinstance(phrase, str) for phrase in phrases):
            raise ValueError(f"{place}/{name}: expected a list of phrases, found {phrases!r}")
    sentences = [" ".join(" ".join(chosen).split()) for chosen in itertools.product(*parts.values())]
    if twice := [sentence for sentence, count in Counter(sentences).items() if count > 1]:
        raise ValueError(f"{place}: its parts give the sentence {twice[0]!r} twice")
    return sentences


class PromptSampler:
    """Draws a text for a sample that has labels and no report (after CXR-CLIP, You et al. 2023, section 3.1).

    One sentence for each positive label (`No Finding` is one: a normal image says so), one for `num_negatives` random
    negative labels, one for each uncertain label when `uncertain`; shuffled and joined by a space.

    Args:
        file: a prompt file (see `load`), or its content.
        num_negatives: how many negative labels are mentioned; all when there are fewer.
        negatives_from: `zero` takes labels with the value 0; `zero_and_blank` takes blank ones too (for label lists
            that name positives only).
        uncertain: mention labels with the value -1.
    """

    def __init__(
        self,
        file: str | Prompts,
        num_negatives: Annotated[int, Field(ge=0)] = 0,
        negatives_from: Literal["zero", "zero_and_blank"] = "zero",
        uncertain: bool = False,
    ) -> None:
        self.prompts = load(file) if isinstance(file, str) else file
        self.file = file if isinstance(file, str) else "the prompts of the checkpoint"
        self.num_negatives = num_negatives
        self.negatives_from = negatives_from
        self.uncertain = uncertain

    def check(self, labels: Sequence[str]) -> None:
        """Take these labels; each needs sentences for every value that draws may mention.

        Raises:
            ConfigError: a label has none.
        """
        self.prompts = fill(self.prompts, labels)
        absent = [name for name in labels if name not in self.prompts]
        if absent:
            raise ConfigError(
                f"prompts: {self.file} has no sentences for {', '.join(absent)}; it has {', '.join(self.prompts)}: "
                "add them, or leave out these labels",
                argument="labels",
            )
        for kind, is_used, argument, unused in (
            ("neg", self.num_negatives > 0, "num_negatives", "0"),
            ("unc", self.uncertain, "uncertain", "false"),
        ):
            empty = [name for name in labels if is_used and not self.prompts[name].get(kind)]
            if empty:
                raise ConfigError(
                    f"prompts: {self.file} has no `{kind}` sentences for {', '.join(empty)}: "
                    f"add them, or set {argument}={unused}",
                    argument=argument,
                )

    def _candidates(self, values: Mapping[str, float]) -> tuple[list[str], list[str], list[str]]:
        """Positive labels, and negative and uncertain ones as far as they may be mentioned."""
        positive = [name for name, value in values.items() if value == 1]
        blank_too = self.negatives_from == "zero_and_blank"
        negative = [name for name, value in values.items() if value == 0 or (blank_too and np.isnan(value))]
        uncertain = [name for name, value in values.items() if value == -1]
        return positive, negative if self.num_negatives else [], uncertain if self.uncertain else []

    def can_speak(self, values: Mapping[str, float]) -> bool:
        """Whether a sample with these label values gets a sentence."""
        return any(self._candidates(values))

    def draw(self, values: Mapping[str, float], rng: np.random.Generator | None) -> tuple[str, ...]:
        """Sentences of a text for label values 1, 0, -1, nan by name.

        Without `rng` (evaluation): the first sentence of each positive label, else of the others mentioned.
        """
        positive, negative, uncertain = self._candidates(values)
        if rng is None:
            if positive:
                return tuple(self.prompts[name]["pos"][0] for name in positive)
            first = [self.prompts[name]["neg"][0] for name in negative[: self.num_negatives]]
            return (*first, *(self.prompts[name]["unc"][0] for name in uncertain))
        drawn = [negative[k] for k in rng.permutation(len(negative))[: self.num_negatives]]
        chosen = [(name, "pos") for name in positive] + [(name, "neg") for name in drawn]
        chosen += [(name, "unc") for name in uncertain]
        sentences = []
        for name, kind in chosen:
            forms = self.prompts[name][kind]
            sentences.append(forms[int(rng.integers(len(forms)))])
        return tuple(sentences[k] for k in rng.permutation(len(sentences)))
