"""Pre-train: `cxrcl train [group=option] [key=value ...]`, also `python train.py` and under torchrun."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from cxrcl.commands.entry import INTERRUPTED, guarded, quoted, spelled
from cxrcl.commands.hydra import requested_evals, run_composed
from cxrcl.errors import ConfigError

if TYPE_CHECKING:
    from cxrcl.app.job import Typed


def main() -> None:
    guarded(lambda: run_composed("train", train_or_study))


def train_or_study(values: dict[str, Any], overrides: list[str], packages: tuple[str, ...], typed: str) -> None:
    from cxrcl.app.job import Typed

    if values.get("study") is not None:
        _study(values, packages, Typed(typed, tuple(overrides)))
        return
    from cxrcl.app.train import train

    done = train(values, requested_evals(overrides), packages, Typed(typed, tuple(overrides)))
    if os.environ.get("RANK", "0") == "0":
        print(f"checkpoint: {done.checkpoint}\nTensorBoard: tensorboard --logdir {quoted(done.folder)}")
        evals = f" 'evals=[{done.evals}]'" if done.evals else ""
        print(f"next: {spelled('evaluate')} checkpoint={quoted(done.checkpoint)}{evals}")
    if not done.finished:
        sys.exit(INTERRUPTED)


def _study(values: dict[str, Any], packages: tuple[str, ...], typed: Typed) -> None:
    """Many trainings, one after the other, in this process."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("study: its trainings run one after the other in a single process: start it without torchrun")
    from cxrcl.app import study

    folder = study.run_from_config(values, packages, typed)
    if folder is None:
        sys.exit(INTERRUPTED)
    print((folder / "study.md").read_text(encoding="utf-8"))
    print(f"table and picture: {quoted(folder / 'study.md')}, {quoted(folder / 'study.png')}")
