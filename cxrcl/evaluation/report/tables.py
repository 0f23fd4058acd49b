"""Tables of metrics by their names, and all tables of an evaluation as text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cxrcl.evaluation.report.table import Cell, Row, Table, number, number_cell

Metrics = Mapping[str, float]
TOO_FEW = "too few patients for an interval"
READINGS = ("combined", "affirmative", "negated")  # of prompts; the first that there is, is scored
BOUND = re.compile(r"_(low|high)(?=/|$)")  # in the name of a metric that is a bound of an interval
WAYS = {"image_to_text": "image -> text", "text_to_image": "text -> image"}


def label_table(results: Mapping[str, Metrics], metric: str) -> Table:
    """One row a label, one column for each evaluator that has `metric/<label>`; intervals where there are any."""
    scorers = {name: metrics for name, metrics in results.items() if f"mean_{metric}" in metrics}
    start = f"{metric}/"
    labels = [key.removeprefix(start) for metrics in scorers.values() for key in metrics if key.startswith(start)]
    rows: list[Row] = []
    for label in dict.fromkeys(labels):
        first = next(iter(scorers.values()))
        counts = [number_cell(first.get(f"{kind}/{label}"), 0) for kind in ("positives", "negatives")]
        rows.append([label, *counts, *(with_interval(f, metric, after=f"/{label}") for f in scorers.values())])
    if scorers:
        rows.append(
            ["mean", *_fewest(scorers.values()), *(with_interval(f, metric, before="mean_") for f in scorers.values())]
        )
    totals = 1
    if metric == "auroc" and any("multiverse/min" in f for f in scorers.values()):
        rows.append(["other readings", "", "", *map(_spread, scorers.values())])
        totals = 2
    title = metric.upper()
    return Table(title, [title, "positives", "negatives", *scorers], rows, totals=totals)


def _spread(metrics: Metrics) -> Cell:
    """The median of the mean AUROC over all readings, with the least, the largest and their number."""
    low, middle, high, count = (metrics.get(f"multiverse/{kind}") for kind in ("min", "median", "max", "readings"))
    if low is None or count is None:
        return Cell("")
    return number_cell(middle, aside=f"({number(low)} to {number(high)}, {count:.0f} readings)")


def _fewest(metrics: Iterable[Metrics]) -> list[str]:
    """Positive and negative images of the label of a mean that has fewest; '' without intervals."""
    first: Metrics = next((one for one in metrics if "mean_positives" in one), {})
    return [f"≥ {first[key]:.0f}" if key in first else "" for key in ("mean_positives", "mean_negatives")]


def with_interval(metrics: Metrics, metric: str, before: str = "", after: str = "", digits: int = 3) -> Cell:
    """A metric with its interval, which `<metric>_low` and `<metric>_high` are."""
    value = number_cell(metrics.get(f"{before}{metric}{after}"), digits)
    low, high = (metrics.get(f"{before}{metric}_{end}{after}") for end in ("low", "high"))
    if value.text is None or low is None or high is None:
        return value
    if math.isnan(low):
        return replace(value, note=TOO_FEW)
    return replace(value, aside=f"[{number(low, digits)}, {number(high, digits)}]")


def retrieval_table(results: Mapping[str, Metrics]) -> Table:
    """Recall, ranks and precision at k with their intervals and the expectation of a random order, one a row."""
    rows: list[Row] = []
    for name, metrics in results.items():
        if not ranked_at(metrics, "r"):
            continue
        for way, title in WAYS.items():
            part = {key.removeprefix(f"{way}/"): value for key, value in metrics.items() if key.startswith(f"{way}/")}
            shown = [(f"R@{k}", f"r{k}", f"chance_r{k}", 3) for k in ranked_at(metrics, "r")]
            shown += [(rank.replace("_", " "), rank, "", 1) for rank in ("median_rank", "mean_rank")]
            shown += [(f"P@{k}", f"p{k}", "chance_p", 3) for k in ranked_at(metrics, "p")]
            for label, key, chance, digits in shown:
                if key not in part:
                    continue
                of = part.get("class_queries" if key.startswith("p") else "queries")
                in_gallery = "" if key.startswith("p") else number_cell(part.get("gallery"), 0)
                called = f"{title} {label}" if name == "retrieval" else f"{name}: {title} {label}"
                beside = number_cell(part[chance]) if chance in part else ""
                rows.append([called, with_interval(part, key, digits=digits), beside, number_cell(of, 0), in_gallery])
    return Table("Retrieval", ["retrieval", "value", "chance", "queries", "of"], rows)


def family_tables(results: Mapping[str, Metrics]) -> list[Table]:
    """Zero-shot metrics by prompt family and reading: one that depends on its prompts says little of the model."""
    found = []
    for name, metrics in results.items():
        families = [key.removesuffix("/affirmative") for key in metrics if key.endswith("/affirmative")]
        if not families:
            continue
        readings = [key for key in READINGS if f"{families[0]}/{key}" in metrics]
        rows: list[Row] = [
            [one, *(with_interval(metrics, key, before=f"{one}/") for key in readings)] for one in families
        ]
        for kind in ("mean", "worst"):
            of_score = with_interval(metrics, kind, before="over_prompts/")
            rows.append([f"{kind} over families", of_score, *("" for _ in readings[1:])])
        caption = f"Mean AUROC of {name} by prompt family and reading"
        found.append(Table(caption, [f"prompts of {name}", *readings], rows, totals=2))
    return found


def ranked_at(metrics: Metrics, letter: str) -> list[int]:
    """The k of the recall (r) or precision (p) at k of a retrieval, empty for other metrics."""
    matches = (re.fullmatch(rf"(?:{'|'.join(WAYS)})/{letter}(\d+)", key) for key in metrics)
    return sorted({int(match[1]) for match in matches if match})


def metric_table(results: Mapping[str, Metrics]) -> Table:
    """Every metric in a row of its own, for those that fit no other table."""
    rows: list[Row] = []
    for name, metrics in results.items():
        for key in metrics:
            if BOUND.sub("", key) != key and BOUND.sub("", key) in metrics:
                continue  # stands beside its metric
            before, slash, after = key.partition("/") if f"{key}_low" not in metrics else (key, "", "")
            rows.append([f"{name}/{key}", with_interval(metrics, before, after=f"{slash}{after}", digits=4)])
    return Table("Metrics that no other section shows", ["metric", "value"], rows)


def tables(results: Mapping[str, Metrics], made: Mapping[str, Sequence[Table]] | None = None) -> str:
    """All tables of one model.

    Args:
        made: evaluator -> tables that it made itself.
    """
    scored = label_table(results, "auroc"), label_table(results, "auprc")
    return _joined(*scored, *family_tables(results), *_not_of_labels(results, made or {}))


def tables_of_several(
    models: Mapping[str, Mapping[str, Metrics]], made: Mapping[str, Sequence[Table]] | None = None
) -> str:
    """Results by model: a row each with the means of evaluators that score labels, then the metrics of all others.

    Args:
        made: `model / evaluator` -> tables that the evaluator made itself.
    """
    scorers = dict.fromkeys(name for results in models.values() for name, f in results.items() if "mean_auroc" in f)
    means: list[Row] = [
        [
            model,
            *_fewest(results.values()),
            *(with_interval(results.get(name, {}), "auroc", before="mean_") for name in scorers),
        ]
        for model, results in models.items()
        if scorers
    ]
    named = {f"{model} / {name}": f for model, results in models.items() for name, f in results.items()}
    head = ["mean AUROC", "positives", "negatives", *scorers]
    return _joined(Table("mean AUROC", head, means), *_not_of_labels(named, made or {}))


def _not_of_labels(results: Mapping[str, Metrics], made: Mapping[str, Sequence[Table]]) -> list[Table]:
    """Tables of evaluators that do not score labels: their own, else retrieval, else each metric in a row."""
    others = {
        name: f for name, f in results.items() if "mean_auroc" not in f and not ranked_at(f, "r") and name not in made
    }
    own = [
        replace(table, head=[f"{name}: {table.head[0]}", *table.head[1:]]) if len(made) > 1 else table
        for name, parts in made.items()
        for table in parts
    ]
    return [retrieval_table(results), *own, metric_table(others)]


def _joined(*parts: Table) -> str:
    return "\n\n".join(part.text() for part in parts if part.rows)


def nested(results: Mapping[str, Metrics]) -> dict[str, Any]:
    """{evaluator: {metric: {label: value}}}: names split at '/', nan as None, for JSON.

    A metric that stands beside those of its labels, as `images` and `images/Edema`, is their `all`.
    """
    tree: dict[str, Any] = {}
    for evaluator, metrics in results.items():
        branch: dict[str, Any] = {}
        with_labels = {key.split("/", 1)[0] for key in metrics if "/" in key}
        for key, value in metrics.items():
            metric, _, label = key.partition("/")
            value_or_none = value if value == value else None
            if metric in with_labels:
                branch.setdefault(metric, {})[label or "all"] = value_or_none
            else:
                branch[metric] = value_or_none
        tree[evaluator] = branch
    return tree
