"""Report text: cleaning, sentences, sampling."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

_MASKED = re.compile(r"\b[Xx]{2,}\b|_{2,}")  # de-identification marks of Open-i and MIMIC-CXR
# At the start of a line or after a stop, so that "rib 5. The heart ..." keeps its number.
_NUMBERING = re.compile(r"(?:^[ \t]*|(?<=[.!?:;]\s)|(?<=\s)(?=\d+\)))\d{1,2}\s*[.)]\s+(?=[A-Za-z])", re.MULTILINE)
_SPACE = re.compile(r"\s+")
_BEFORE_MARK = re.compile(r"\s+([.,;:!?])")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Za-z0-9])")
_ABBREVIATION = re.compile(r"\b(?:dr|mr|mrs|ms|vs|approx|no|fig|e\.g|i\.e)\.$", re.IGNORECASE)
_WORD = re.compile(r"\w+")


def clean(text: str) -> str:
    """The text on one line, without de-identification marks and list numbers, and with normal spaces."""
    text = _MASKED.sub(" ", text.replace("�", " "))
    text = _NUMBERING.sub(" ", text.strip())
    text = _BEFORE_MARK.sub(r"\1", _SPACE.sub(" ", text).strip())
    return re.sub(r"([.,;:!?])(?:\s*[.,;:])+", r"\1", text).strip(" ,;:")


def sentences(text: str, min_words: int = 1) -> list[str]:
    """The sentences of a text, cleaned, that have at least `min_words` words; an abbreviation does not end one."""
    parts: list[str] = []
    for part in _SENTENCE_END.split(clean(text)):
        if parts and _ABBREVIATION.search(parts[-1]):
            parts[-1] += " " + part
        else:
            parts.append(part)
    return [s for s in parts if len(_WORD.findall(s)) >= min_words]


class Report(NamedTuple):
    """The sentences of a report."""

    sections: tuple[tuple[str, ...], ...]  # those with a sentence
    rewritten: tuple[str, ...]  # the same report in other words; () where there is no rewriting

    @property
    def sentences(self) -> tuple[str, ...]:
        """The sentences of all sections, in order."""
        return tuple(sentence for section in self.sections for sentence in section)


@dataclass(frozen=True)
class ReportSampler:
    """Makes the text of a sample out of a report's sections.

    Args:
        sections: columns of the manifest, in the order in which they are joined.
        num_sentences: draw this many sentences (all when there are fewer); None takes them all.
        shuffle: drawn sentences come in random order.
        min_words: shorter sentences are left out; a report with no other is treated as missing.
        section: `all`, or `one`: each draw is made from a random one of the sections that are filled.
        augmented: a second text is drawn from the rewriting of the report (column `text_augment`) where there is one.

    In evaluation nothing is random: the text is the whole report, all sections in order.
    """

    sections: Sequence[str]
    num_sentences: int | None = None
    shuffle: bool = True
    min_words: int = 2
    section: Literal["all", "one"] = "all"
    augmented: bool = True

    def read(self, row: Mapping[str, str]) -> Report:
        """The report in the column `text` where that is filled, else in the sections; sections without a sentence are
        left out, and without a report its rewriting is, too.
        """
        parts = [row["text"]] if row.get("text", "").strip() else [row.get(section, "") for section in self.sections]
        filled = [section for part in parts if (section := tuple(sentences(part, self.min_words)))]
        rewritten = row.get("text_augment", "") if self.augmented and filled else ""
        return Report(tuple(filled), tuple(sentences(rewritten, self.min_words)))

    def draw(self, report: Report, rng: np.random.Generator | None, which: int = 0) -> tuple[str, ...]:
        """Sentences of a random text of the report; without `rng` all of its sections.

        Args:
            which: number of the text in its sample; the first (0) is drawn from the report, others from its rewriting.
        """
        if rng is None:
            return report.sentences
        if which and report.rewritten:
            candidates = report.rewritten
        elif self.section == "one":
            candidates = report.sections[int(rng.integers(len(report.sections)))]
        else:
            candidates = report.sentences
        count = len(candidates) if self.num_sentences is None else min(self.num_sentences, len(candidates))
        chosen = rng.permutation(len(candidates))[:count]
        if not self.shuffle:
            chosen = np.sort(chosen)
        return tuple(candidates[k] for k in chosen)
