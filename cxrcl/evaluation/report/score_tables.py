"""The tables of a ScoreReport, for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cxrcl.evaluation.metrics import DECISIONS, METRICS, PROBABILITY
from cxrcl.evaluation.report.table import Cell, Row, Table, number_cell, score_cell
from cxrcl.evaluation.scores.score_report import (
    AverageScores,
    Comparison,
    Gap,
    GroupScores,
    LabelScores,
    ModelScores,
    Score,
)

TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1",
    "accuracy": "accuracy",
    "mcc": "MCC",
    "ppv": "PPV",
    "npv": "NPV",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "brier": "Brier",
    "ece": "ECE",
    "mse": "MSE",
}
COMPARED = ("auroc", "auprc")
CONFUSION = {"true_positives": "TP", "false_positives": "FP", "false_negatives": "FN", "true_negatives": "TN"}
AT_BOUND = "at the bound of the search: the probabilities tell nothing"
NO_GAP = Score(None, reason="fewer than two groups have this metric")


def score_table(caption: str, models: Sequence[ModelScores], metrics: Sequence[str]) -> Table:
    """One row a label, then the averages; a column for each model and metric.

    Numbers of images are those of the first model that has the label; footnotes say where others differ. Those of an
    average are of its labels with fewest, of `micro` of all.
    """
    rows: list[Row] = []
    for name in labels_of(models):
        labels = [next((part for part in model.labels if part.label == name), None) for model in models]
        counts = next((part.positives, part.negatives) for part in labels if part is not None)
        row: list[Cell | str] = [name, *map(str, counts)]
        for label in labels:
            if label is None:
                row += [""] * len(metrics)
                continue
            same = (label.positives, label.negatives) == counts
            but = "" if same else f"of {label.positives} positives and {label.negatives} negatives"
            row += [score_cell(label.scores[metric], but) for metric in metrics]
        rows.append(row)
    names = dict.fromkeys(part.name for model in models for part in model.averages)
    for name in names:
        averages = [next((part for part in model.averages if part.name == name), None) for model in models]
        most = next(len(part.over[metrics[0]]) for part in averages if part is not None)
        counted = next(_counts(part, model.labels) for model in models for part in model.averages if part.name == name)
        row = [f"{name} {_over(most)}", *counted]
        for average in averages:
            row += [""] * len(metrics) if average is None else _average_cells(average, metrics, most)
        rows.append(row)
    above = [("", 3), *((model.name, len(metrics)) for model in models)] if len(metrics) > 1 else []
    titles = [TITLES[metric] for metric in metrics]
    corner, heads = ("label", titles * len(models)) if above else (titles[0], [model.name for model in models])
    return Table(caption, [corner, "positives", "negatives", *heads], rows, above, totals=len(names))


def labels_of(models: Sequence[ModelScores]) -> list[str]:
    """The labels of any of the models."""
    return list(dict.fromkeys(part.label for model in models for part in model.labels))


def _counts(average: AverageScores, labels: Sequence[LabelScores]) -> list[str]:
    """Positive and negative images of an average: of its labels with fewest, of `micro` of all together."""
    within = {name for names in average.over.values() for name in names}
    pairs = [(label.positives, label.negatives) for label in labels if label.label in within]
    if not pairs:
        return ["", ""]
    positives, negatives = zip(*pairs, strict=True)
    if average.name == "micro":
        return [str(sum(positives)), str(sum(negatives))]
    return [f"≥ {min(positives)}", f"≥ {min(negatives)}"]


def _average_cells(average: AverageScores, metrics: Sequence[str], most: int) -> list[Cell]:
    """Cells of an average, with a footnote where it is not over so many labels."""
    over = {metric: len(average.over[metric]) for metric in metrics}
    return [
        score_cell(average.scores[metric], "" if over[metric] == most else _over(over[metric])) for metric in metrics
    ]


def _over(count: int) -> str:
    return f"over {count} label{'' if count == 1 else 's'}"


def difference_table(caption: str, comparisons: Sequence[Comparison]) -> Table:
    """Differences in AUROC and AUPRC with their p-values, one a row: those of averages first."""
    compared = [one for one in comparisons if one.metric in COMPARED]
    rows: list[Row] = []
    for one in sorted(compared, key=lambda one: (COMPARED.index(one.metric), one.kind)):
        names = [f"{one.model} − {one.reference}", one.label, TITLES[one.metric]]
        least = "≥ " if one.kind == "average" and one.label != "micro" else ""
        counts = [f"{least}{count}" for count in (one.positives, one.negatives)]
        rows.append([*names, *counts, score_cell(one.difference), _p_cell(one.p), _p_cell(one.p_holm)])
    head = ["models", "over", "metric", "positive patients", "negative patients", "difference", "p", "p (Holm)"]
    return Table(caption, head, rows, words=(1, 2))


def _p_cell(p: float | None) -> Cell:
    return Cell("< 0.0001") if p is not None and p < 0.0001 else number_cell(p, 4)


def decision_tables(model: ModelScores) -> list[Table]:
    """Decisions at the threshold where there is one, errors of the scores, and all averages."""
    tables = [_decisions(model)] if any(label.confusion for label in model.labels) else []
    return [*tables, _errors(model), _averages(model)]


def _decisions(model: ModelScores) -> Table:
    rows: list[Row] = []
    for label in model.labels:
        counts = [Cell(str(label.confusion[name]) if label.confusion else None) for name in CONFUSION]
        metrics = [score_cell(label.scores[metric]) for metric in DECISIONS]
        rows.append([label.label, number_cell(label.threshold, 4), *counts, *metrics])
    caption = f"Decisions of {model.name}: T and F true and false, P and N called so"
    head = ["label", "threshold", *CONFUSION.values(), *(TITLES[metric] for metric in DECISIONS)]
    return Table(caption, head, rows)


def _errors(model: ModelScores) -> Table:
    metrics = (*PROBABILITY, "mse")
    rows: list[Row] = [
        [
            label.label,
            *map(str, (label.positives, label.negatives)),
            replace(number_cell(label.temperature, 4), note=AT_BOUND if label.temperature_at_bound else ""),
            *(score_cell(label.scores[metric]) for metric in metrics),
        ]
        for label in model.labels
    ]
    head = ["label", "positives", "negatives", "temperature", *(TITLES[metric] for metric in metrics)]
    return Table(f"Errors of the scores of {model.name}", head, rows)


def _averages(model: ModelScores) -> Table:
    most = max((len(one.over[metric]) for one in model.averages for metric in METRICS), default=0)
    columns = [_average_cells(one, METRICS, most) for one in model.averages]
    rows: list[Row] = [[TITLES[metric], *(column[k] for column in columns)] for k, metric in enumerate(METRICS)]
    counted = zip(*(_counts(one, model.labels) for one in model.averages), strict=True)
    rows += [[name, *of_class] for name, of_class in zip(("positives", "negatives"), counted)]
    return Table(f"Averages of {model.name} {_over(most)}", ["metric", *(one.name for one in model.averages)], rows)


def group_tables(model: ModelScores) -> dict[str, list[Table]]:
    """Column of the groups -> averages by group, and the AUROC of each label by group with the gap between groups."""
    by_column: dict[str, list[GroupScores]] = {}
    for group in model.groups:
        by_column.setdefault(group.column, []).append(group)
    return {
        column: [_averages_by_group(column, groups), _labels_by_group(column, model, groups)]
        for column, groups in by_column.items()
    }


def _averages_by_group(column: str, groups: Sequence[GroupScores]) -> Table:
    metrics = ("auroc", "auprc", "sensitivity", "specificity")
    macros = [next(average for average in group.averages if average.name == "macro") for group in groups]
    most = max(len(macro.over[metric]) for macro in macros for metric in metrics)
    rows: list[Row] = []
    for group, macro in zip(groups, macros):
        cells = [*_average_cells(macro, metrics, most), score_cell(group.underdiagnosis)]
        rows.append([group.group, str(group.images), str(group.patients), *_counts(macro, group.labels), *cells])
    head = [
        column,
        "images",
        "patients",
        "positives",
        "negatives",
        *(f"macro {TITLES[metric]}" for metric in metrics),
        "underdiagnosis",
    ]
    return Table(f"Averages {_over(most)} by {column}", head, rows)


def _labels_by_group(column: str, model: ModelScores, groups: Sequence[GroupScores]) -> Table:
    gaps = {gap.label: gap for gap in model.gaps if gap.column == column and gap.metric == "auroc"}
    rows: list[Row] = []
    for k, label in enumerate(model.labels):
        cells = [_with_counts(group.labels[k]) for group in groups]
        rows.append([label.label, *cells, *_gap_cells(gaps.get(label.label))])
    mean = gaps.get("macro")
    if mean is not None:
        name = f"mean over the {len(mean.over)} labels that every group has"
        rows.append([name, *("" for _ in groups), *_gap_cells(mean)])
    caption = f"AUROC of each label by {column}, in brackets positives and negatives, and the gap between groups"
    head = ["label", *(group.group for group in groups), "gap", "worst"]
    return Table(caption, head, rows, totals=0 if mean is None else 1)


def _with_counts(label: LabelScores) -> Cell:
    cell = score_cell(label.scores["auroc"])
    return replace(cell, aside=f"{cell.aside} ({label.positives}/{label.negatives})".strip())


def _gap_cells(gap: Gap | None) -> list[Cell | str]:
    return [score_cell(NO_GAP), ""] if gap is None else [score_cell(gap.gap), gap.worst]
