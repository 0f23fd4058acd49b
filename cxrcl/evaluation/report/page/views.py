"""What the page shows of a report besides the tables of its scores: facts, notes and rules, further tables, curves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cxrcl.evaluation.metrics.curves import curves
from cxrcl.evaluation.report import tables
from cxrcl.evaluation.report.content import ClassSimilarity, Page
from cxrcl.evaluation.report.page import plot_scores
from cxrcl.evaluation.report.page.pictures import Picture
from cxrcl.evaluation.report.score_tables import group_tables
from cxrcl.evaluation.report.table import Cell, Row, Table, number_cell

if TYPE_CHECKING:
    from cxrcl.evaluation.representation import Space
    from cxrcl.evaluation.zero_shot_classes import ClassConfusion

SPREAD = ("min", "median", "max")
COUNTED = ("images", "patients", "resamples", "seed")


def facts(page: Page) -> dict[str, Any]:
    """What was scored; of the model first, where there is only one."""
    counted = {key: report.facts[key] for report in page.scores.values() for key in COUNTED if key in report.facts}
    model = page.proper[0].shown_facts if len(page.proper) == 1 else {}
    return {**model, **counted, **page.shown_facts(with_rules=False)}


def notes(page: Page) -> list[str]:
    """Notes of the page, and those of evaluators: named, unless all of them say so."""
    several = [report.notes for name, report in page.scores.items() if name]
    shared = [note for note in several[0] if all(note in notes for notes in several)] if several[1:] else []
    named = [f"{name}: {n}" for name, report in page.scores.items() if name for n in report.notes if n not in shared]
    return [*page.notes, *shared, *named]


def rules(page: Page) -> dict[str, str]:
    """Rules of evaluators, then of scores; those that are not the same for all evaluators are named after theirs."""
    rules = {} if page.data is None else dict(page.data.rules)
    for name, report in page.scores.items():
        for key, text in report.rules.items():
            rules[key if rules.get(key, text) == text else f"{key} ({name})"] = text
    return rules


def checkpoint_table(page: Page) -> Table:
    """The facts of each checkpoint, one a column."""
    columns = [one.shown_facts for one in page.proper]
    names = dict.fromkeys(name for column in columns for name in column)
    rows: list[Row] = [[name, *(column.get(name, "") for column in columns)] for name in names]
    return Table("Checkpoints", ["", *(one.name for one in page.proper)], rows, words=range(1, 1 + len(columns)))


def prompt_tables(page: Page) -> list[Table]:
    """Zero-shot metrics by prompt family and reading."""
    return tables.family_tables(page.metrics(with_controls=False))


def multiverse_tables(page: Page) -> list[Table]:
    """Mean AUROC of zero-shot evaluators over other readings of the same weights and images."""
    found = []
    for name, metrics in page.metrics(with_controls=False).items():
        if "multiverse/readings" not in metrics:
            continue
        rows: list[Row] = [["as scored", number_cell(metrics["mean_auroc"])]]
        alone = {key.removeprefix("alone/"): value for key, value in metrics.items() if key.startswith("alone/")}
        rows += [[label, number_cell(value)] for label, value in sorted(alone.items(), key=lambda entry: entry[1])]
        rows += [[f"{kind} of all readings", number_cell(metrics[f"multiverse/{kind}"])] for kind in SPREAD]
        count = f"{metrics['multiverse/readings']:.0f}"
        found.append(
            Table(f"The multiverse of {name}: mean AUROC in {count} readings", ["reading", "AUROC"], rows, totals=3)
        )
    return found


def class_tables(page: Page) -> list[Table]:
    """One class of several: accuracy with its chance, and the confusion matrices."""
    shown = ("accuracy", "chance", "macro_f1", "macro_recall")
    rows: list[Row] = [
        [name, number_cell(metrics.get("images"), 0), *(tables.with_interval(metrics, key) for key in shown)]
        for name, metrics in page.metrics().items()
        if {"accuracy", "chance"} <= set(metrics)
    ]
    if not rows:
        return []
    matrices = [
        _matrix(page.of(one.name, evaluator), confusion, one.metrics.get(evaluator, {}))
        for one in page.checkpoints
        for evaluator, confusion in one.confusions.items()
    ]
    head = ["evaluator", "images", "accuracy", "chance", "macro F1", "macro recall"]
    return [Table("One class of several", head, rows), *matrices]


def _matrix(name: str, confusion: ClassConfusion, metrics: tables.Metrics) -> Table:
    """Cells are as dark as their share of the row."""
    rows: list[Row] = []
    for k, (label, row) in enumerate(zip(confusion.classes, confusion.counts.tolist())):
        total = max(1, sum(row))
        own = {f"recall/{label}": row[k] / total} if sum(row) else {}
        recall = tables.with_interval({**own, **metrics}, "recall", after=f"/{label}")
        rows.append([label, *(Cell(str(count), share=count / total) for count in row), recall])
    caption = f"Images of {name} by class (rows) and by the class chosen (columns)"
    return Table(caption, ["", *confusion.classes, "recall"], rows)


def curves_by_model(page: Page) -> Iterator[tuple[str, dict[str, Picture], list[str]]]:
    """Of each model that has any: its name, pictures of curves by what they are, and labels without curves."""
    series = page.series()
    for model in page.models():
        pictures: dict[str, Picture] = {}
        without: list[str] = []
        known = {label.label: label for label in model.labels}
        if scored := series.get(model.name):
            every = {name: curves(scored.scores[:, k], scored.labels[:, k]) for k, name in enumerate(scored.names)}
            found = {name: one for name, one in every.items() if one is not None and name in known}
            if found:
                pictures["ROC"] = plot_scores.roc(model, found)
                pictures["Precision and recall"] = plot_scores.precision_recall(model, found)
                without = [name for name in every if name not in found]
        reliable = {n: one for n, one in known.items() if one.reliability and one.scores["ece"].value is not None}
        if reliable:
            pictures["Reliability"] = plot_scores.reliability(model, reliable)
        if pictures:
            yield model.name, pictures, without


def tables_by_group(page: Page) -> dict[str, list[Table]]:
    """Model and column of the groups -> its tables."""
    return {
        f"{model.name}: by {column}": parts for model in page.models() for column, parts in group_tables(model).items()
    }


def spaces(page: Page) -> list[tuple[str, Space, ClassSimilarity | None]]:
    """Names, common spaces, and the similarity of classes that each began with."""
    return [
        (page.of(one.name, evaluator), space, one.at_start.get(evaluator))
        for one in page.proper
        for evaluator, space in one.spaces.items()
    ]


def space_table(page: Page) -> Table:
    """Modality gap, alignment and uniformity."""
    by_name = {
        page.of(one.name, evaluator): one.metrics.get(evaluator, {})
        for one in page.checkpoints
        for evaluator in one.spaces
    }
    names = [name for name in next(iter(by_name.values()), {}) if name != "classes"]
    rows: list[Row] = [[title, *(number_cell(part.get(name)) for name in names)] for title, part in by_name.items()]
    return Table("The common space", ["", *(name.replace("_", " ") for name in names)], rows)


def other_metrics(page: Page) -> Table:
    """Metrics of evaluators that have no section of their own."""
    return tables.metric_table(
        {
            page.of(one.name, evaluator): metrics
            for one in page.checkpoints
            for evaluator, metrics in one.metrics.items()
            if evaluator not in (*page.scores, *page.controls, *one.tables)
            and not tables.ranked_at(metrics, "r")
            and not {"accuracy", "chance"} <= set(metrics)
            and "class_similarity" not in metrics
        }
    )
