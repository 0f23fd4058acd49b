"""docs/results.md: what was measured, by which commands, of which commit, on what machine."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import cxrcl
from cxrcl.commands.results.running import Checkout, Ledger, Part
from cxrcl.errors import first_line
from cxrcl.evaluation.report.table import aligned
from cxrcl.files import replaced


def write(file: Path, parts: Sequence[Part], ledger: Ledger, checkout: Checkout) -> Path:
    """Write the page with the parts whose commands have all ended well, and name the others."""
    measured, absent = [], []
    for part in parts:
        reason = _why_not(part, ledger)
        if not reason:
            try:
                measured.append(_section(part, ledger))
                continue
            except (OSError, LookupError, ValueError) as error:
                reason = f"its files cannot be read: {type(error).__name__}: {first_line(error)}"
                ledger.failures[part.name] = reason
        absent.append(f"- **{part.title}** (`{part.name}`): {reason}.")
    blocks = [
        "# Results",
        "Every figure on this page was written by `make results`; nothing is typed by hand. How figures are computed: "
        "[evaluation.md](evaluation.md).",
        aligned([["", ""], *_facts(checkout, ledger)]),
        *measured,
        *(["## Not measured", "\n".join(absent)] if absent else []),
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    with replaced(file) as target:
        target.write(("\n\n".join(blocks) + "\n").encode())
    return file


def _why_not(part: Part, ledger: Ledger) -> str:
    if part.name in ledger.failures:
        return f"failed: {ledger.failures[part.name]}"
    left = sum(ledger.seconds(each.line) is None for each in part.commands)
    if left and part.lacks:
        return part.lacks
    return f"{left} of {len(part.commands)} commands have not been run at this commit" if left else ""


def _section(part: Part, ledger: Ledger) -> str:
    tables = [f"{table.caption}\n\n{table.text()}" for table in part.read()]
    seconds = sum(ledger.seconds(each.line) or 0 for each in part.commands)
    lines = "\n".join(each.line for each in part.commands)
    return "\n\n".join(
        [f"## {part.title}", part.text, *tables, f"The commands took {_spelled(seconds)} in all:\n\n```\n{lines}\n```"]
    )


def _spelled(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _facts(checkout: Checkout, ledger: Ledger) -> list[list[str]]:
    changed = " **with changes that are not committed**" if checkout.is_dirty else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        ["commit", f"`{checkout.commit}`{changed}"],
        [
            "version",
            f"cxrcl {cxrcl.__version__}, torch {metadata.version('torch')}, Python {platform.python_version()}",
        ],
        ["date", datetime.datetime.now(datetime.UTC).date().isoformat()],
        ["machine", f"{cores} cores, {_processor()}; `export OMP_NUM_THREADS={ledger.threads}` for every command"],
    ]


def _processor() -> str:
    from cxrcl.commands.benchmark.table import processor

    return processor()
