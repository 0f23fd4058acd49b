"""Pictures of label scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxrcl.evaluation.metrics.curves import Curves
from cxrcl.evaluation.report.page.pictures import DASHED, INK, LINE, SERIES, Picture, picture
from cxrcl.evaluation.report.score_tables import labels_of
from cxrcl.evaluation.report.table import number
from cxrcl.evaluation.scores.score_report import LabelScores, ModelScores

COLUMNS = 5
PANEL = 2.2  # inches


def intervals(models: Sequence[ModelScores]) -> Picture:
    """AUROC: one row a label, one mark with its interval for each model."""
    labels = labels_of(models)
    spread = min(0.28, 0.7 / max(1, len(models)))

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for k, model in enumerate(models):
            scores = {label.label: label.scores["auroc"] for label in model.labels}
            colour, offset = SERIES[k % len(SERIES)], (k - (len(models) - 1) / 2) * spread
            places, values = [], []
            for row, name in enumerate(labels):
                score = scores.get(name)
                if score is None or score.value is None:
                    continue
                places.append(row + offset)
                values.append(score.value)
                if score.low is not None:
                    axes.plot([score.low, score.high], places[-1:] * 2, color=colour, linewidth=1.2, alpha=0.75)
            axes.plot(values, places, "os^Dv"[k % 5], color=colour, ms=4, label=model.name)
        axes.axvline(0.5, **DASHED, label="chance")
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlabel("AUROC")
        axes.grid(axis="x", color=LINE, linewidth=0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside upper left", ncols=4)

    height = 0.85 + len(labels) * max(0.22, 0.13 * len(models))
    return picture(6.8, height, "AUROC of each label with its interval; the numbers stand in the table", draw)


def roc(model: ModelScores, by_label: Mapping[str, Curves]) -> Picture:
    """ROC curves as small multiples, one a label, with the area as it stands in the table."""
    areas = _values(model, "auroc")

    def one(axes: Any, label: str, part: Curves) -> None:
        axes.plot([0, 1], [0, 1], **DASHED)
        axes.plot(*part.roc, color=SERIES[0])
        axes.text(0.97, 0.06, f"AUROC {areas[label]}", ha="right", color=INK)

    alt = f"ROC curves of {model.name}, one for each label, with the chance line"
    return multiples(by_label, one, alt, "false positive rate", "sensitivity")


def precision_recall(model: ModelScores, by_label: Mapping[str, Curves]) -> Picture:
    """Precision-recall curves, as `roc`."""
    areas = _values(model, "auprc")

    def one(axes: Any, label: str, part: Curves) -> None:
        axes.axhline(part.positives / part.images, **DASHED)
        axes.plot(*part.precision_recall, color=SERIES[1], drawstyle="steps-pre")
        axes.text(0.03, 0.06, f"AUPRC {areas[label]}", color=INK)

    alt = f"Precision-recall curves of {model.name}, one for each label, with the share of positives as chance line"
    return multiples(by_label, one, alt, "recall", "precision")


def reliability(model: ModelScores, by_label: Mapping[str, LabelScores]) -> Picture:
    """Reliability curves: share of positives over mean probability of each bin.

    The area of a mark follows the number of images in the bin.
    """
    errors = _values(model, "ece")

    def one(axes: Any, label: str, part: LabelScores) -> None:
        bins = part.reliability or []
        images = np.array([each["images"] for each in bins])
        x, y = ([each[key] for each in bins] for key in ("mean_probability", "share_of_positives"))
        axes.plot([0, 1], [0, 1], **DASHED)
        axes.plot(x, y, color=SERIES[2], linewidth=0.9)
        axes.scatter(x, y, s=6 + 60 * images / images.sum(), color=SERIES[2], alpha=0.8, linewidths=0)
        axes.text(0.97, 0.06, f"ECE {errors[label]}", ha="right", color=INK)

    alt = f"Reliability of {model.name}, one picture for each label, with the line of perfect calibration"
    return multiples(by_label, one, alt, "probability", "share of positives")


def _values(model: ModelScores, metric: str) -> dict[str, str]:
    return {label.label: number(label.scores[metric].value) for label in model.labels}


def multiples(
    by_label: Mapping[str, Any], one: Any, alt: str, x: str, y: str, square: bool = True, head: float = 0
) -> Picture:
    """Square panels over [0, 1] x [0, 1]; axes are named at the left and at the bottom.

    Args:
        by_label: what `one(axes, label, part)` draws of each label; it has numbers of `images` and `positives`.
        square: False lets `one` choose the limits of y, which each panel then has its own ticks for.
        head: inches for a legend above the panels.
    """
    columns = min(COLUMNS, len(by_label))
    rows = -(-len(by_label) // columns)

    def draw(figure: Any) -> None:
        figure.get_layout_engine().set(w_pad=0.07, h_pad=0.08)
        for k, (label, part) in enumerate(by_label.items()):
            axes = figure.add_subplot(rows, columns, k + 1)
            count = f"{part.positives} of {part.images} positive"
            axes.set_title(f"{_short(label)}\n{count}", linespacing=1.35)
            left, lowest = k % columns == 0, k + columns >= len(by_label)
            axes.set(xlim=(-0.02, 1.02))
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"] if lowest else [])
            if square:
                axes.set(ylim=(-0.02, 1.02), aspect="equal")
                axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if left else [])
            else:
                axes.locator_params(axis="y", nbins=4)
            axes.set_xlabel(x if lowest else "")
            axes.set_ylabel(y if left else "")
            one(axes, label, part)

    return picture(max(PANEL * columns, 2.6), 0.3 + head + (PANEL + 0.25) * rows, alt, draw)


def _short(label: str, most: int = 28) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"
