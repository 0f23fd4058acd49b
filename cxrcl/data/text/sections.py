"""Findings and impression of a free-text report, with or without headings.

Written for reports such as those of MIMIC-CXR: headings in capitals at the start of a line or in the middle of one,
other names and spellings for the same section, a preliminary reading before the final report, addenda, and closing
words about recommendations and telephone calls, which say nothing about the image.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple

_FINDINGS, _IMPRESSION, _WET = "findings", "impression", "wet read"
_ADDENDUM, _OTHER, _TAIL = "addendum", "other", "tail"
_NAMES = {
    _FINDINGS: ("FINDINGS", "FINDING", "OBSERVATIONS", "FINDINGS AND IMPRESSION", "IMPRESSION AND FINDINGS"),
    _IMPRESSION: (
        *("IMPRESSION", "IMPRESSIONS", "CONCLUSION", "CONCLUSIONS", "OPINION", "INTERPRETATION", "SUMMARY"),
        *("FINAL IMPRESSION", "IMPRESSION AND PLAN", "IMPRESSION AND RECOMMENDATION", "IMPRESSION AND RECOMMENDATIONS"),
    ),
    _WET: ("WET READ", "PRELIMINARY REPORT", "PRELIMINARY READ", "PRELIMINARY INTERPRETATION"),
    _ADDENDUM: ("ADDENDUM", "FINAL ADDENDUM"),
    _OTHER: (
        *("HISTORY", "CLINICAL HISTORY", "PATIENT HISTORY", "CLINICAL INFORMATION", "CLINICAL INFO", "CLINICAL DATA"),
        *("INDICATION", "INDICATIONS", "CLINICAL INDICATION", "INDICATION FOR STUDY", "INDICATION FOR EXAM"),
        *("REASON", "REASON FOR EXAM", "REASON FOR EXAMINATION", "REASON FOR STUDY", "REASON FOR THIS EXAMINATION"),
        *("MEDICAL CONDITION", "UNDERLYING MEDICAL CONDITION", "ADMITTING DIAGNOSIS", "DIAGNOSIS", "SYMPTOMS"),
        *("EXAM", "EXAMINATION", "EXAMINATIONS", "EXAM TYPE", "TYPE OF EXAMINATION", "STUDY", "PROCEDURE"),
        *("TECHNIQUE", "COMPARISON", "COMPARISONS", "COMPARISON STUDY", "PRIOR STUDIES", "VIEWS", "DATE", "TIME"),
    ),
    _TAIL: (
        *("RECOMMENDATION", "RECOMMENDATIONS", "NOTIFICATION", "NOTIFICATIONS", "COMMUNICATION", "ATTESTATION"),
        *("REFERRING PHYSICIAN", "SIGNED", "DICTATED BY", "ELECTRONICALLY SIGNED BY"),
    ),
}
_KIND = {name: kind for kind, names in _NAMES.items() for name in names}
# Anywhere in capitals; in any case at the start of a line, where a colon has to follow.
_HEADING = re.compile(
    r"(?:^[ \t]*|(?<=[.:!?_])[ \t]+)(?P<capitals>[A-Z][A-Z &/()]{2,40}?)[ \t]*(?::|[ \t]-+(?=[ \t]|$)|[.;]?[ \t]*$)"
    r"|^[ \t]*(?P<any>[A-Z][A-Za-z &/()]{2,40}?)[ \t]*:",
    re.MULTILINE,
)
_FINAL = re.compile(r"^[ \t_]*FINAL REPORT[ \t_:]*$", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*_{5,}[ \t]*$", re.MULTILINE)
_PARAGRAPH_END = re.compile(r"\n\s*\n")
_LIST_ITEM = re.compile(r"\n[ \t]*(?=\d{1,2}[.)]\s)")
_STAMP = re.compile(r"^[ \t_]*(?:_+|\d{1,2}:\d\d|[AP]\.?M\.?|\w{3} \d+)[\d_:,.APM \t]*(?:\n|$)")
_SENTENCE_END = re.compile(r"(?<!\bDr\.)(?<!\bMr\.)(?<!\bMs\.)(?<=[.!?])\s+(?=[A-Z0-9])")
_MESSAGE_VERB = re.compile(
    r"\b(?:discussed|communicated|conveyed|relayed|notified|paged|telephoned|called|e-?mailed|reported|informed|posted)\b",
    re.IGNORECASE,
)
_RECIPIENT = re.compile(
    r"\b(?:dr\b|doctor|telephone|phone|pager|nurse|physician|team\b|resident|house ?staff|dashboard|at the time of"
    r"|at \d{1,2}:\d\d|at ___)",
    re.IGNORECASE,
)


class Sections(NamedTuple):
    """Each section on one line, list items on lines of their own; '' where the report has no such section."""

    findings: str
    impression: str


def split_report(report: str) -> Sections:
    """Findings and impression of a report.

    They are read from the text after the last line FINAL REPORT, and from the preliminary reading and an addendum only
    where there is nothing else. Paragraphs without a heading that follow the lines of history, technique and comparison
    are taken as findings; in a report without an impression or findings heading the last one is the impression.
    """
    text = report.replace("\r\n", "\n").replace("\r", "\n")
    final = list(_FINAL.finditer(text))
    if final:
        after = text[final[-1].end() :]
        text = after if after.strip(" \t\n_") else _FINAL.sub("", text)
    bodies: dict[str, list[str]] = {kind: [] for kind in _NAMES}
    free: list[str] = []
    for kind, body in _parts(_RULE.sub("\n", text)):
        if kind == _ADDENDUM and (bodies[_FINDINGS] or bodies[_IMPRESSION] or free):
            break
        paragraphs = [p for p in _PARAGRAPH_END.split(body.strip("\n")) if p.strip()]
        if kind in (None, _OTHER):
            free += [_joined(p) for p in paragraphs[kind == _OTHER :] if _is_prose(p)]
        elif paragraphs:
            bodies[kind].append("\n\n".join(paragraphs))
    findings = " ".join(_joined(body) for body in bodies[_FINDINGS])
    # A report that was corrected states its impression twice: the later one holds.
    impression = _joined(bodies[_IMPRESSION][-1]) if bodies[_IMPRESSION] else ""
    if not findings:
        if not impression and free:
            impression = free.pop()
        findings = " ".join(free)
    if not findings and not impression:
        impression = _joined(_STAMP.sub("", "\n".join(bodies[_WET] + bodies[_ADDENDUM])))
    return Sections(_without_tail(findings), _without_tail(impression))


def _parts(text: str) -> list[tuple[str | None, str]]:
    """(kind, text) of each section in order; kind None before the first heading."""
    kind: str | None = None
    start = 0
    parts: list[tuple[str | None, str]] = []
    for match in _HEADING.finditer(text):
        name = match["capitals"] or match["any"]
        next_kind = _kind(" ".join(re.sub(r"[&/]", " AND ", re.sub(r"[()]", "", name.upper())).split()))
        if next_kind is not None:
            parts.append((kind, text[start : match.start()]))
            kind, start = next_kind, match.end()
    return [*parts, (kind, text[start:])]


@lru_cache(maxsize=4096)
def _kind(name: str) -> str | None:
    """The kind of section that a heading begins, typing errors allowed (IMPRESION, FINDNGS); None for plain text."""
    if name in _KIND:
        return _KIND[name]
    close = get_close_matches(name, _KIND, n=1, cutoff=0.86) if len(name) > 6 else []
    return _KIND[close[0]] if close else None


def _is_prose(paragraph: str) -> bool:
    """Whether a paragraph has sentences: it is neither a title, nor a date, nor a word or two."""
    letters = [c for c in paragraph if c.isalpha()]
    words = re.findall(r"[A-Za-z]{2,}", paragraph)
    return "." in paragraph and len(words) >= 3 and sum(c.isupper() for c in letters) < 0.6 * len(letters)


def _joined(text: str) -> str:
    """The lines joined into one; items of a list keep lines of their own."""
    return "\n".join(" ".join(item.split()) for item in _LIST_ITEM.split(text)).strip(" \n_-:")


def _without_tail(text: str) -> str:
    """The text without its last sentences that say who was informed of the findings."""
    starts = [0, *(match.end() for match in _SENTENCE_END.finditer(text))]
    while starts and _MESSAGE_VERB.search(text, starts[-1]) and _RECIPIENT.search(text, starts[-1]):
        text = text[: starts.pop()].rstrip()
    return text
