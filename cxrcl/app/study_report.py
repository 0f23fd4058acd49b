"""The cells of a study as a table, a picture and files."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrcl.config.sections import Study
from cxrcl.evaluation.report.table import aligned, number


@dataclass(frozen=True)
class Record:
    """What is stored of a cell: its coordinates and settings, and figures or an `error`."""

    stored: Mapping[str, Any]

    @property
    def error(self) -> str | None:
        return self.stored.get("error")

    @property
    def value(self) -> float:
        return float(self.stored["value"])


@dataclass(frozen=True)
class Summary:
    """Cells of one start and one fraction.

    Attributes:
        mean, sd: over draws and seeds; sd with n - 1, None of a single value.
    """

    start: str
    fraction: float
    count: int
    failed: int
    mean: float | None
    sd: float | None


def summaries(records: Sequence[Record]) -> list[Summary]:
    """In the order of the records."""
    groups: dict[tuple[str, float], list[Record]] = {}
    for record in records:
        groups.setdefault((record.stored["start"], record.stored["fraction"]), []).append(record)
    summed = []
    for (start, fraction), group in groups.items():
        values = [record.value for record in group if record.error is None]
        mean = statistics.fmean(values) if values else None
        sd = statistics.stdev(values) if len(values) > 1 else None
        summed.append(Summary(start, fraction, len(values), len(group) - len(values), mean, sd))
    return summed


def table(summed: Sequence[Summary]) -> str:
    """One row a start, one column a fraction: mean ± sd (how many cells)."""
    fractions = list(dict.fromkeys(each.fraction for each in summed))
    by_place = {(each.start, each.fraction): each for each in summed}
    rows = [["start", *(f"{100 * fraction:g} %" for fraction in fractions)]]
    for start in dict.fromkeys(each.start for each in summed):
        rows.append([start, *(_shown(by_place.get((start, fraction))) for fraction in fractions)])
    return aligned(rows)


def _shown(each: Summary | None) -> str:
    if each is None:
        return ""
    sd = "" if each.sd is None else f" ± {number(each.sd)}"
    failed = f", {each.failed} failed" if each.failed else ""
    return f"{number(each.mean)}{sd} ({each.count}{failed})"


def write(folder: Path, study: Study, records: Sequence[Record], cells: int, left_out: Sequence[str]) -> None:
    """study.md, study.csv (a row a cell), results.json and study.png."""
    folder.mkdir(parents=True, exist_ok=True)
    summed = summaries(records)
    (folder / "study.md").write_text(_markdown(study, records, summed, cells, left_out), encoding="utf-8")
    columns = ["start", "fraction", "draw", "seed", "value", "steps", "seconds", "checkpoint", "error"]
    with (folder / "study.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(record.stored for record in records)
    content = {
        "figure": study.figure,
        "split": "test",
        "probe": study.probe,
        "cells": cells,
        "left_out": list(left_out),
        "summary": [vars(each) for each in summed],
        "records": [{k: v for k, v in record.stored.items() if k != "settings"} for record in records],
    }
    (folder / "results.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    plot(folder / "study.png", study.figure, summed)


def _markdown(
    study: Study, records: Sequence[Record], summed: Sequence[Summary], cells: int, left_out: Sequence[str]
) -> str:
    kind = "linear probes, the encoder frozen" if study.probe else "fine-tuning of all layers"
    lines = [
        f"# {study.figure} on the test split",
        f"{kind}; mean ± standard deviation (number of cells) over seeds {study.seeds} and draws {study.draws} of the "
        "training patients, one draw where all are taken. Each checkpoint was chosen on other images and scored on the "
        f"test split once. {len(records)} of {cells} cells were run.",
        table(summed),
    ]
    lines += [f"Left out: {', '.join(left_out)}."] if left_out else []
    failed = [record.stored for record in records if record.error]
    lines += ["## Cells that failed"] if failed else []
    lines += [
        f"- {each['start']}, {100 * each['fraction']:g} %, draw {each['draw']}, seed {each['seed']}: {each['error']}"
        for each in failed
    ]
    return "\n\n".join(lines) + "\n"


def plot(file: Path, figure: str, summed: Sequence[Summary]) -> None:
    """A line a start: means against the fraction, bars of one standard deviation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(6.0, 4.0), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots()
    for start in dict.fromkeys(each.start for each in summed):
        points = sorted((e for e in summed if e.start == start and e.mean is not None), key=lambda e: e.fraction)
        x, y = [100 * e.fraction for e in points], [e.mean or 0.0 for e in points]
        axes.errorbar(x, y, yerr=[e.sd or 0.0 for e in points], marker="o", capsize=3, label=start)
    fractions = sorted({100 * each.fraction for each in summed})
    axes.set_xscale("log")
    axes.set_xticks(fractions, [f"{fraction:g} %" for fraction in fractions])
    axes.minorticks_off()
    axes.set_xlabel("training patients")
    axes.set_ylabel(figure)
    axes.legend(frameon=False)
    drawing.savefig(file, dpi=150, metadata={"Software": None})
