"""Pictures of label scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxrcl.evaluation.metrics.curves import Curves
from cxrcl.evaluation.report.page.html import Html
from cxrcl.evaluation.report.page.pictures import INK, LINE, SERIES, SOFT, picture
from cxrcl.evaluation.scores.score_report import LabelScores, ModelScores

COLUMNS = 5
PANEL = 2.2  # inches


def intervals(models: Sequence[ModelScores], labels: Sequence[str], metric: str, title: str) -> Html:
    """One row a label, one mark with its interval for each model."""
    spread = min(0.28, 0.7 / max(1, len(models)))

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for k, model in enumerate(models):
            scores = {label.label: label.scores[metric] for label in model.labels}
            shown = [(row, scores[name]) for row, name in enumerate(labels) if name in scores]
            defined = [(row, score) for row, score in shown if score.value is not None]
            places = [row + (k - (len(models) - 1) / 2) * spread for row, _ in defined]
            colour = SERIES[k % len(SERIES)]
            for place, (_, score) in zip(places, defined):
                if score.low is not None:
                    axes.plot([score.low, score.high], [place, place], color=colour, linewidth=1.2, alpha=0.75)
            values = [score.value for _, score in defined]
            axes.plot(values, places, "os^Dv"[k % 5], color=colour, ms=4, label=model.name)
        if metric == "auroc":
            axes.axvline(0.5, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)), label="chance")
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlabel(title)
        axes.grid(axis="x", color=LINE, linewidth=0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside upper left", ncols=4)

    height = 0.85 + len(labels) * max(0.22, 0.13 * len(models))
    return picture(6.8, height, f"{title} of each label with its interval; the numbers stand in the table", draw)


def roc(name: str, by_label: Mapping[str, Curves], areas: Mapping[str, str]) -> Html:
    """ROC curves as small multiples, one a label.

    Args:
        areas: label -> the area under its curve, as it stands in the table.
    """

    def one(axes: Any, label: str) -> None:
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.plot(*by_label[label].roc, color=SERIES[0])
        axes.text(0.97, 0.06, f"AUROC {areas[label]}", ha="right", color=INK)

    titles = {label: f"{part.positives} of {part.images} positive" for label, part in by_label.items()}
    alt = f"ROC curves of {name}, one for each label, with the chance line"
    return _multiples(titles, one, alt, "false positive rate", "sensitivity")


def precision_recall(name: str, by_label: Mapping[str, Curves], areas: Mapping[str, str]) -> Html:
    """Precision-recall curves, as `roc`."""

    def one(axes: Any, label: str) -> None:
        part = by_label[label]
        share = part.positives / part.images
        axes.axhline(share, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.plot(*part.precision_recall, color=SERIES[1], drawstyle="steps-pre")
        axes.text(0.03, 0.06, f"AUPRC {areas[label]}", color=INK)

    titles = {label: f"{part.positives} of {part.images} positive" for label, part in by_label.items()}
    alt = f"Precision-recall curves of {name}, one for each label, with the share of positives as chance line"
    return _multiples(titles, one, alt, "recall", "precision")


def reliability(name: str, labels: Sequence[LabelScores], errors: Mapping[str, str]) -> Html:
    """Reliability curves: share of positives over mean probability of each bin.

    The area of a mark follows the number of images in the bin.
    """
    by_name = {label.label: label for label in labels}

    def one(axes: Any, label: str) -> None:
        bins = by_name[label].reliability or []
        images = np.array([part["images"] for part in bins])
        x, y = ([part[key] for part in bins] for key in ("mean_probability", "share_of_positives"))
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.plot(x, y, color=SERIES[2], linewidth=0.9)
        axes.scatter(x, y, s=6 + 60 * images / images.sum(), color=SERIES[2], alpha=0.8, linewidths=0)
        axes.text(0.97, 0.06, f"ECE {errors[label]}", ha="right", color=INK)

    titles = {label.label: f"{label.positives} of {label.images} positive" for label in labels}
    alt = f"Reliability of {name}, one picture for each label, with the line of perfect calibration"
    return _multiples(titles, one, alt, "probability", "share of positives")


def _multiples(titles: Mapping[str, str], one: Any, alt: str, x: str, y: str) -> Html:
    """Square panels over [0, 1] x [0, 1]; axes are named at the left and at the bottom."""
    columns = min(COLUMNS, len(titles))
    rows = -(-len(titles) // columns)

    def draw(figure: Any) -> None:
        figure.get_layout_engine().set(w_pad=0.07, h_pad=0.08)
        for k, (label, count) in enumerate(titles.items()):
            axes = figure.add_subplot(rows, columns, k + 1)
            axes.set_title(f"{_short(label)}\n{count}", linespacing=1.35)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
            left, lowest = k % columns == 0, k + columns >= len(titles)
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"] if lowest else [])
            axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if left else [])
            axes.set_xlabel(x if lowest else "")
            axes.set_ylabel(y if left else "")
            one(axes, label)

    return picture(max(PANEL * columns, 2.6), 0.3 + (PANEL + 0.25) * rows, alt, draw)


def _short(label: str, most: int = 28) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"
