"""Pictures of the common space of images and texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrcl.evaluation.metrics import off_diagonal_mean
from cxrcl.evaluation.report.content import ClassSimilarity
from cxrcl.evaluation.report.page.pictures import CLASSES, INK, SERIES, SOFT, Picture, picture

if TYPE_CHECKING:
    from cxrcl.evaluation.projections import Projection
    from cxrcl.evaluation.representation import Space

DOTS = 2000  # points above which a picture is made of pixels


def similarities(space: Space, at_start: ClassSimilarity | None) -> Picture:
    """Heat maps of the classes, now and as training began: on one scale, the mean off the diagonal in each title."""
    parts = [("trained", ClassSimilarity(space.classes, space.similarity))]
    parts += [] if at_start is None else [("initial", at_start)]
    alls = np.concatenate([part.cosines.ravel() for _, part in parts])
    low = min(0.0, float(alls.min()))
    count = max(len(part.classes) for _, part in parts)
    side = max(2.2, 0.235 * count)
    longest = max(len(name) for _, part in parts for name in part.classes) * 0.075  # inches

    def draw(figure: Any) -> None:
        # Wide enough for fonts of a browser that are larger than those measured here.
        figure.get_layout_engine().set(h_pad=0.2, w_pad=0.08)
        panels = figure.subplots(1, len(parts), squeeze=False)[0]
        for k, (axes, (name, part)) in enumerate(zip(panels, parts)):
            ticks = np.arange(len(part.classes))
            mesh = axes.pcolormesh(part.cosines, cmap="viridis", vmin=low, vmax=1.0, edgecolors="white", linewidth=0.3)
            axes.set_title(f"{name}: mean off the diagonal {off_diagonal_mean(part.cosines):.3f}")
            axes.set_xticks(ticks + 0.5, part.classes, rotation=90)
            axes.set_yticks(ticks + 0.5, part.classes if k == 0 or part.classes != parts[0][1].classes else [])
            axes.set(aspect="equal", ylim=(len(ticks), 0))
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
        bar = figure.colorbar(mesh, ax=panels, shrink=0.6, pad=0.02, label="cosine")
        bar.outline.set_visible(False)

    titles = " and ".join(f"{name} (mean {off_diagonal_mean(part.cosines):.3f})" for name, part in parts)
    alt = f"Cosines between the prompts of classes: {titles}"
    return picture(longest + (side + 0.35) * len(parts) + 1.3, side + longest + 0.65, alt, draw)


def projections(space: Space) -> list[Picture]:
    """One picture a method, its dimensions side by side: images are dots, texts triangles, a colour for each label."""
    by_method: dict[str, list[Projection]] = {}
    for part in space.projections():
        by_method.setdefault(part.method, []).append(part)
    return [_projected(space, parts) for parts in by_method.values()]


def _projected(space: Space, parts: Sequence[Projection]) -> Picture:
    names = list(dict.fromkeys(space.point_labels))
    labels, modalities = np.array(space.point_labels), np.array(space.modalities)
    rows = -(-len(parts) // 2)
    columns = min(2, len(parts))
    opacity = float(np.clip(600 / len(labels), 0.35, 0.9))

    def draw(figure: Any) -> None:
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        for k, part in enumerate(parts):
            deep = part.places.shape[1] == 3
            axes = figure.add_subplot(rows, columns, k + 1, projection="3d" if deep else None)
            for mode, mark, size in (("text", "^", 15), ("image", "o", 10)):
                for place, name in enumerate(names):
                    chosen = (labels == name) & (modalities == mode)
                    colour = CLASSES[place % len(CLASSES)]
                    axes.scatter(*part.places[chosen].T, s=size, marker=mark, color=colour, alpha=opacity, linewidths=0)
            axes.set_title(part.title)
            axes.set_xlabel(part.axes[0], labelpad=-10 if deep else None)
            axes.set_ylabel(part.axes[1], labelpad=-10 if deep else None)
            axes.tick_params(labelbottom=False, labelleft=False, length=0)
            if deep:
                axes.set_zlabel(part.axes[2], labelpad=-10)
                axes.set(xticklabels=[], yticklabels=[], zticklabels=[])
                axes.set_box_aspect((1, 1, 0.9), zoom=1.05)
            else:
                axes.set(xticks=[], yticks=[])
        figure.legend(handles=_legend(names), loc="outside right upper", handletextpad=0.3, labelspacing=0.55)

    many = len(labels) * len(parts) > DOTS
    shown = ", ".join(part.title for part in parts)
    alt = f"Projections ({shown}) of images and texts, coloured by label"
    return picture(4.6 * columns + 2.2, 4.0 * rows, alt, draw, dots=many)


def _legend(names: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    marks = [("o", "image", INK), ("^", "its text", INK)]
    marks += [("s", name, CLASSES[k % len(CLASSES)]) for k, name in enumerate(names)]
    return [Line2D([], [], linestyle="", marker=m, color=colour, label=name, ms=5) for m, name, colour in marks]


def gap(space: Space) -> Picture:
    """How images and texts lie along the line through their means; the distance of the means is the modality gap."""
    means = {kind: float(places.mean()) for kind, places in space.along.items()}
    distance = means["image"] - means["text"]

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        everything = np.concatenate(list(space.along.values()))
        edges = np.linspace(everything.min(), everything.max(), 61)
        for kind, name, colour in (("text", "texts", SERIES[1]), ("image", "images", SERIES[0])):
            axes.hist(space.along[kind], bins=edges, density=True, color=colour, alpha=0.55, label=name)
            axes.axvline(means[kind], color=colour, linewidth=1.2)
        top = axes.get_ylim()[1] * 1.16
        axes.set_ylim(0, top)
        arrow = {"arrowstyle": "<->", "color": SOFT, "shrinkA": 0, "shrinkB": 0}
        height = top * 0.93
        axes.annotate("", (means["text"], height), (means["image"], height), arrowprops=arrow)
        middle = (means["text"] + means["image"]) / 2
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(middle, height, f"gap {distance:.3f}", ha="center", va="center", bbox=box)
        axes.set_xlabel("place along the line through the mean text and the mean image")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside right upper")

    return picture(7.2, 2.5, f"Images and texts along the line through their means, {distance:.3f} apart", draw)
