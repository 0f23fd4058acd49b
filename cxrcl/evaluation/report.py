"""Figures -> a table for the terminal and a Markdown report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Figures = Mapping[str, float]


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns stand below each other; the first row is the header."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def label_table(results: Mapping[str, Figures], metric: str) -> str:
    """One row a label, one column for each evaluator that gives `metric/<label>`; intervals where there are any."""
    givers = {name: figures for name, figures in results.items() if f"mean_{metric}" in figures}
    if not givers:
        return ""
    start = f"{metric}/"
    labels = [key.removeprefix(start) for figures in givers.values() for key in figures if key.startswith(start)]
    first = next(iter(givers.values()))
    rows = [[metric.upper(), "positives", "negatives", *givers]]
    for label in dict.fromkeys(labels):
        counts = [number(first.get(f"{kind}/{label}"), 0) for kind in ("positives", "negatives")]
        rows.append([label, *counts, *(_with_interval(f, metric, f"/{label}") for f in givers.values())])
    rows.append(["mean", "", "", *(_with_interval(f, metric, None) for f in givers.values())])
    return aligned(rows)


def _with_interval(figures: Figures, metric: str, suffix: str | None) -> str:
    """Bounds are `low/<label>` and `mean_low` for AUROC, `auprc_low/<label>` and `mean_auprc_low` for AUPRC."""
    of = "" if metric == "auroc" else f"{metric}_"
    low, high = (f"mean_{of}{end}" if suffix is None else f"{of}{end}{suffix}" for end in ("low", "high"))
    text = number(figures.get(f"mean_{metric}" if suffix is None else f"{metric}{suffix}"))
    return f"{text} [{number(figures[low])}, {number(figures[high])}]" if low in figures else text


def retrieval_table(results: Mapping[str, Figures]) -> str:
    """Recall with the chance level beside it, one row a direction."""
    rows: list[list[str]] = []
    for name, figures in results.items():
        for way in dict.fromkeys(key.split("/")[0] for key in figures if "/r" in key):
            at = sorted(int(key.split("/r")[1]) for key in figures if key.startswith(f"{way}/r"))
            if not rows:
                rows.append(["retrieval", *(f"R@{k} (chance)" for k in at), "median rank", "of"])
            recalls = [f"{number(figures[f'{way}/r{k}'])} ({number(figures[f'{way}/chance_r{k}'])})" for k in at]
            label = way.replace("_", " ").replace(" to ", " -> ")
            label = label if name == "retrieval" else f"{name}: {label}"
            rows.append(
                [label, *recalls, number(figures[f"{way}/median_rank"], 1), number(figures[f"{way}/gallery"], 0)]
            )
    return aligned(rows) if rows else ""


def other_figures(results: Mapping[str, Figures]) -> str:
    """What no table shows."""
    shown = {name for name, f in results.items() if "mean_auroc" in f or any("/r" in key for key in f)}
    rows = [
        [f"{name}/{key}", number(value, 4)]
        for name, f in results.items()
        if name not in shown
        for key, value in f.items()
    ]
    return aligned([["figure", "value"], *rows]) if rows else ""


def tables(results: Mapping[str, Figures]) -> str:
    by_label = [label_table(results, metric) for metric in ("auroc", "auprc")]
    return "\n\n".join(part for part in (*by_label, retrieval_table(results), other_figures(results)) if part)


def tables_of_several(models: Mapping[str, Mapping[str, Figures]]) -> str:
    """Results by model: a row each with the means of evaluators that score labels, then the figures of all others."""
    givers = dict.fromkeys(name for results in models.values() for name, f in results.items() if "mean_auroc" in f)
    rows = [["mean AUROC", *givers]]
    for model, results in models.items():
        rows.append([model, *(_with_interval(results.get(name, {}), "auroc", None) for name in givers)])
    named = {f"{model} / {name}": f for model, results in models.items() for name, f in results.items()}
    means = aligned(rows) if givers else ""
    return "\n\n".join(part for part in (means, retrieval_table(named), other_figures(named)) if part)


def markdown(title: str, facts: Mapping[str, str], results: Mapping[str, Figures]) -> str:
    """A report: what was evaluated, on what, by which rule, and the tables."""
    lines = [f"# {title}", "", *(f"- {name}: {value}" for name, value in facts.items()), "", tables(results), ""]
    return "\n".join([*lines, "Research use only; not for diagnosis.", ""])


def nested(results: Mapping[str, Figures]) -> dict[str, object]:
    """{evaluator: {figure: {label: value}}}: names split at '/', nan as None, for JSON.

    A figure that stands beside those of its labels, as `films` and `films/Edema`, is their `all`.
    """
    tree: dict[str, dict[str, object]] = {}
    for name, figures in results.items():
        own = tree[name] = {}
        several = {key.split("/", 1)[0] for key in figures if "/" in key}
        for key, value in figures.items():
            figure, _, label = key.partition("/")
            shown = value if value == value else None
            if figure in several:
                own.setdefault(figure, {})[label or "all"] = shown  # type: ignore[index]
            else:
                own[figure] = shown
    return dict(tree)
