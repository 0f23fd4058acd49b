"""The tables of a negation evaluation."""

from __future__ import annotations

from collections.abc import Mapping

from cxrcl.evaluation.report.table import Cell, Row, Table, number, number_cell, score_cell
from cxrcl.evaluation.scores.score_report import Score

SHARES = {
    "balanced": "both directions alike",
    "to_absent": "finding present, turned to absent",
    "to_present": "finding absent, turned to present",
}
CHANCE = "0.500"


def of_unit(
    unit: str,
    counts: Mapping[str, tuple[int, int]],
    scores: Mapping[str, Mapping[str, Score]],
    ordered: Mapping[str, Mapping[str, Score]],
) -> list[Table]:
    """The own text against the turned one, beside what does not look at the image; and against the omitted one.

    Args:
        unit: what a text is.
        counts: share -> pairs and patients.
        scores: chooser, the model first -> share -> value.
        ordered: comparison -> share -> value.
    """
    rows: list[Row] = []
    for part, (pairs, patients) in counts.items():
        cells = [score_cell(each[part]) for each in scores.values()]
        rows.append([SHARES.get(part, part), str(pairs), str(patients), cells[0], CHANCE, *cells[1:]])
    _, *others = scores
    head = [f"{unit} pairs", "pairs", "patients", "own chosen", "chance", *others]
    tables = [Table(f"Own against turned {unit}: share of pairs whose own text is more similar", head, rows)]
    if ordered:
        parts = dict.fromkeys(part for each in ordered.values() for part in each if part in SHARES)
        body: list[Row] = [[SHARES[part], *(score_cell(each[part]) for each in ordered.values())] for part in parts]
        caption = f"Own, omitted and turned {unit}; by chance 0.500 of two and 0.167 of three in order"
        tables.append(Table(caption, [f"{unit} pairs", *ordered], body))
    return tables


def of_readings(readings: Mapping[str, Mapping[str, float]]) -> Table:
    """AUROC of labels by affirmative, negated and both prompts.

    Args:
        readings: reading -> metrics as `cxrcl.evaluation.scorer.label_metrics` names them.
    """
    first = next(iter(readings.values()))
    labels = [key.removeprefix("auroc/") for key in first if key.startswith("auroc/")]
    rows: list[Row] = []
    for label in labels:
        counts = [number_cell(first[f"{kind}/{label}"], 0) for kind in ("positives", "negatives")]
        rows.append([label, *counts, *(_cell(each, f"auroc/{label}", f"/{label}", "") for each in readings.values())])
    rows.append(["mean", "", "", *(_cell(each, "mean_auroc", "", "mean_") for each in readings.values())])
    caption = "AUROC by affirmative (POS), negated (NEG) and both prompts (PNC); chance 0.500"
    return Table(caption, ["AUROC", "positives", "negatives", *readings], rows, totals=1)


def _cell(metrics: Mapping[str, float], name: str, after: str, before: str) -> Cell:
    low, high = (metrics.get(f"{before}{end}{after}", float("nan")) for end in ("low", "high"))
    return number_cell(metrics[name], aside=f"[{number(low)}, {number(high)}]" if low == low else "")
