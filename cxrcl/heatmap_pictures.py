"""A film and its heat-maps as one picture."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cxrcl.data.geometry import Crop, to_film
from cxrcl.explaining import Box, Map

COLOURS = "inferno"
VEIL = 0.55  # opacity of the map where it is largest
FRAME = "#ffb000"
# Inches: a panel, the room for its bar and numbers, for its title, round the figure, a line of text.
PANEL_INCHES, BAR, HEAD, MARGIN, LINE = 3.2, 0.75, 0.45, 0.15, 0.18
DPI = 110


def draw(
    path: Path,
    film: np.ndarray,
    crop: Crop,
    maps: Sequence[Map],
    boxes: Sequence[Box],
    title: str,
    notes: Sequence[str],
) -> None:
    """Write a PNG: the film, then a panel for each map with its own range of values.

    Args:
        film: uint8 [H, W], of about the size of a panel.
        crop: what of the film the model saw; the rest is dark in the panels of maps.
        boxes: drawn on the film.
        notes: lines at the foot.
    """
    height, width = film.shape
    panels = len(maps) + 1
    columns = panels if panels <= 4 else 3 if panels <= 9 else 5
    rows = -(-panels // columns)
    wide, tall = PANEL_INCHES, PANEL_INCHES * min(max(height / width, 0.3), 1.6)
    foot = [line for note in notes for line in textwrap.wrap(note, 56 * columns)]
    across = MARGIN + columns * (wide + BAR) + MARGIN
    down = rows * (tall + HEAD) + LINE * (len(foot) + 3)
    # The user's own style (matplotlibrc) might ask for LaTeX, or for fonts that are not there.
    with matplotlib.rc_context(matplotlib.rcParamsDefault), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks are drawn as boxes
        figure = Figure(figsize=(across, down), dpi=DPI)
        FigureCanvasAgg(figure)

        def axes(panel: int, left: float = 0.0, breadth: float = wide) -> Axes:
            """Places are set by hand: matplotlib's own layouts take longer than all the drawing."""
            row, column = divmod(panel, columns)
            x, y = MARGIN + column * (wide + BAR) + left, down - 1.5 * LINE - (row + 1) * (tall + HEAD)
            return figure.add_axes((x / across, y / down, breadth / across, tall / down))

        for panel in range(panels):
            place = axes(panel)
            place.set_axis_off()
            place.imshow(film, cmap="gray", vmin=0, vmax=255)
            if panel == 0:
                place.set_title(f"film, the {len(boxes)} chosen patches" if boxes else "film", fontsize=10)
                _frame(place, boxes, width, height)
                continue
            map_ = maps[panel - 1]
            scale = _veil(place, to_film(map_.cells, crop, width, height), map_.cells)
            place.set_title("\n".join(textwrap.wrap(map_.title, 38)[:2]), fontsize=10, parse_math=False)
            figure.colorbar(scale, cax=axes(panel, wide + 0.06, 0.12)).ax.tick_params(labelsize=7)
        name = title if len(title) <= 30 * columns else f"{title[: 30 * columns - 3]}..."
        figure.text(0.5, 1 - LINE / down, name, fontsize=11, ha="center", va="center", parse_math=False)
        for k, line in enumerate(reversed(foot)):
            figure.text(MARGIN / across, (k + 0.7) * LINE / down, line, fontsize=8, parse_math=False)
        figure.savefig(path, format="png", metadata={"Software": None})


def _frame(place: Axes, boxes: Sequence[Box], width: int, height: int) -> None:
    """Chosen patches, numbered from the best."""
    for order, (corners, _) in enumerate(boxes, start=1):
        x0, y0, x1, y1 = (corner * side - 0.5 for corner, side in zip(corners, (width, height) * 2))
        place.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=FRAME, linewidth=1.2))
        place.text(x0, y0, str(order), color=FRAME, fontsize=7, va="top", ha="left")


def _veil(place: Axes, values: np.ndarray, cells: np.ndarray) -> ScalarMappable:
    """The map over the film, the clearer the smaller; a black veil where the model saw nothing."""
    low, high = float(cells.min()), float(cells.max())
    # What is flat but for rounding must not be stretched into a pattern.
    flat = high - low <= 1e-6 * max(abs(low), abs(high), 1e-12)
    unseen = np.isnan(values)
    share = np.zeros_like(values) if flat else np.clip((np.where(unseen, low, values) - low) / (high - low), 0, 1)
    colours = matplotlib.colormaps[COLOURS](share)
    colours[..., 3] = VEIL * share**0.7
    colours[unseen] = (0, 0, 0, 0.6)
    place.imshow(colours)
    return ScalarMappable(Normalize(low, low + max(abs(low), 1e-6) if flat else high), COLOURS)
