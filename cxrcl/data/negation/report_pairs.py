"""Pairs of free reports: sentences that `cxrcl.data.negation.rules` can read are replaced by those of other reports.

In place of a sentence that states one finding stands one that states the opposite of the same finding, drawn from all
such sentences of the collection. Affirmed and negated sentences of both directions then have the same words as often,
and a reader of the texts alone learns little from how they are put. A sentence is turned where all sentences that were
read say the same of the finding; a report where no other sentence speaks of the finding, or of what goes with it, and,
where it is turned to present, none says that nothing acute is to be seen: it would contradict itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from cxrcl.data.negation import rules
from cxrcl.data.negation.pairs import REPORT, SENTENCE, Pair, StudyPairs, digest, pair
from cxrcl.data.text.reports import sentences

SECTIONS = ("findings", "impression")
Said = tuple[str, bool]  # a finding, and whether it is present


class Sentence(NamedTuple):
    """A sentence and what it states, where it was read."""

    text: str
    statement: rules.Statement | None

    @property
    def says(self) -> Said | None:
        """The one finding that it states without doubt, and nothing else."""
        one = self.statement
        if one is None or len(one.findings) > 1 or one.weak or not one.findings[0]:
            return None
        return one.findings[0], one.present


class Donors:
    """Sentences to put in place of others, by what they say.

    Args:
        counts: what is said -> hash of a sentence -> how often it stands in the collection.
        texts: hash -> sentence. One that is missing cannot be put anywhere.
    """

    def __init__(self, counts: Mapping[Said, Mapping[str, int]], texts: Mapping[str, str]) -> None:
        self.counts, self.texts = counts, texts
        self._drawn = {said: [key for key in sorted(of) for _ in range(of[key])] for said, of in counts.items()}

    def draw(self, said: Said, seed: str) -> str | None:
        """A sentence that says this, as often as it stands in the collection; None where there is none."""
        keys = self._drawn.get(said, [])
        return self.texts.get(keys[int(seed, 16) % len(keys)]) if keys else None


def read_reports(manifest: pd.DataFrame) -> dict[str, list[Sentence]]:
    """Study -> the sentences of its report, of studies that have one."""
    columns = [name for name in SECTIONS if name in manifest]
    rows = manifest.drop_duplicates("study")
    read: dict[tuple[str, ...], list[Sentence]] = {}  # many normal reports are the same
    for report in set(rows[columns].itertuples(index=False, name=None)):
        read[report] = [
            Sentence(text, rules.read_sentence(text) if _is_whole(text, section) else None)
            for section in report
            for text in sentences(section)
        ]
    reports = zip(rows["study"], rows[columns].itertuples(index=False, name=None))
    return {study: read[report] for study, report in reports if read[report]}


def donors_of(reports: Iterable[Sequence[Sentence]]) -> Donors:
    """All sentences of some reports that state one finding."""
    counts: dict[Said, Counter[str]] = {}
    texts: dict[str, str] = {}
    for sentence in (sentence for report in reports for sentence in report):
        if sentence.says:
            key = digest(sentence.text)
            counts.setdefault(sentence.says, Counter())[key] += 1
            texts[key] = sentence.text
    return Donors(counts, texts)


def report_digest(report: Sequence[Sentence]) -> str:
    """The hash by which a report is known: of its cleaned sentences."""
    return digest(*(sentence.text for sentence in report))


def study_pairs(reports: Mapping[str, Sequence[Sentence]], donors: Donors) -> list[StudyPairs]:
    """The pairs of each study."""
    return [StudyPairs(study, report_pairs(report, donors)) for study, report in reports.items()]


def report_pairs(report: Sequence[Sentence], donors: Donors) -> list[Pair]:
    """The pairs of one report: of each sentence that can be turned, and of the report where it is the only one."""
    seed, pairs = report_digest(report), []
    for place, sentence in enumerate(report):
        if sentence.says is None:
            continue
        finding, present = sentence.says
        new = donors.draw((finding, not present), digest(seed, finding, str(place)))
        others = [*report[:place], *report[place + 1 :]]
        statements = [one.statement for one in others if one.statement]
        if new is None or any(finding in one.findings and one.present != present for one in statements):
            continue
        pairs.append(pair(SENTENCE, finding, present, sentence.text, new))
        if not _speak_of(others, finding, present):
            texts = [one.text for one in report]
            omitted = [one.text for one in others]
            turned = [*texts[:place], new, *texts[place + 1 :]]
            pairs.append(pair(REPORT, finding, present, " ".join(texts), " ".join(turned), " ".join(omitted)))
    return pairs


def _is_whole(sentence: str, section: str) -> bool:
    """Whether a sentence stands in the report as it is, without a word that was removed from it for privacy."""
    found = re.search(rf"(?<![Xx_] ){re.escape(sentence)}", " ".join(section.split()))
    return found is not None


def _speak_of(others: Sequence[Sentence], finding: str, present: bool) -> bool:
    """Whether other sentences may still say what the turned one no longer says."""
    mentions = re.compile(rules.MENTIONS[finding])
    kept = [
        text for one in others if one.statement and one.statement.present == present for text in one.statement.texts
    ]
    unread = [one.text.lower().rstrip(".") for one in others if one.statement is None]
    return any(map(mentions.search, kept + unread)) or (not present and any(map(rules.NORMAL.search, unread)))
