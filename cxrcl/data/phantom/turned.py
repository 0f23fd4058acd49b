"""Phantom reports with the polarity of one finding turned, written by the grammar that wrote the reports.

A finding that is drawn is stated absent, or one that is denied is stated present. What follows from it is turned as
well, as the grammar would have it: the impression is that of a study without (or with) the finding. The words of what
is stated present come from findings of the same set, and what is stated absent is denied alone, as in the reports whose
denials are turned: a reader of texts alone should not tell a turned report from one that is not. What would contradict
another sentence is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .phrases import PHRASES
from .report import BLOCKS, Report, Sentence, conclude, describe, pick, tidy
from .study import Finding, Study, settle

Donors = Mapping[tuple[str, bool], list[Finding]]
_SHOWN = 3  # diseases that an impression speaks of


@dataclass(frozen=True)
class Turned:
    """One report in three versions.

    Attributes:
        label: the finding.
        present: whether the study has it, which the original says and the turned one denies (or the other way round).
        original, turned: sentences about the finding, in both versions.
        report: the turned report.
        omitted: the original without these sentences.
    """

    label: str
    present: bool
    original: tuple[Sentence, ...]
    turned: tuple[Sentence, ...]
    report: Report
    omitted: Report


def donors(studies: Iterable[Study]) -> Donors:
    """Certain findings by label, and by whether they were seen before (these may have changed since)."""
    found: dict[tuple[str, bool], list[Finding]] = {}
    for study in studies:
        for finding in study.findings:
            if finding.certain:
                found.setdefault((finding.kind, study.number > 1), []).append(finding)
    return found


def turned_reports(study: Study, report: Report, given: Donors, rng: np.random.Generator) -> list[Turned]:
    """One for each finding that can be turned without a contradiction.

    Args:
        report: of the study, as the grammar wrote it.
        given: findings to state in place of a denial.
    """
    stated = report.labels
    found = []
    for label in dict.fromkeys(finding.kind for finding in study.findings):
        if stated.get(label) == 1:
            found.append(_denied(study, report, label, rng))
    for sentence in report.findings:
        if len(sentence.states) == 1 and (label := next(iter(sentence.states))) != "No Finding":
            pool = given.get((label, study.number > 1), [])
            if sentence.states[label] == 0 and pool:
                found.append(_affirmed(study, report, sentence, label, pool[int(rng.integers(len(pool)))], rng))
    return [one for one in found if one is not None]


def _denied(study: Study, report: Report, label: str, rng: np.random.Generator) -> Turned | None:
    """The report of a study that has the finding, turned to deny it."""
    rest = replace(study, findings=tuple(f for f in study.findings if f.kind != label))
    if BLOCKS.get(label, set()) & {f.kind for f in rest.findings}:
        return None  # the grammar does not deny it beside these
    denial = next(denial for denial in PHRASES.denials if denial.labels == [label])
    text = pick(denial.texts, rng)
    text = text[1:] if text.startswith("*") else pick(PHRASES.frames["denial"], rng).format(nn=text)
    new = Sentence(tidy(text), {label: 0}, denial.rank)
    is_about = [s.states.get(label) == 1 for s in report.findings]
    kept = [s for s, about in zip(report.findings, is_about) if not about]
    place = is_about.index(True)
    findings = (*kept[:place], new, *kept[place:])
    # An opinion on pneumonia is one of an opacity or consolidation: it goes with it.
    lost = [{"Pneumonia": -1}] if label in ("Lung Opacity", "Consolidation") else []
    impression = tuple(s for s in report.impression if s.states.get(label) != 1 and s.states not in lost)
    omitted = Report(tuple(kept), impression)
    if not [f for f in rest.findings if f.kind != "Support Devices"] or not impression:
        impression = tuple(conclude(rest, rng))
    about = tuple(s for s, about in zip(report.findings, is_about) if about)
    return _checked(label, True, about, new, Report(findings, impression), omitted)


def _affirmed(
    study: Study, report: Report, denial: Sentence, label: str, donor: Finding, rng: np.random.Generator
) -> Turned | None:
    """The report of a study that lacks the finding, turned to affirm it."""
    together = (*study.findings, donor)
    denied = {name for s in report.findings if s is not denial for name, value in s.states.items() if value == 0}
    if settle(list(together)) != together or any(label in BLOCKS.get(name, set()) for name in denied):
        return None  # could not be told apart, or another denial would be false
    new = describe(donor, rng)
    findings = tuple(new if s is denial else s for s in report.findings)
    impression = report.impression
    if label != "Support Devices":
        diseases = [f for f in study.findings if f.kind != "Support Devices"]
        if not diseases:
            impression = (describe(donor, rng, impression=True),)
        elif len(diseases) < _SHOWN:
            place = int(rng.integers(len(diseases) + 1))
            impression = (*impression[:place], describe(donor, rng, impression=True), *impression[place:])
    omitted = Report(tuple(s for s in report.findings if s is not denial), report.impression)
    return _checked(label, False, (denial,), new, Report(findings, impression), omitted)


def _checked(
    label: str, present: bool, original: tuple[Sentence, ...], new: Sentence, report: Report, omitted: Report
) -> Turned | None:
    """None where the turned report contradicts itself."""
    try:
        consistent = report.labels[label] == (0 if present else 1)
    except ValueError:
        return None
    return Turned(label, present, original, (new,), report, omitted) if consistent else None
