"""What was measured of the data path: a row for each trial, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import PIL
import torch
from torchvision import __version__ as torchvision_version

from cxrcl.commands.benchmark import table
from cxrcl.commands.benchmark.measure import Ratio, ratio

COLUMNS = ("case", "unit", "reference", "ours", "ratio [min, max]", "rounds", "aim", "met")


@dataclass(frozen=True)
class Aim:
    """What a row should reach; None where nothing is asked."""

    ratio: float | None = None  # how many times better than the reference, at least
    at_least: float | None = None  # in the row's unit
    at_most: float | None = None  # likewise, where less is better


@dataclass(frozen=True)
class Row:
    """Figures of each round in `unit`, of the reference and of this package."""

    case: str
    unit: str
    reference: Sequence[float]
    ours: Sequence[float]
    aim: Aim = Aim()
    less_is_better: bool = False

    @property
    def ratio(self) -> Ratio:
        """How many times better ours is, round by round."""
        return ratio(self.reference, self.ours) if self.less_is_better else ratio(self.ours, self.reference)

    @property
    def met(self) -> bool | None:
        """None where nothing was asked."""
        asked, middle = [], statistics.median(self.ours)
        if self.aim.ratio is not None:
            asked.append(self.ratio.median >= self.aim.ratio)
        if self.aim.at_least is not None:
            asked.append(middle >= self.aim.at_least)
        if self.aim.at_most is not None:
            asked.append(middle <= self.aim.at_most)
        return all(asked) if asked else None


def header() -> dict[str, str]:
    """What the figures depend on."""
    versions = {"pillow": PIL.__version__, "opencv": cv2.__version__, "torchvision": torchvision_version}
    return {**table.header(torch.device("cpu")), **versions}


def markdown(facts: Mapping[str, str], rows: Sequence[Row]) -> str:
    lines = [", ".join(f"{name}: {value}" for name, value in facts.items()), ""]
    lines += ["| " + " | ".join(cells) + " |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *map(_cells, rows))]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    middle, lowest, highest = row.ratio
    figures = [_short(statistics.median(values)) for values in (row.reference, row.ours)]
    met = {True: "yes", False: "no", None: "-"}[row.met]
    spread = f"{middle:.2f} [{lowest:.2f}, {highest:.2f}]"
    return [row.case, row.unit, *figures, spread, str(len(row.ours)), _wish(row.aim), met]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _wish(aim: Aim) -> str:
    parts = [f"ratio >= {aim.ratio:.3g}"] if aim.ratio is not None else []
    parts += [f"ours >= {aim.at_least:,.0f}"] if aim.at_least is not None else []
    parts += [f"ours <= {aim.at_most:.3g}"] if aim.at_most is not None else []
    return ", ".join(parts) or "-"


def write_json(path: Path, facts: Mapping[str, str], rows: Sequence[Row]) -> None:
    """The header and, for each row, what was measured and what follows from it."""

    def values(row: Row) -> dict[str, Any]:
        return {**dataclasses.asdict(row), "median_ratio": row.ratio._asdict(), "met": row.met}

    path.write_text(json.dumps({"header": dict(facts), "rows": [values(row) for row in rows]}, indent=1) + "\n")
