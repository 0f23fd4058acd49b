"""Parts that measure time and memory."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

from cxrcl.commands.results.running import Part, command
from cxrcl.evaluation.report.table import Table, number


def losses(out: Path) -> Part:
    file = out / "losses.json"

    def read() -> list[Table]:
        rows = []
        for row in json.loads(file.read_text(encoding="utf-8"))["rows"]:
            low, high = row["time_ratio"]["lowest"], row["time_ratio"]["highest"]
            memory = "-" if row["memory_ratio"] is None else number(row["memory_ratio"], 1)
            rows.append(
                [row["case"], f"{row['time_ratio']['median']:.2f} [{low:.2f}, {high:.2f}]", memory, _met(row["met"])]
            )
        head = ["loss, forward and backward", "time, reference / ours", "memory, reference / ours", "aim met"]
        return [Table("Medians of ratios [lowest, highest] over rounds.", head, rows)]

    text = "Losses against plain forms of the same formulas; conditions in docs/benchmarks.md."
    commands = [command("scripts/benchmark.py losses --rounds 5 --json", file)]
    return Part("losses", "Speed and memory of the losses", text, commands, read)


def data(out: Path) -> Part:
    file = out / "data.json"

    def read() -> list[Table]:
        rows = []
        for row in json.loads(file.read_text(encoding="utf-8"))["rows"]:
            ratio = row["median_ratio"]
            middle = [f"{median(row[side]):,.3g}" for side in ("reference", "ours")]
            text = f"{ratio['median']:.2f} [{ratio['lowest']:.2f}, {ratio['highest']:.2f}]"
            rows.append([row["case"], row["unit"], *middle, text, _met(row["met"])])
        head = ["case", "unit", "plain", "here", "ratio", "aim met"]
        return [Table("Processor time on one core, medians over rounds; ratio [lowest, highest].", head, rows)]

    text = "Images and texts on their way into the model; conditions in docs/benchmarks.md."
    return Part("data", "Speed of the data", text, [command("scripts/benchmark.py data --json", file)], read)


def _met(met: bool | None) -> str:
    return {True: "yes", False: "no", None: "-"}[met]
