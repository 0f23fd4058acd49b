"""What `cxrcl explain` found, as tables: `explain.md` for people, `explain.json` for programs, a summary to print."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrcl.errors import RESEARCH_ONLY
from cxrcl.evaluation.choices.choice import Change, Stage
from cxrcl.evaluation.choices.search import Findings, Tried
from cxrcl.evaluation.report.score_markdown import facts_and_notes
from cxrcl.evaluation.report.table import Row, Table, number, number_cell
from cxrcl.evaluation.scores.score_report import Score, plain
from cxrcl.files import replaced

PASSES = (Stage.IMAGES.value, Stage.WEIGHTS.value)
JSON, MARKDOWN = "explain.json", "explain.md"
SHOWN = 12  # readings in a table that is printed


@dataclass(frozen=True)
class Explanation:
    """The content of the report.

    Attributes:
        intervals: label of a reading -> figure -> value with its interval.
        identity: of weights and images, see `identity`.
        evaluator: name of the evaluator whose settings are the current ones.
        command: what was typed.
    """

    findings: Findings
    intervals: Mapping[str, Mapping[str, Score]]
    facts: Mapping[str, str]
    notes: Sequence[str]
    identity: Mapping[str, str]
    evaluator: str
    command: str = ""

    def within_interval(self, one: Tried) -> bool | None:
        """Whether every figure of the target lies in this reading's interval; None where that was not computed."""
        scores = self.intervals.get(one.label)
        if scores is None or any(score.low is None for score in scores.values()) or not scores:
            return None
        target = self.findings.target.figures
        return all(s.low <= target[name] <= s.high for name, s in scores.items() if s.low is not None and s.high)


def verdict(report: Explanation) -> list[str]:
    """What was found, in sentences."""
    found = report.findings
    lines = []
    if not found.complete:
        lines.append("Stopped before every choice was tried: what follows is of those that were.")
    reached = found.reached
    names = (
        f"{len(found.target.figures)} figures" if len(found.target.figures) > 1 else next(iter(found.target.figures))
    )
    within = f"within {number(found.target.tolerance, 4)}"
    if reached and not reached[0].reading:
        lines.append(f"The current settings reach the target {within}: there is nothing to explain.")
        return lines
    if report.within_interval(found.start):
        lines.append(
            "The target lies inside the interval of the current settings: on other images of the same kind chance alone"
            " could make the difference. What follows holds if it was measured on the same images."
        )
    if not reached:
        lines.append(f"No single change, and none of those tried together, reaches {names} {within}.")
        if found.tried:
            best = found.tried[0]
            lines.append(f"Nearest: {best.label}, which leaves {number(best.distance, 4)}.")
        return lines
    changed = len(reached[0].reading)
    lines.append(f"{changed} change{'s' * (changed > 1)} reach{'es' * (changed == 1)} {names} {within}:")
    for one in reached[:SHOWN]:
        lines.append(f"- {one.label} (leaves {number(one.distance, 4)})")
        lines += [f"    {remedy}" for remedy in one.remedies]
    if len(reached) > 1:
        same = "These cannot be told apart by what the target gives"
        more = " Figures of single labels would tell more of them apart." if len(found.target.figures) == 1 else ""
        lines.append(f"{same}: {len(reached)} lists of the same length reach it.{more}")
    return lines


def reading_table(report: Explanation, changed: int | None = None, most: int | None = None) -> Table:
    """Readings, the nearest to the target first, below the current one.

    Args:
        changed: number of changes; None takes all.
        most: rows.
    """
    found = report.findings
    names = list(found.target.figures)
    shown = [one for one in found.tried if changed is None or len(one.reading) == changed][:most]
    first, several = names[0], len(names) > 1
    rows: list[Row] = [["target", number_cell(found.target.figures[first]), "", "", ""]]
    for one in (found.start, *shown):
        score = report.intervals.get(one.label, {}).get(first)
        interval = "" if score is None or score.low is None else f"[{number(score.low)}, {number(score.high)}]"
        inside = {None: "", True: "yes", False: "no"}[report.within_interval(one)]
        far = number_cell(one.distance, 4)
        rows.append([one.label, number_cell(one.figures[first], aside=interval), far, inside, "; ".join(one.remedies)])
    distance = "distance (root mean square)" if several else "distance"
    head = ["change", first, distance, "target in interval", "done by"]
    return Table("Changes, the nearest to the target first", head, rows, words=[3, 4])


def not_tried_table(found: Findings) -> Table:
    """What could not be tried, and why."""
    rows: list[Row] = [[name, reason] for name, reason in found.not_tried.items()]
    return Table("Not tried", ["choice", "why"], rows, words=[1])


def figure_table(report: Explanation) -> Table:
    """Every figure of the target beside the current one and that of the nearest reading."""
    found = report.findings
    best = (found.reached or found.tried[:1] or [found.start])[0]
    rows: list[Row] = [
        [name, *(number_cell(value, 4) for value in (target, found.start.figures[name], best.figures[name]))]
        for name, target in found.target.figures.items()
    ]
    return Table("Figures", ["figure", "target", "as now", best.label], rows)


def spread(found: Findings, name: str) -> dict[str, float]:
    """Label of each single change -> a figure, and that of the current settings."""
    singles = {one.label: one.figures[name] for one in found.ranked(1) if name in one.figures}
    return {"as now": found.start.figures[name], **singles}


def summary(report: Explanation) -> str:
    """What is printed: the verdict, the nearest readings, and what was not tried."""
    found = report.findings
    parts = ["\n".join(report.notes), "\n".join(verdict(report)), reading_table(report, most=SHOWN).text()]
    if found.without_effect:
        parts.append(f"Without effect on these figures: {', '.join(found.without_effect)}.")
    if found.not_measured:
        parts.append(f"{found.not_measured} lists of changes were not measured (seconds=, passes over the images).")
    if found.not_tried:
        parts.append(f"Not tried:\n\n{not_tried_table(found).text()}")
    return "\n\n".join(part for part in parts if part)


def markdown(report: Explanation) -> str:
    """Facts, the verdict and all tables."""
    found = report.findings
    parts = ["# Why is my number not yours", *facts_and_notes(report.facts, report.notes)]
    parts += [f"`{report.command}`" if report.command else "", "\n".join(verdict(report))]
    for title, table in (
        ("Figures", figure_table(report)),
        ("Single changes", reading_table(report, 1)),
        ("Two changes", reading_table(report, 2, 50)),
        ("Three changes", reading_table(report, 3, 50)),
        ("Not tried", not_tried_table(found)),
    ):
        if len(table.rows) > 2 or table.caption in ("Figures", "Not tried"):
            parts += [f"## {title}" if table.rows else "", table.text()]
    if found.without_effect:
        parts.append("## Without effect on these figures\n\n" + "\n".join(f"- {name}" for name in found.without_effect))
    return "\n\n".join(part for part in (*parts, RESEARCH_ONLY) if part) + "\n"


def results(report: Explanation) -> dict[str, Any]:
    """The content of explain.json."""
    found = report.findings

    def change(one: Change) -> dict[str, str]:
        choice, variant = one
        return {
            "choice": choice.name,
            "variant": variant.name,
            "needs": choice.stage.value,
            "by": variant.remedy,
        }

    def of(one: Tried) -> dict[str, Any]:
        return {
            "changes": [change(each) for each in one.reading],
            "figures": one.figures,
            "distance": one.distance,
            "intervals": report.intervals.get(one.label, {}),
        }

    return plain(
        {
            "identity": report.identity,
            "evaluator": report.evaluator,
            "facts": report.facts,
            "notes": report.notes,
            "command": report.command,
            "target": found.target.figures,
            "tolerance": found.target.tolerance,
            "current": of(found.start),
            "reached": [of(one) for one in found.reached],
            "single": [of(one) for one in found.ranked(1)],
            "together": [of(one) for one in found.tried if len(one.reading) > 1][:200],
            "without_effect": found.without_effect,
            "not_tried": found.not_tried,
            "not_measured": found.not_measured,
            "complete": found.complete,
        }
    )


def identity(weights: str, manifest: str, splits: Sequence[str]) -> dict[str, str]:
    """What tells whether two reports are of the same weights and images: fingerprints, and the splits."""
    return {"weights": weights, "manifest": manifest, "splits": " + ".join(splits)}


def image_readings(file: Path, of: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Evaluator -> single changes that needed a pass over the images -> mean AUROC, from an explain.json.

    Nothing where there is no such file, or it is of other weights or images.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["identity"] != dict(of):
            return {}
        found = {}
        for one in content["single"]:
            ((change,), value) = one["changes"], one["figures"].get("mean_auroc")
            if change["needs"] in PASSES and value is not None:
                found[f"{change['choice']}: {change['variant']}"] = float(value)
        return {content["evaluator"]: found}
    except (OSError, ValueError, KeyError, TypeError):  # none, or of another version
        return {}


def write(folder: Path, report: Explanation) -> Path:
    """Write both files; returns the one to read.

    Raises:
        OSError: nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        MARKDOWN: markdown(report),
        JSON: json.dumps(results(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    }
    for name, text in files.items():
        with replaced(folder / name) as file:
            file.write(text.encode())
    return folder / MARKDOWN
