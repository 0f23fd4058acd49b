"""A ScoreReport as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxrcl.errors import RESEARCH_ONLY
from cxrcl.evaluation.report.score_tables import (
    COMPARED,
    TITLES,
    decision_tables,
    difference_table,
    group_tables,
    score_table,
)
from cxrcl.evaluation.report.use_tables import THESE_READERS, brief_tables, reader_tables, use_tables
from cxrcl.evaluation.scores.score_report import ScoreReport


def summary(report: ScoreReport) -> str:
    """The scores by label and the notes, for the terminal."""
    tables = [score_table(TITLES[metric], report.models, (metric,)) for metric in COMPARED]
    tables += brief_tables(report.models)
    return "\n\n".join([*(table.text() for table in tables), *(f"note: {note}" for note in report.notes)])


def markdown(report: ScoreReport) -> str:
    """The whole report as Markdown."""
    return "\n\n".join(["# Scores", *parts(report), RESEARCH_ONLY]) + "\n"


def parts(report: ScoreReport, level: str = "##") -> list[str]:
    """Facts, notes, tables and rules, without a heading over them.

    Args:
        level: of the headings.
    """
    written = facts_and_notes(report.facts, report.notes)
    tables = [score_table(TITLES[metric], report.models, (metric,)) for metric in COMPARED]
    if report.comparisons:
        tables.append(difference_table(f"Differences to {report.comparisons[0].reference}", report.comparisons))
    for table in tables:
        written += [f"{level} {table.caption}", table.text()]
    for k, table in enumerate(reader_tables(report.readers, report.models)):
        written += [f"{level} {table.caption}", "" if k else THESE_READERS, table.text()]
    for model in report.models:
        written += [f"{level} {model.name}", f"- threshold: {model.threshold}\n- calibration: {model.calibration}"]
        for note, table in use_tables(model):
            written += [f"{level}# {table.caption}", note, table.text()]
        for table in (*decision_tables(model), *(part for pair in group_tables(model).values() for part in pair)):
            written += [f"{level}# {table.caption}", table.text()]
    return [*(part for part in written if part), f"{level} Rules", *facts_and_notes(report.rules)]


def facts_and_notes(facts: Mapping[str, Any], notes: Sequence[str] = ()) -> list[str]:
    """Lists of facts, which are values or {text: text}, and of notes; those without an entry are left out."""
    lines = "\n".join(f"- {name}: {_shown(value)}" for name, value in facts.items())
    return [part for part in (lines, "\n".join(f"- note: {note}" for note in notes)) if part]


def _shown(value: object) -> str:
    return ", ".join(f"{key} ({part})" for key, part in value.items()) if isinstance(value, Mapping) else str(value)
