"""Tables of metrics, for the terminal and for Markdown reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Metrics = Mapping[str, float]


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits, or a dash where it does not exist."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns stand below each other; the first row is the header."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def label_table(results: Mapping[str, Metrics], metric: str) -> str:
    """One row a label, one column for each evaluator that has `metric/<label>`; intervals where there are any."""
    scorers = {name: metrics for name, metrics in results.items() if f"mean_{metric}" in metrics}
    if not scorers:
        return ""
    start = f"{metric}/"
    labels = [key.removeprefix(start) for metrics in scorers.values() for key in metrics if key.startswith(start)]
    first = next(iter(scorers.values()))
    rows = [[metric.upper(), "positives", "negatives", *scorers]]
    for label in dict.fromkeys(labels):
        counts = [number(first.get(f"{kind}/{label}"), 0) for kind in ("positives", "negatives")]
        rows.append([label, *counts, *(_with_interval(f, metric, f"/{label}") for f in scorers.values())])
    rows.append(["mean", "", "", *(_with_interval(f, metric, None) for f in scorers.values())])
    return aligned(rows)


def _with_interval(metrics: Metrics, metric: str, suffix: str | None) -> str:
    """A metric with its interval, which `cxrcl.evaluation.scorer.label_metrics` names."""
    of = "" if metric == "auroc" else f"{metric}_"
    low, high = (f"mean_{of}{end}" if suffix is None else f"{of}{end}{suffix}" for end in ("low", "high"))
    text = number(metrics.get(f"mean_{metric}" if suffix is None else f"{metric}{suffix}"))
    return f"{text} [{number(metrics[low])}, {number(metrics[high])}]" if low in metrics else text


def retrieval_table(results: Mapping[str, Metrics]) -> str:
    """Recall with the chance level beside it, one row a direction."""
    rows: list[list[str]] = []
    for name, metrics in results.items():
        for way in dict.fromkeys(key.split("/")[0] for key in metrics if "/r" in key):
            at = sorted(int(key.split("/r")[1]) for key in metrics if key.startswith(f"{way}/r"))
            if not rows:
                rows.append(["retrieval", *(f"R@{k} (chance)" for k in at), "median rank", "of"])
            recalls = [f"{number(metrics[f'{way}/r{k}'])} ({number(metrics[f'{way}/chance_r{k}'])})" for k in at]
            label = way.replace("_", " ").replace(" to ", " -> ")
            label = label if name == "retrieval" else f"{name}: {label}"
            rows.append(
                [label, *recalls, number(metrics[f"{way}/median_rank"], 1), number(metrics[f"{way}/gallery"], 0)]
            )
    return aligned(rows) if rows else ""


def other_metrics(results: Mapping[str, Metrics]) -> str:
    """Metrics that no other table shows."""
    shown = {name for name, f in results.items() if "mean_auroc" in f or any("/r" in key for key in f)}
    rows = [
        [f"{name}/{key}", number(value, 4)]
        for name, f in results.items()
        if name not in shown
        for key, value in f.items()
    ]
    return aligned([["metric", "value"], *rows]) if rows else ""


def tables(results: Mapping[str, Metrics]) -> str:
    """All tables of one model."""
    by_label = [label_table(results, metric) for metric in ("auroc", "auprc")]
    return "\n\n".join(part for part in (*by_label, retrieval_table(results), other_metrics(results)) if part)


def tables_of_several(models: Mapping[str, Mapping[str, Metrics]]) -> str:
    """Results by model: a row each with the means of evaluators that score labels, then the metrics of all others."""
    scorers = dict.fromkeys(name for results in models.values() for name, f in results.items() if "mean_auroc" in f)
    rows = [["mean AUROC", *scorers]]
    for model, results in models.items():
        rows.append([model, *(_with_interval(results.get(name, {}), "auroc", None) for name in scorers)])
    named = {f"{model} / {name}": f for model, results in models.items() for name, f in results.items()}
    means = aligned(rows) if scorers else ""
    return "\n\n".join(part for part in (means, retrieval_table(named), other_metrics(named)) if part)


def nested(results: Mapping[str, Metrics]) -> dict[str, object]:
    """{evaluator: {metric: {label: value}}}: names split at '/', nan as None, for JSON.

    A metric that stands beside those of its labels, as `images` and `images/Edema`, is their `all`.
    """
    tree: dict[str, dict[str, object]] = {}
    for evaluator, metrics in results.items():
        branch = tree[evaluator] = {}
        with_labels = {key.split("/", 1)[0] for key in metrics if "/" in key}
        for key, value in metrics.items():
            metric, _, label = key.partition("/")
            value_or_none = value if value == value else None
            if metric in with_labels:
                branch.setdefault(metric, {})[label or "all"] = value_or_none  # type: ignore[index]
            else:
                branch[metric] = value_or_none
    return dict(tree)
