"""An image and its heat-maps as one picture."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cxrcl.data.images.geometry import Crop, to_image
from cxrcl.inference.explaining import Box, HeatMap

COLOURS = "inferno"
VEIL = 0.55  # opacity of the map where it is largest
FRAME = "#ffb000"
# Inches: a panel, the room for its bar and numbers, for its title, round the page, a line of text.
PANEL_INCHES, BAR, HEAD, MARGIN, LINE = 3.2, 0.75, 0.45, 0.15, 0.18
DPI = 110


def draw(
    path: Path,
    image: np.ndarray,
    crop: Crop,
    maps: Sequence[HeatMap],
    boxes: Sequence[Box],
    title: str,
    notes: Sequence[str],
) -> None:
    """Write a PNG: the image, then a panel for each map with its own range of values.

    Args:
        image: uint8 [H, W], of about the size of a panel.
        crop: what of the image the model saw; the rest is dark in the panels of maps.
        boxes: drawn on the image.
        notes: lines at the foot.
    """
    height, width = image.shape
    panels = len(maps) + 1
    columns = panels if panels <= 4 else 3 if panels <= 9 else 5
    rows = -(-panels // columns)
    # The image as large as its panel holds, at the panel's upper left.
    tall = PANEL_INCHES * min(max(height / width, 0.3), 1.6)
    inches = min(PANEL_INCHES / width, tall / height)
    foot = [line for note in notes for line in textwrap.wrap(note, 56 * columns)]
    across = MARGIN + columns * (PANEL_INCHES + BAR) + MARGIN
    down = rows * (tall + HEAD) + LINE * (len(foot) + 3)
    # The user's own style (matplotlibrc) might ask for LaTeX, or for fonts that are not there.
    with matplotlib.rc_context(matplotlib.rcParamsDefault), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks are drawn as boxes
        figure = Figure(figsize=(across, down), dpi=DPI)
        FigureCanvasAgg(figure)
        # One system of axes, in inches from the upper left: one for each panel and bar takes five times as long.
        page = figure.add_axes((0, 0, 1, 1))
        page.set_axis_off()
        for panel in range(panels):
            row, column = divmod(panel, columns)
            left, top = MARGIN + column * (PANEL_INCHES + BAR), 1.5 * LINE + row * (tall + HEAD) + HEAD
            right, bottom = left + width * inches, top + height * inches
            place = _Place(page, (left, right, bottom, top))
            place.show(image, cmap="gray", vmin=0, vmax=255)
            if panel == 0:
                heading = f"image, the {len(boxes)} chosen patches" if boxes else "image"
                _frame(place, boxes)
            else:
                map_ = maps[panel - 1]
                place.show(_veil(to_image(map_.cells, crop, width, height), map_.cells))
                _bar(_Place(page, (right + 0.06, right + 0.18, bottom, top)), map_.cells)
                heading = "\n".join(textwrap.wrap(map_.title, 38)[:2])
            page.text((left + right) / 2, top - 0.06, heading, fontsize=10, ha="center", va="bottom", parse_math=False)
        name = title if len(title) <= 30 * columns else f"{title[: 30 * columns - 3]}..."
        page.text(across / 2, LINE, name, fontsize=11, ha="center", va="center", parse_math=False)
        for k, line in enumerate(reversed(foot)):
            page.text(MARGIN, down - (k + 0.7) * LINE, line, fontsize=8, parse_math=False)
        page.set(xlim=(0, across), ylim=(down, 0), aspect="auto")
        figure.savefig(path, format="png", metadata={"Software": None})


class _Place(NamedTuple):
    """A rectangle of the page."""

    page: Axes
    edges: tuple[float, float, float, float]  # left, right, bottom, top; inches

    def show(self, values: np.ndarray, **settings: Any) -> None:
        """Draw values [h, w] or colours [h, w, 4] over the rectangle."""
        self.page.imshow(values, extent=self.edges, **settings)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place on the page, in inches, of fractions of the rectangle from its upper left."""
        left, right, bottom, top = self.edges
        return left + x * (right - left), top + y * (bottom - top)


def _frame(place: _Place, boxes: Sequence[Box]) -> None:
    """Chosen patches, numbered from the best."""
    for order, ((x0, y0, x1, y1), _) in enumerate(boxes, start=1):
        (left, top), (right, bottom) = place.at(x0, y0), place.at(x1, y1)
        box = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=FRAME, linewidth=1.2)
        place.page.add_patch(box)
        plate = {"facecolor": FRAME, "edgecolor": "none", "pad": 0.6}
        place.page.text(left + 0.02, top + 0.02, str(order), fontsize=6, va="top", ha="left", bbox=plate)


def _veil(values: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The map as colours over the image, [H, W, 4]: the clearer the smaller; black where the model saw nothing.

    Args:
        values: float [H, W] of the map, nan outside the model's square.
        cells: float [h, w] of its grid.
    """
    low, high, flat = _range(cells)
    unseen = np.isnan(values)
    share = np.zeros_like(values)
    if not flat:
        share = np.clip((np.where(unseen, low, values) - low) / (high - low), 0, 1)
    colours = matplotlib.colormaps[COLOURS](share)
    colours[..., 3] = VEIL * share**0.7
    colours[unseen] = (0, 0, 0, 0.6)
    return colours


def _bar(place: _Place, cells: np.ndarray) -> None:
    """The scale of a map; of one that is flat, its one value."""
    low, high, flat = _range(cells)
    place.show(np.zeros((1, 1)) if flat else np.linspace(1, 0, 128)[:, None], cmap=COLOURS, vmin=0, vmax=1)
    numbers = (
        [(high, 0.5, "center")] if flat else [(high, 0, "top"), ((low + high) / 2, 0.5, "center"), (low, 1, "bottom")]
    )
    for value, below, aligned in numbers:
        x, y = place.at(1, below)
        place.page.text(x + 0.05, y, f"{value:.3g}", fontsize=7, va=aligned)


def _range(cells: np.ndarray) -> tuple[float, float, bool]:
    """The ends of a map, and whether they differ by rounding only, which must not be stretched into a pattern."""
    low, high = float(cells.min()), float(cells.max())
    return low, high, high - low <= 1e-6 * max(abs(low), abs(high), 1e-12)
