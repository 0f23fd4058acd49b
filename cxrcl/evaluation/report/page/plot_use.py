"""Pictures of how scores would be used: risk-coverage curves, decision curves, readers on the ROC plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cxrcl.evaluation.report.page.pictures import DASHED, INK, SERIES, SOFT, Picture
from cxrcl.evaluation.report.page.plot_scores import multiples
from cxrcl.evaluation.report.table import number
from cxrcl.evaluation.scores.readers import is_mean
from cxrcl.evaluation.scores.score_report import ModelScores, ReaderScores


class _Panel(NamedTuple):
    """What is drawn of one label."""

    images: int
    positives: int
    part: Any


def risk_coverage(model: ModelScores) -> Picture | None:
    """Share of wrong decisions over the share of images decided on, one panel a label; None where there is none."""
    panels = _panels(model, {part.label: part for part in model.selective if part.coverage})
    if not panels:
        return None

    def one(axes: Any, label: str, panel: _Panel) -> None:
        part = panel.part
        axes.axhline(part.risk.value, **DASHED)
        axes.plot(part.coverage, part.risks, color=SERIES[0])
        top = 1.25 * max(0.02, *part.risks)
        axes.set_ylim(-0.02 * top, top)
        axes.text(
            0.97, 0.94, f"AURC {number(part.aurc.value)}", ha="right", va="top", color=INK, transform=axes.transAxes
        )

    alt = f"Risk-coverage curves of {model.name}, one for each label, with the error rate at full coverage"
    return multiples(panels, one, alt, "coverage", "wrong decisions", square=False)


def decision_curves(model: ModelScores) -> Picture | None:
    """Net benefit over the threshold probability, beside acting on all images and on none; None where there is none.

    What lies far below acting on none is cut off.
    """
    panels = _panels(model, {curve.label: curve for curve in model.decision_curves if curve.net_benefit})
    if not panels:
        return None

    def one(axes: Any, label: str, panel: _Panel) -> None:
        curve, share = panel.part, panel.positives / panel.images
        axes.axhline(0, color=SOFT, linewidth=0.8)
        axes.plot(curve.thresholds, curve.treat_all, **DASHED)
        if curve.low[0] is not None:
            axes.fill_between(curve.thresholds, curve.low, curve.high, color=SERIES[2], alpha=0.18, linewidth=0)
        axes.plot(curve.thresholds, curve.net_benefit, color=SERIES[2])
        axes.set_ylim(-0.35 * share, 1.15 * share)

    alt = (
        f"Decision curves of {model.name}, one for each label: net benefit with its interval; dashed: acting on all "
        "images; line at 0: acting on none"
    )
    return multiples(panels, one, alt, "threshold probability", "net benefit", square=False)


def readers(model: ModelScores, points: Sequence[ReaderScores]) -> Picture | None:
    """Readers as points with their intervals on the ROC plane, and the model's curve on the images that any read."""
    from matplotlib.lines import Line2D

    of_label: dict[str, list[ReaderScores]] = {}
    for point in points:
        if point.label in model.roc and point.sensitivity.value is not None:
            of_label.setdefault(point.label, []).append(point)
    if not of_label:
        return None
    drawn_as = _marks([point.reader for some in of_label.values() for point in some])
    panels = {}
    for label, some in of_label.items():
        most = max(some, key=lambda point: point.images)  # the mean reader, where there is one
        panels[label] = _Panel(most.images, most.positives, some)

    def one(axes: Any, label: str, panel: _Panel) -> None:
        axes.plot([0, 1], [0, 1], **DASHED)
        axes.plot(*model.roc[label], color=SERIES[0])
        for point in panel.part:
            x, y = 1 - point.specificity.value, point.sensitivity.value
            mark = drawn_as[point.reader]
            if point.sensitivity.low is not None and point.specificity.low is not None:
                across, up = (1 - point.specificity.high, 1 - point.specificity.low), point.sensitivity
                axes.plot(across, [y, y], color=mark["color"], linewidth=0.7, alpha=0.7)
                axes.plot([x, x], [up.low, up.high], color=mark["color"], linewidth=0.7, alpha=0.7)
            axes.plot([x], [y], **mark)
        if label == next(iter(panels)):
            lines = {model.name: Line2D([], [], color=SERIES[0])}
            lines |= {name: Line2D([], [], **mark) for name, mark in drawn_as.items()}
            axes.figure.legend(lines.values(), lines.keys(), loc="outside upper left", ncols=6)

    alt = f"ROC curves of {model.name} on the images that were read, one for each label, with the readers as points"
    return multiples(panels, one, alt, "false positive rate", "sensitivity", head=0.45 + 0.18 * (len(drawn_as) // 6))


def _marks(readers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Reader -> how the point is drawn; colours come again after six readers, with another shape."""
    marks: dict[str, dict[str, Any]] = {}
    for k, reader in enumerate(dict.fromkeys(readers)):
        colour, shape = SERIES[1 + k % 6], "os^v"[k // 6 % 4]
        marks[reader] = {"color": colour, "marker": shape, "markersize": 4.5, "linestyle": "none"}
    for reader in marks:
        if is_mean(reader):
            marks[reader] |= {"color": INK, "marker": "D"}
    return marks


def _panels(model: ModelScores, parts: Mapping[str, Any]) -> dict[str, _Panel]:
    """By label, in the order of the model's labels."""
    return {
        one.label: _Panel(one.images, one.positives, parts[one.label]) for one in model.labels if one.label in parts
    }
