"""Figures of matplotlib as pictures inside a page. Drawn without pyplot, so nothing of the caller's is touched."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PX_PER_INCH = 96  # what a browser takes an inch for
INK, SOFT, LINE = "#1c2227", "#59636c", "#c8ced3"
DASHED: Any = {"color": SOFT, "linewidth": 0.8, "linestyle": (0, (4, 3))}  # chance, and perfect calibration
# Okabe and Ito's palette, told apart by colour-blind readers; yellow left out, which is faint on white.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
# More classes than that palette has colours, such as 14: ten dark and ten light ones.
CLASSES = tuple(
    f"#{colour}"
    for colour in (
        *("1f77b4", "ff7f0e", "2ca02c", "d62728", "9467bd", "8c564b", "e377c2", "7f7f7f", "bcbd22", "17becf"),
        *("aec7e8", "ffbb78", "98df8a", "ff9896", "c5b0d5", "c49c94", "f7b6d2", "c7c7c7", "dbdb8d", "9edae5"),
    )
)
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "text.parse_math": False,  # a label may hold a dollar sign
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    # Words stay words, which are small; equal pictures become equal files.
    "svg.fonttype": "none",
    "svg.hashsalt": "figure",
}


@dataclass(frozen=True)
class Picture:
    """A picture inside a page.

    Attributes:
        source: its content as a data URI.
        alt: read aloud in place of the picture.
        width, height: px.
    """

    source: str
    alt: str
    width: int
    height: int


def picture(width: float, height: float, alt: str, draw: Callable[[Any], None], dots: bool = False) -> Picture:
    """What `draw(figure)` draws.

    Args:
        width, height: inches; a page is 12 wide.
        alt: read aloud in its place.
        dots: PNG instead of SVG, for thousands of points.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    file = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        if dots:
            figure.savefig(file, format="png", dpi=2 * PX_PER_INCH, metadata={"Software": None})
        else:
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    source = data_uri("image/png" if dots else "image/svg+xml", file.getvalue())
    return Picture(source, alt, round(width * PX_PER_INCH), round(height * PX_PER_INCH))


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
