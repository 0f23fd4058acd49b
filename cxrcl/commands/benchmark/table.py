"""What the commands that measure cases share: their options, and the table of what was measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cxrcl.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser, cases: Iterable[str]) -> None:
    parser.add_argument("--only", action="append", choices=list(cases), metavar="NAME", help=", ".join(cases))
    parser.add_argument("--rounds", type=int, metavar="N", help="in place of each case's own number")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, two rounds: shows that all of this runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")


def check(given: argparse.Namespace) -> None:
    """Check the options, before any work.

    Raises:
        ConfigError: no rounds, or no folder for the figures.
    """
    if given.rounds is not None and given.rounds < 1:
        raise ConfigError(f"--rounds {given.rounds}: expected 1 or more")
    if given.json is not None and not given.json.resolve().parent.is_dir():
        raise ConfigError(f"--json {given.json}: no such folder")


def say(line: str) -> None:
    """What is done now, on stderr."""
    print(line, file=sys.stderr, flush=True)


class Limit(NamedTuple):
    """What a figure should reach."""

    text: str  # words with a place for the number
    asked: float | None  # None where nothing is
    found: float | None  # None where it was not measured
    at_most: bool = False


class Row(NamedTuple):
    """One contender or trial against the reference.

    Attributes:
        columns: what stands in the table, by column, left of the aim.
        values: for the JSON: what was measured, and what follows from it.
        note: a line below the table.
    """

    columns: Mapping[str, str]
    limits: Sequence[Limit]
    values: Mapping[str, Any]
    note: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether all limits hold; None where nothing was asked of what was measured."""
        held = [
            limit.found <= limit.asked if limit.at_most else limit.found >= limit.asked
            for limit in self.limits
            if limit.asked is not None and limit.found is not None
        ]
        return all(held) if held else None

    def cells(self) -> dict[str, str]:
        """A line of the table."""
        aims = [limit.text.format(limit.asked) for limit in self.limits if limit.asked is not None]
        met = {True: "yes", False: "no", None: "-"}[self.met]
        return {**self.columns, "aim": ", ".join(aims) or "-", "met": met}


def header(device: torch.device) -> dict[str, str]:
    """What the figures depend on."""
    on_cuda = device.type == "cuda"
    load = f"{os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else "unknown"
    return {
        "device": torch.cuda.get_device_name(device) if on_cuda else "CPU",
        "processor": processor(),
        "threads": str(torch.get_num_threads()),
        "torch": str(torch.__version__),
        "load": load,
    }


def processor() -> str:
    listing = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)", listing.read_text(), re.MULTILINE) if listing.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def report(facts: Mapping[str, str], rows: Sequence[Row], file: Path | None) -> None:
    """Print the table, and write the header and the values of all rows to a JSON file where one is named."""
    print(markdown(facts, rows))
    if file is not None:
        content = {"header": dict(facts), "rows": [{**row.values, "met": row.met} for row in rows]}
        file.write_text(json.dumps(content, indent=1) + "\n")


def markdown(facts: Mapping[str, str], rows: Sequence[Row]) -> str:
    columns = list(rows[0].cells())
    lines = [", ".join(f"{name}: {value}" for name, value in facts.items()), ""]
    for cells in (columns, ["---"] * len(columns), *(row.cells().values() for row in rows)):
        lines.append(f"| {' | '.join(cells)} |")
    if notes := [row.note for row in rows if row.note is not None]:
        lines += ["", *notes]
    return "\n".join(lines) + "\n"
