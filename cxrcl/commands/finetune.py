"""Train a classifier on a pre-trained image encoder: `cxrcl finetune init_from=CHECKPOINT [key=value ...]`."""

from __future__ import annotations

from typing import Any

from cxrcl.commands.entry import guarded
from cxrcl.commands.hydra import run_composed
from cxrcl.commands.train import train_or_study


def main() -> None:
    guarded(lambda: run_composed("finetune", _finetune))


def _finetune(values: dict[str, Any], overrides: list[str], packages: tuple[str, ...], typed: str) -> None:
    from cxrcl.app import study

    study.check_unseen(values)
    train_or_study(values, overrides, packages, typed)
