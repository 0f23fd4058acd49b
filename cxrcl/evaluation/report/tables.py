"""Tables of metrics by their names, and all tables of an evaluation as text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cxrcl.evaluation.report.table import Cell, Row, Table, number, number_cell

Metrics = Mapping[str, float]
TOO_FEW = "too few patients with positive or with negative images for an interval"
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
        rows.append([label, *counts, *(_with_interval(f, metric, after=f"/{label}") for f in scorers.values())])
    if scorers:
        rows.append(
            ["mean", *_fewest(scorers.values()), *(_with_interval(f, metric, before="mean_") for f in scorers.values())]
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
    """Patients with positive and with negative images in the label of a mean that has fewest; '' without intervals."""
    first: Metrics = next((one for one in metrics if "mean_positives" in one), {})
    return [f"≥ {first[key]:.0f}" if key in first else "" for key in ("mean_positives", "mean_negatives")]


def _with_interval(metrics: Metrics, metric: str, before: str = "", after: str = "") -> Cell:
    """A metric with its interval, which `cxrcl.evaluation.scorer.label_metrics` names."""
    of = "" if metric == "auroc" else f"{metric}_"
    value = number_cell(metrics.get(f"{before}{metric}{after}"))
    low, high = (metrics.get(f"{before}{of}{end}{after}") for end in ("low", "high"))
    if value.text is None or low is None or high is None:
        return value
    if math.isnan(low):
        return replace(value, note=TOO_FEW)
    return replace(value, aside=f"[{number(low)}, {number(high)}]")


def retrieval_table(results: Mapping[str, Metrics], brief: bool = False) -> Table:
    """Recall with the chance level beside it, ranks and precision; one row a direction.

    Args:
        brief: without mean ranks and precision, as wide as a terminal.
    """
    found = {name: metrics for name, metrics in results.items() if ranked_at(metrics, "r")}
    recalls = sorted({k for metrics in found.values() for k in ranked_at(metrics, "r")})
    precisions = [] if brief else sorted({k for metrics in found.values() for k in ranked_at(metrics, "p")})
    ranks = ("median_rank",) if brief else ("median_rank", "mean_rank")
    rows: list[Row] = []
    for name, metrics in found.items():
        for way, title in WAYS.items():
            part = {key.removeprefix(f"{way}/"): value for key, value in metrics.items() if key.startswith(f"{way}/")}
            if not part:
                continue
            row: list[Cell | str] = [title if name == "retrieval" else f"{name}: {title}"]
            row += [number_cell(part.get(f"r{k}"), aside=f"({number(part.get(f'chance_r{k}'))})") for k in recalls]
            row += [*(number_cell(part.get(rank), 1) for rank in ranks), number_cell(part.get("gallery"), 0)]
            row += [number_cell(part.get(f"p{k}")) for k in precisions]
            rows.append([*row, number_cell(part.get("chance_p"))] if precisions else row)
    head = ["retrieval", *(f"R@{k} (chance)" for k in recalls), *(rank.replace("_", " ") for rank in ranks), "of"]
    head += [*(f"P@{k}" for k in precisions), "chance of P"] if precisions else []
    return Table("Retrieval; in brackets the expectation of a random order", head, rows)


def ranked_at(metrics: Metrics, letter: str) -> list[int]:
    """The k of the recall (r) or precision (p) at k of a retrieval, empty for other metrics."""
    matches = (re.fullmatch(rf"(?:{'|'.join(WAYS)})/{letter}(\d+)", key) for key in metrics)
    return sorted({int(match[1]) for match in matches if match})


def metric_table(results: Mapping[str, Metrics]) -> Table:
    """Every metric in a row of its own, for those that fit no other table."""
    rows: list[Row] = [
        [f"{name}/{key}", number_cell(value, 4)] for name, f in results.items() for key, value in f.items()
    ]
    return Table("Metrics that no other section shows", ["metric", "value"], rows)


def tables(results: Mapping[str, Metrics], made: Mapping[str, Sequence[Table]] | None = None) -> str:
    """All tables of one model.

    Args:
        made: evaluator -> tables that it made itself.
    """
    return _joined(label_table(results, "auroc"), label_table(results, "auprc"), *_not_of_labels(results, made or {}))


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
            *(_with_interval(results.get(name, {}), "auroc", before="mean_") for name in scorers),
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
    return [retrieval_table(results, brief=True), *own, metric_table(others)]


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
