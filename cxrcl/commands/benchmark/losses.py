"""Time and peak memory of losses, forward and backward, against plain forms of the same formulas."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

import torch

from cxrcl.commands.benchmark import measure, table
from cxrcl.commands.benchmark.cases import CASES, Aim, Contenders
from cxrcl.commands.benchmark.table import Limit, Row, say
from cxrcl.distributed import start

VALUE_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4  # relative, in single precision


class Measured(NamedTuple):
    """Of one contender: seconds of each round, and memory and waits for the device where they were measured."""

    seconds: Sequence[float]
    megabytes: float | None = None
    waits: int | None = None


def row(case: str, reference: Measured, ours: Measured, aim: Aim) -> Row:
    """One contender against the reference."""
    time, memory = measure.ratio(reference.seconds, ours.seconds), None
    # Below a megabyte are the steps in which memory is given out.
    if reference.megabytes is not None and ours.megabytes is not None and ours.megabytes >= 1:
        memory = reference.megabytes / ours.megabytes
    columns = {
        "case": case,
        "reference ms": _short(1000 * statistics.median(reference.seconds)),
        "ours ms": _short(1000 * statistics.median(ours.seconds)),
        "ratio [min, max]": str(time),
        "rounds": str(len(ours.seconds)),
        "reference MB": _short(reference.megabytes),
        "ours MB": _short(ours.megabytes),
        "ratio": _short(memory),
    }
    limits = [
        Limit("time >= {:.3g}", aim.time, time.median),
        Limit("memory >= {:.3g}", aim.memory, memory),
        Limit("waits <= {}", aim.waits, ours.waits, at_most=True),
    ]
    values = {
        "case": case,
        **{"reference_s": reference.seconds, "ours_s": ours.seconds},
        **{"reference_mb": reference.megabytes, "ours_mb": ours.megabytes},
        **{"reference_waits": reference.waits, "ours_waits": ours.waits},
        **{"aim": asdict(aim), "time_ratio": time._asdict(), "memory_ratio": memory},
    }
    waited = None if ours.waits is None else f"{case}: waits for the device: {reference.waits} -> {ours.waits}"
    return Row(columns, limits, values, waited)


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    table.add_arguments(parser, CASES)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--large", action="store_true", help="larger sizes, too: minutes and gigabytes more")
    # What this command asks its own child processes for: the peak memory of one contender.
    parser.add_argument("--peak", nargs=3, metavar=("CASE", "CONTENDER", "SIZE"), help=argparse.SUPPRESS)


def run(given: argparse.Namespace) -> None:
    if given.peak:
        name, contender, size = given.peak
        print(_peak(name, contender, int(size)))
        return
    table.check(given)
    with start(given.device) as runtime:
        torch.backends.cudnn.allow_tf32 = False  # single precision, as everywhere else in these figures
        facts = table.header(runtime.device)
        rows: list[Row] = []
        for name in given.only or CASES:
            case = CASES[name]
            sizes = {case.quick: {}} if given.quick else {**case.aims, **(case.large if given.large else {})}
            rounds = given.rounds or (2 if given.quick else case.rounds)
            for size, aims in sizes.items():
                rows += _rows(name, size, aims, rounds, runtime.device)
    table.report(facts, rows, given.json)


def _rows(name: str, size: int, aims: Mapping[str, Aim], rounds: int, device: torch.device) -> list[Row]:
    case = CASES[name]
    title = f"{name} B={size}"
    say(f"{title}: comparing")
    contenders = case.make(size, torch.empty(0, device=device))
    compare(title, contenders)
    say(f"{title}: timing, {rounds} rounds")
    settle = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds = measure.race(contenders, rounds, settle=settle)
    waits = {key: measure.waits(contender) for key, contender in contenders.items()} if case.waits else {}
    say(f"{title}: peak memory")
    memory: dict[str, float] = {}
    if device.type == "cuda":
        memory = {key: measure.peak_on_cuda(contender) for key, contender in contenders.items()}
    elif measure.can_measure_memory():
        del contenders  # their inputs need not stay while children make the same
        memory = {key: measure.peak_in_child(["losses", "--peak", name, key, str(size)]) for key in seconds}
    measured = {key: Measured(seconds[key], memory.get(key), waits.get(key)) for key in seconds}
    reference = measured.pop("reference")
    if device.type != "cpu":
        aims = {}  # they come from measurements on CPUs
    return [
        row(title if key == "ours" else f"{title}, {key}", reference, ours, aims.get(key, Aim()))
        for key, ours in measured.items()
    ]


def compare(
    title: str, contenders: Contenders, value: float = VALUE_TOLERANCE, gradient: float = GRADIENT_TOLERANCE
) -> None:
    """Run each contender, and end the benchmark if one does not do the work of the reference.

    Raises:
        AssertionError: a value or gradient that differs by more than this share of the largest entry.
    """
    wanted = contenders["reference"]()
    parts = [("value", value), *((f"gradient {k}", gradient) for k in range(len(wanted.gradients)))]
    for name, contender in contenders.items():
        if name == "reference":
            continue
        found = contender()
        pairs = zip([found.value, *found.gradients], [wanted.value, *wanted.gradients], strict=True)
        for (part, limit), (ours, reference) in zip(parts, pairs, strict=True):
            error = float((ours - reference).abs().max() / reference.abs().max())
            if not error <= limit:  # nan, too
                raise AssertionError(
                    f"{title}, {name}: {part} differs from the reference by {error:.1e}, more than {limit:.0e}"
                )


def _peak(name: str, contender: str, size: int) -> float:
    """MB, in a process that has done the same on a small scale: what is loaded or made once is no part of it."""
    with start("cpu") as runtime:
        like = torch.empty(0, device=runtime.device)
        CASES[name].make(CASES[name].quick, like)[contender]()
        return measure.peak_here(CASES[name].make(size, like)[contender])
