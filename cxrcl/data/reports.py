"""Report text: cleaning, sentences, sampling."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
    """One line of text without de-identification marks and list numbers, spaces set right."""
    text = _MASKED.sub(" ", text.replace("�", " "))
    text = _NUMBERING.sub(" ", text.strip())
    text = _BEFORE_MARK.sub(r"\1", _SPACE.sub(" ", text).strip())
    return re.sub(r"([.,;:!?])(?:\s*[.,;:])+", r"\1", text).strip(" ,;:")


def sentences(text: str, min_words: int = 1) -> list[str]:
    """Sentences of a cleaned text that have at least `min_words` words; an abbreviation does not end one."""
    found: list[str] = []
    for piece in _SENTENCE_END.split(clean(text)):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] += " " + piece
        else:
            found.append(piece)
    return [s for s in found if len(_WORD.findall(s)) >= min_words]


class Report(NamedTuple):
    """The sentences of a report."""

    sections: tuple[tuple[str, ...], ...]  # of each section that has any
    rewritten: tuple[str, ...]  # of the same report in other words; () where there is no rewriting

    @property
    def sentences(self) -> tuple[str, ...]:
        return tuple(sentence for section in self.sections for sentence in section)


class ReportSampler:
    """Makes the text of a sample out of a report's sections.

    Args:
        sections: columns of the manifest, in the order in which they are joined.
        num_sentences: draw this many sentences (all when there are fewer); None takes them all.
        shuffle: drawn sentences come in random order.
        min_words: shorter sentences are left out; a report with no other is treated as missing.
        section: `all`, or `one`: each draw is made from a random one of the sections that are filled.
        augmented: a second text is drawn from the rewriting of the report (column `text_augment`) where there is one.

    Evaluation draws nothing: its text is the whole report, all sections in order.
    """

    def __init__(
        self,
        sections: Sequence[str],
        num_sentences: int | None = None,
        shuffle: bool = True,
        min_words: int = 2,
        section: Literal["all", "one"] = "all",
        augmented: bool = True,
    ) -> None:
        self.sections = tuple(sections)
        self.num_sentences = num_sentences
        self.shuffle = shuffle
        self.min_words = min_words
        self.section = section
        self.augmented = augmented

    def read(self, row: Mapping[str, str]) -> Report:
        """The report: of a `text` column where that is filled, else of the sections; those with no sentence left out.

        Only a report that is there has a rewriting.
        """
        parts = [row["text"]] if row.get("text", "").strip() else [row.get(section, "") for section in self.sections]
        filled = [found for part in parts if (found := tuple(sentences(part, self.min_words)))]
        rewritten = row.get("text_augment", "") if self.augmented and filled else ""
        return Report(tuple(filled), tuple(sentences(rewritten, self.min_words)))

    def draw(self, report: Report, rng: np.random.Generator | None, which: int = 0) -> tuple[str, ...]:
        """Sentences of a text; all sections of the report itself when `rng` is None.

        Args:
            which: number of the text in its sample; the first (0) is drawn from the report, others from its rewriting.
        """
        if rng is None:
            return report.sentences
        if which and report.rewritten:
            found = report.rewritten
        elif self.section == "one":
            found = report.sections[int(rng.integers(len(report.sections)))]
        else:
            found = report.sentences
        count = len(found) if self.num_sentences is None else min(self.num_sentences, len(found))
        chosen = rng.permutation(len(found))[:count]
        if not self.shuffle:
            chosen = np.sort(chosen)
        return tuple(found[k] for k in chosen)
