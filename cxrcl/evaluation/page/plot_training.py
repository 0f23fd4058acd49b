"""Curves of a training run, from the lines of its metrics.jsonl."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrcl.evaluation.page.html import Html
from cxrcl.evaluation.page.pictures import LINE, SERIES, SOFT, picture

Line = Mapping[str, float | None]
# Panel -> the figures in it.
PANELS = {
    "loss": r"train/loss|train/chance|.*/total",
    "mean AUROC": r".*/mean_auroc",
    "accuracy": r".*/accuracy",
    "recall, image → text": r".*/image_to_text/r\d+",
    "recall, text → image": r".*/text_to_image/r\d+",
    "learning rate": r"train/learning_rate",
}


def read(file: Path) -> list[dict[str, float | None]]:
    """Lines of metrics.jsonl, none where there is no such file. A line that was cut off at the end is left out."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def series(lines: Sequence[Line]) -> dict[str, dict[float, float]]:
    """Figure -> step -> value. A run that went on from an earlier step wrote some twice: the last counts."""
    found: dict[str, dict[float, float]] = {}
    for line in lines:
        step = line.get("step")
        for name, value in line.items():
            if step is not None and name != "step" and isinstance(value, int | float):
                found.setdefault(name, {})[step] = value
    return {name: dict(sorted(values.items())) for name, values in found.items()}


def panels(lines: Sequence[Line]) -> dict[str, dict[str, dict[float, float]]]:
    """Panel -> figure -> step -> value; panels without a figure are left out."""
    values = series(lines)
    chosen = {
        title: {name: values[name] for name in values if re.fullmatch(pattern, name)}
        for title, pattern in PANELS.items()
    }
    return {title: part for title, part in chosen.items() if part}


def training(lines: Sequence[Line], name: str) -> Html:
    """Nothing where there are no lines."""
    found = panels(lines)
    if not found:
        return Html("")
    columns = min(3, len(found))
    rows = -(-len(found) // columns)

    def draw(figure: Any) -> None:
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        for k, (title, parts) in enumerate(found.items()):
            axes = figure.add_subplot(rows, columns, k + 1)
            colours = iter(SERIES * len(parts))
            for figure_name, values in parts.items():
                chance = figure_name == "train/chance"
                axes.plot(
                    list(values),
                    list(values.values()),
                    color=SOFT if chance else next(colours),
                    linestyle=(0, (4, 3)) if chance else "-",
                    linewidth=0.9 if chance else 1.3,
                    marker="" if len(values) > 30 else "o",
                    ms=2.5,
                    label=_short(figure_name),
                )
            axes.set_title(title, pad=18 if len(parts) > 1 else None)
            axes.grid(color=LINE, linewidth=0.4)
            axes.margins(y=0.08)
            if k + columns >= len(found):
                axes.set_xlabel("step")
            if len(parts) > 1:
                # Above the axes, where no curve runs.
                axes.legend(
                    loc="lower left", bbox_to_anchor=(-0.03, 0.98), ncols=4, handlelength=1.4, columnspacing=1.2
                )

    return picture(3.9 * columns, 2.6 * rows, f"Training curves of {name}: {', '.join(found)} over steps", draw)


def _short(figure: str) -> str:
    text = re.sub(r"(.*)/(?:image_to_text|text_to_image)/r(\d+)", r"\1 R@\2", figure).removeprefix("retrieval ")
    return text.removesuffix("/mean_auroc").removeprefix("train/").replace("loss/total", "held out")
