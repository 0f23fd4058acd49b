"""Report text: cleaning, sentences, sampling."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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


class ReportSampler:
    """Makes the text of a sample out of a report's sections.

    Args:
        sections: columns of the manifest, in the order in which they are joined.
        num_sentences: draw this many sentences (all when there are fewer); None takes the whole report.
        shuffle: drawn sentences come in random order. Evaluation never draws nor shuffles.
        min_words: shorter sentences are left out; a report with no other is treated as missing.
    """

    def __init__(
        self, sections: Sequence[str], num_sentences: int | None = None, shuffle: bool = True, min_words: int = 2
    ) -> None:
        self.sections = tuple(sections)
        self.num_sentences = num_sentences
        self.shuffle = shuffle
        self.min_words = min_words

    def read(self, row: Mapping[str, str]) -> list[str]:
        """The report's sentences: of a `text` column where that is filled, else of the sections."""
        parts = [row["text"]] if row.get("text", "").strip() else [row.get(section, "") for section in self.sections]
        return [sentence for part in parts for sentence in sentences(part, self.min_words)]

    def sample(self, report: Sequence[str], rng: np.random.Generator | None) -> str:
        """A text; the whole report when `rng` is None."""
        if rng is None:
            return " ".join(report)
        count = len(report) if self.num_sentences is None else min(self.num_sentences, len(report))
        chosen = rng.permutation(len(report))[:count]
        if not self.shuffle:
            chosen = np.sort(chosen)
        return " ".join(report[k] for k in chosen)
