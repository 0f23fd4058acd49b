"""Where a run's metrics go: TensorBoard, metrics.jsonl and the terminal."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxrcl.training.run_log import utc_now

logger = logging.getLogger(__name__)


class Tracker:
    """The null twin: what processes other than the main one use."""

    def say(self, line: str) -> None: ...

    def begin(self, done: int, total: int, images_per_step: int) -> None: ...

    def step(self, step: int) -> None: ...

    def metrics(self, step: int, values: Mapping[str, float], show: str | None = None) -> None: ...

    def close(self) -> None: ...


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class FileTracker(Tracker):
    """Writes to `folder` and to the terminal: a live bar there, one line every `line_every` steps elsewhere."""

    def __init__(self, folder: Path, line_every: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._board = SummaryWriter(str(folder / "tensorboard"))
        self._lines = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._line_every = line_every
        self._bar: Any = None
        self._shown = ""
        self._live = sys.stderr.isatty()

    def say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        logger.info(line)

    def begin(self, done: int, total: int, images_per_step: int) -> None:
        self._first, self._total, self._images = done, total, images_per_step
        self._started = time.monotonic()
        if self._live:
            from tqdm import tqdm

            self._bar = tqdm(initial=done, total=total, unit="step", dynamic_ncols=True, leave=False)

    def step(self, step: int) -> None:
        """`step` steps are done."""
        if self._bar is not None:
            self._bar.update(1)
        elif step % self._line_every == 0 or step == self._total:
            left = duration((self._total - step) / max(self.steps_per_second(step), 1e-9))
            logger.info(f"step {step}/{self._total}  {self._shown}  {self._speed(step)}  left {left}")

    def steps_per_second(self, step: int) -> float:
        return (step - self._first) / max(time.monotonic() - self._started, 1e-9)

    def _speed(self, step: int) -> str:
        return f"{self.steps_per_second(step) * self._images:.0f} images/s"

    def metrics(self, step: int, values: Mapping[str, float], show: str | None = None) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        # JSON has no nan: a metric that does not exist is null.
        finite = {name: value if value == value else None for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, "time": utc_now(), **finite}) + "\n")
        self._lines.flush()
        if show is not None:
            self._shown = show
            if self._bar is not None:
                self._bar.set_postfix_str(f"{show}, {self._speed(step)}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._board.close()
        self._lines.close()
