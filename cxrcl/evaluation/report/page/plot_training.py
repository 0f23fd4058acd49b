"""Curves of a training run, from the lines of its metrics.jsonl."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrcl.evaluation.report.page.pictures import LINE, SERIES, SOFT, Picture, picture

Line = Mapping[str, float | None]
# Panel -> the metrics in it, as patterns of their names.
PANELS = {
    "loss": r"train/loss|train/chance|.*/total",
    "mean AUROC": r".*/mean_auroc",
    "accuracy": r".*/accuracy",
    "recall, image → text": r".*/image_to_text/r\d+",
    "recall, text → image": r".*/text_to_image/r\d+",
    "learning rate": r"train/learning_rate",
}


def read(file: Path) -> list[dict[str, float | None]]:
    """Lines of metrics.jsonl, none where there is no such file. A line that was cut off is left out."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def panels(lines: Sequence[Line]) -> dict[str, dict[str, dict[float, float]]]:
    """Panel -> metric -> step -> value; panels without a metric are left out.

    A run that went on from an earlier step wrote some steps twice: the last counts.
    """
    values: dict[str, dict[float, float]] = {}
    for line in lines:
        step = line.get("step")
        for name, value in line.items():
            if step is not None and name != "step" and isinstance(value, int | float):
                values.setdefault(name, {})[step] = value
    chosen = {
        title: {name: dict(sorted(found.items())) for name, found in values.items() if re.fullmatch(pattern, name)}
        for title, pattern in PANELS.items()
    }
    return {title: part for title, part in chosen.items() if part}


def training(lines: Sequence[Line], name: str) -> Picture | None:
    """The curves, a panel for each kind of metric; None where there are no lines."""
    shown = panels(lines)
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)

    def draw(figure: Any) -> None:
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        for k, (title, parts) in enumerate(shown.items()):
            axes = figure.add_subplot(rows, columns, k + 1)
            colours = iter(SERIES * len(parts))
            for metric, values in parts.items():
                chance = metric == "train/chance"
                axes.plot(
                    list(values),
                    list(values.values()),
                    color=SOFT if chance else next(colours),
                    linestyle=(0, (4, 3)) if chance else "-",
                    linewidth=0.9 if chance else 1.3,
                    marker="" if len(values) > 30 else "o",
                    ms=2.5,
                    label=_short(metric),
                )
            axes.set_title(title, pad=18 if len(parts) > 1 else None)
            axes.grid(color=LINE, linewidth=0.4)
            axes.margins(y=0.08)
            if k + columns >= len(shown):
                axes.set_xlabel("step")
            if len(parts) > 1:
                # Above the axes, where no curve runs.
                axes.legend(
                    loc="lower left", bbox_to_anchor=(-0.03, 0.98), ncols=4, handlelength=1.4, columnspacing=1.2
                )

    return picture(3.9 * columns, 2.6 * rows, f"Training curves of {name}: {', '.join(shown)} over steps", draw)


def _short(metric: str) -> str:
    text = re.sub(r"(.*)/(?:image_to_text|text_to_image)/r(\d+)", r"\1 R@\2", metric).removeprefix("retrieval ")
    return text.removesuffix("/mean_auroc").removeprefix("train/").replace("loss/total", "held out")
