"""Time and peak memory of losses, forward and backward, against plain forms of the same formulas."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from cxrcl.commands.benchmark import measure, table
from cxrcl.commands.benchmark.cases import CASES, Contenders, Outcome
from cxrcl.commands.benchmark.table import Aim, Row
from cxrcl.distributed import start
from cxrcl.errors import ConfigError

VALUE_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4  # relative, in single precision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", action="append", choices=list(CASES), metavar="NAME", help=f"{', '.join(CASES)}")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--rounds", type=int, metavar="N", help="in place of each case's own number")
    parser.add_argument("--large", action="store_true", help="larger sizes, too: minutes and gigabytes more")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, two rounds: shows that all of this runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    # What this command asks its own child processes for: the peak memory of one contender.
    parser.add_argument("--peak", nargs=3, metavar=("CASE", "CONTENDER", "SIZE"), help=argparse.SUPPRESS)


def run(given: argparse.Namespace) -> None:
    if given.peak:
        name, contender, size = given.peak
        print(_peak(name, contender, int(size)))
        return
    if given.rounds is not None and given.rounds < 1:
        raise ConfigError(f"--rounds {given.rounds}: expected 1 or more")
    if given.json is not None and not given.json.resolve().parent.is_dir():
        raise ConfigError(f"--json {given.json}: no such folder")
    with start(given.device) as runtime:
        torch.backends.cudnn.allow_tf32 = False  # single precision, as everywhere else in these figures
        facts = table.header(runtime.device)
        rows: list[Row] = []
        for name, size, aims in _chosen(given):
            rounds = given.rounds or (2 if given.quick else CASES[name].rounds)
            rows += _rows(name, size, aims, rounds, runtime.device)
    print(table.markdown(facts, rows))
    if given.json is not None:
        table.write_json(given.json, facts, rows)


def _chosen(given: argparse.Namespace) -> list[tuple[str, int, Mapping[str, Aim]]]:
    """Names, sizes and aims."""
    chosen: list[tuple[str, int, Mapping[str, Aim]]] = []
    for name in given.only or CASES:
        case = CASES[name]
        sizes = {case.quick: {}} if given.quick else {**case.aims, **(case.large if given.large else {})}
        chosen += [(name, size, aims) for size, aims in sizes.items()]
    return chosen


def _rows(name: str, size: int, aims: Mapping[str, Aim], rounds: int, device: torch.device) -> list[Row]:
    case = CASES[name]
    title = f"{name} B={size}"
    _say(f"{title}: comparing")
    contenders = case.make(size, torch.empty(0, device=device))
    compare(title, contenders)
    _say(f"{title}: timing, {rounds} rounds")
    settle = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds = measure.race(contenders, rounds, settle=settle)
    waits = {key: measure.waits(contender) for key, contender in contenders.items()} if case.waits else {}
    _say(f"{title}: peak memory")
    memory: dict[str, float] = {}
    if device.type == "cuda":
        memory = {key: measure.peak_on_cuda(contender) for key, contender in contenders.items()}
    elif measure.can_measure_memory():
        names = list(contenders)
        del contenders  # their inputs need not stay while children make the same
        memory = {key: measure.peak_in_child(["losses", "--peak", name, key, str(size)]) for key in names}
    return [
        Row(
            case=title if key == "ours" else f"{title}, {key}",
            reference_s=seconds["reference"],
            ours_s=seconds[key],
            reference_mb=memory.get("reference"),
            ours_mb=memory.get(key),
            reference_waits=waits.get("reference"),
            ours_waits=waits.get(key),
            # Aims come from measurements on CPUs.
            aim=aims.get(key, Aim()) if device.type == "cpu" else Aim(),
        )
        for key in seconds
        if key != "reference"
    ]


def compare(
    title: str, contenders: Contenders, value: float = VALUE_TOLERANCE, gradient: float = GRADIENT_TOLERANCE
) -> None:
    """Run each contender, and end the benchmark if one does not do the work of the reference.

    Raises:
        AssertionError: a value or gradient that differs by more than this share of the largest entry.
    """
    wanted = contenders["reference"]()
    for name, contender in contenders.items():
        if name != "reference":
            _compare(f"{title}, {name}", contender(), wanted, value, gradient)


def _compare(title: str, found: Outcome, wanted: Outcome, value: float, gradient: float) -> None:
    names = ["value", *(f"gradient {k}" for k in range(len(wanted.gradients)))]
    limits = [value, *[gradient] * len(wanted.gradients)]
    pairs = zip([found.value, *found.gradients], [wanted.value, *wanted.gradients], strict=True)
    for name, (ours, reference), limit in zip(names, pairs, limits, strict=True):
        error = float((ours - reference).abs().max() / reference.abs().max())
        if not error <= limit:  # nan, too
            raise AssertionError(f"{title}: {name} differs from the reference by {error:.1e}, more than {limit:.0e}")


def _peak(name: str, contender: str, size: int) -> float:
    """MB, in a process that has done the same on a small scale: what is loaded or made once is no part of it."""
    with start("cpu") as runtime:
        like = torch.empty(0, device=runtime.device)
        CASES[name].make(CASES[name].quick, like)[contender]()
        return measure.peak_here(CASES[name].make(size, like)[contender])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
