"""Speed of decoding, augmentation, tokens, packed store and loader, against the plain way of published code."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import cv2
import torch

from cxrcl.commands.benchmark import data_table
from cxrcl.commands.benchmark.data_cases import CASES
from cxrcl.commands.benchmark.data_table import Aim, Row
from cxrcl.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", action="append", choices=list(CASES), metavar="NAME", help=f"{', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="in place of each case's own number")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, two rounds: shows that all of this runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")


def run(given: argparse.Namespace) -> None:
    if given.rounds is not None and given.rounds < 1:
        raise ConfigError(f"--rounds {given.rounds}: expected 1 or more")
    if given.json is not None and not given.json.resolve().parent.is_dir():
        raise ConfigError(f"--json {given.json}: no such folder")
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    facts = data_table.header()
    rows: list[Row] = []
    for name in given.only or CASES:
        with tempfile.TemporaryDirectory(prefix="cxrcl-benchmark-") as folder:
            rows += _rows(name, Path(folder), given.quick, given.rounds or (2 if given.quick else CASES[name].rounds))
    print(data_table.markdown(facts, rows))
    if given.json is not None:
        data_table.write_json(given.json, facts, rows)


def _rows(name: str, folder: Path, quick: bool, rounds: int) -> list[Row]:
    """Raises AssertionError where the two sides of a trial do other work."""
    case = CASES[name]
    _say(f"{name}: making inputs")
    rows = []
    for trial, (unit, figures, compare, less_is_better) in case.make(folder, quick).items():
        _say(f"{name} {trial}: comparing")
        compare()
        _say(f"{name} {trial}: measuring, {rounds} rounds")
        found = figures(rounds)
        # Aims are for the full sizes.
        aim = Aim() if quick else case.aim(trial)
        rows.append(Row(f"{name} {trial}", unit, found["reference"], found["ours"], aim, less_is_better))
    return rows


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
