"""Speed of decoding, augmentation, tokens, packed store and loader, against the plain way of published code."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path

import cv2
import PIL
import torch
from torchvision import __version__ as torchvision_version

from cxrcl.commands.benchmark import measure, table
from cxrcl.commands.benchmark.data_cases import CASES, Aim, Figures, Trial
from cxrcl.commands.benchmark.table import Limit, Row, say


def row(case: str, trial: Trial, found: Figures, aim: Aim) -> Row:
    """A trial, and what was found in each round."""
    reference, ours = found["reference"], found["ours"]
    times = measure.ratio(reference, ours) if trial.less_is_better else measure.ratio(ours, reference)
    middle = statistics.median(ours)
    columns = {
        "case": case,
        "unit": trial.unit,
        "reference": _short(statistics.median(reference)),
        "ours": _short(middle),
        "ratio [min, max]": str(times),
        "rounds": str(len(ours)),
    }
    limits = [
        Limit("ratio >= {:.3g}", aim.ratio, times.median),
        Limit("ours >= {:,.0f}", aim.at_least, middle),
        Limit("ours <= {:.3g}", aim.at_most, middle, at_most=True),
    ]
    values = {
        **{"case": case, "unit": trial.unit, "reference": reference, "ours": ours, "aim": asdict(aim)},
        **{"less_is_better": trial.less_is_better, "median_ratio": times._asdict()},
    }
    return Row(columns, limits, values)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    table.add_arguments(parser, CASES)


def run(given: argparse.Namespace) -> None:
    table.check(given)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    versions = {"pillow": PIL.__version__, "opencv": cv2.__version__, "torchvision": torchvision_version}
    facts = {**table.header(torch.device("cpu")), **versions}
    rows: list[Row] = []
    for name in given.only or CASES:
        rounds = given.rounds or (2 if given.quick else CASES[name].rounds)
        with tempfile.TemporaryDirectory(prefix="cxrcl-benchmark-") as folder:
            rows += _rows(name, Path(folder), given.quick, rounds)
    table.report(facts, rows, given.json)


def _rows(name: str, folder: Path, quick: bool, rounds: int) -> list[Row]:
    """Raises AssertionError where the two sides of a trial do other work."""
    case = CASES[name]
    say(f"{name}: making inputs")
    rows = []
    for what, trial in case.make(folder, quick).items():
        say(f"{name} {what}: comparing")
        trial.compare()
        say(f"{name} {what}: measuring, {rounds} rounds")
        # Aims are for the full sizes.
        rows.append(row(f"{name} {what}", trial, trial.figures(rounds), Aim() if quick else case.aim(what)))
    return rows
