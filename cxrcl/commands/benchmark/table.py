"""What was measured: a row for each contender, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cxrcl.commands.benchmark.measure import Ratio, ratio

COLUMNS = (
    *("case", "reference ms", "ours ms", "ratio [min, max]", "rounds"),
    *("reference MB", "ours MB", "ratio", "aim", "met"),
)


@dataclass(frozen=True)
class Aim:
    """What a row should reach; None where nothing is asked."""

    time: float | None = None  # reference / ours, at least
    memory: float | None = None  # likewise
    waits: int | None = None  # for the device, at most


@dataclass(frozen=True)
class Row:
    """One contender against the reference. `..._s` are seconds of each round; memory and waits where measured."""

    case: str
    reference_s: Sequence[float]
    ours_s: Sequence[float]
    reference_mb: float | None = None
    ours_mb: float | None = None
    reference_waits: int | None = None
    ours_waits: int | None = None
    aim: Aim = Aim()

    @property
    def time_ratio(self) -> Ratio:
        return ratio(self.reference_s, self.ours_s)

    @property
    def memory_ratio(self) -> float | None:
        """None where ours is less than the steps in which memory is given out."""
        if self.reference_mb is None or self.ours_mb is None or self.ours_mb < 1:
            return None
        return self.reference_mb / self.ours_mb

    @property
    def met(self) -> bool | None:
        """None where nothing was asked of what was measured."""
        asked = []
        if self.aim.time is not None:
            asked.append(self.time_ratio.median >= self.aim.time)
        if self.aim.memory is not None and self.memory_ratio is not None:
            asked.append(self.memory_ratio >= self.aim.memory)
        if self.aim.waits is not None and self.ours_waits is not None:
            asked.append(self.ours_waits <= self.aim.waits)
        return all(asked) if asked else None


def header(device: torch.device) -> dict[str, str]:
    """What the figures depend on."""
    on_cuda = device.type == "cuda"
    load = f"{os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else "unknown"
    return {
        "device": torch.cuda.get_device_name(device) if on_cuda else "CPU",
        "processor": _processor(),
        "threads": str(torch.get_num_threads()),
        "torch": str(torch.__version__),
        "load": load,
    }


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)", listing.read_text(), re.MULTILINE) if listing.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def markdown(facts: Mapping[str, str], rows: Sequence[Row]) -> str:
    lines = [", ".join(f"{name}: {value}" for name, value in facts.items()), ""]
    lines += ["| " + " | ".join(cells) + " |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *map(_cells, rows))]
    counted = [row for row in rows if row.ours_waits is not None]
    lines += [""] if counted else []
    lines += [f"{row.case}: waits for the device: {row.reference_waits} -> {row.ours_waits}" for row in counted]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    middle, lowest, highest = row.time_ratio
    times = [_short(1000 * statistics.median(seconds)) for seconds in (row.reference_s, row.ours_s)]
    memory = ["-" if value is None else _short(value) for value in (row.reference_mb, row.ours_mb, row.memory_ratio)]
    met = {True: "yes", False: "no", None: "-"}[row.met]
    spread = f"{middle:.2f} [{lowest:.2f}, {highest:.2f}]"
    return [row.case, *times, spread, str(len(row.ours_s)), *memory, _wish(row.aim), met]


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _wish(aim: Aim) -> str:
    parts = [f"time >= {aim.time:.3g}"] if aim.time is not None else []
    parts += [f"memory >= {aim.memory:.3g}"] if aim.memory is not None else []
    parts += [f"waits <= {aim.waits}"] if aim.waits is not None else []
    return ", ".join(parts) or "-"


def write_json(path: Path, facts: Mapping[str, str], rows: Sequence[Row]) -> None:
    """The header and, for each row, what was measured and what follows from it."""

    def values(row: Row) -> dict[str, Any]:
        derived = {"time_ratio": row.time_ratio._asdict(), "memory_ratio": row.memory_ratio, "met": row.met}
        return {**dataclasses.asdict(row), **derived}

    path.write_text(json.dumps({"header": dict(facts), "rows": [values(row) for row in rows]}, indent=1) + "\n")
