"""scripts/benchmark.py: the references do the same work as this package, and the arithmetic of its table."""

from __future__ import annotations

import json
import mmap
import sys
from pathlib import Path
from typing import Any

import benchmark as command
import numpy as np
import pytest
import torch

from cxrcl.commands.benchmark import measure, references
from cxrcl.commands.benchmark.cases import CASES, Aim, Outcome
from cxrcl.commands.benchmark.losses import Measured, compare, row
from cxrcl.commands.benchmark.table import markdown
from cxrcl.commands.entry import guarded
from cxrcl.errors import UserError
from cxrcl.objectives.losses import tiled

# ------------------------------------------------------------------------------------------------- the cases


@pytest.mark.parametrize(
    ("name", "tiled_from"), [*((name, tiled.MAX_LOGITS) for name in CASES), ("clip", 1), ("cxr_clip", 1)]
)
def test_our_forms_equal_the_reference(name: str, tiled_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "MAX_LOGITS", tiled_from)  # the full sizes are tiled
    contenders = CASES[name].make(4, torch.empty(0, dtype=torch.float64))
    assert next(iter(contenders)) == "reference" and len(contenders) > 1
    outcome = contenders["reference"]()
    assert all(part.abs().max() > 1e-6 for part in (outcome.value, *outcome.gradients))
    compare(name, contenders, value=1e-12, gradient=1e-10)


def test_every_contender_has_an_aim_of_its_own_name_or_none() -> None:
    for case in CASES.values():
        names = set(case.make(2, torch.empty(0))) - {"reference"}
        assert all(set(aims) == names for aims in (*case.aims.values(), *case.large.values()))


def outcomes(value: float, *gradient: float) -> Any:
    return lambda: Outcome(torch.tensor(value), (torch.tensor(gradient),))


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (outcomes(2.0001, 1.0, -4.0), "case, ours: value differs from the reference by 5.0e-05, more than 1e-05"),
        (outcomes(2.0, 1.002, -4.0), "case, ours: gradient 0 differs from the reference by 5.0e-04, more than 1e-04"),
        (outcomes(2.0, 1.0, float("nan")), "case, ours: gradient 0 differs from the reference by nan"),
    ],
)
def test_a_contender_that_does_other_work_ends_the_benchmark(other: Any, what: str) -> None:
    reference = outcomes(2.0, 1.0, -4.0)
    compare("case", {"reference": reference, "ours": outcomes(2.00001, 1.0003, -4.0)})
    with pytest.raises(AssertionError, match=what):
        compare("case", {"reference": reference, "ours": other})


def test_the_reference_merges_pieces_of_a_word_and_stops_at_the_closing_piece() -> None:
    layers = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]])[None, :, :, None].repeat(1, 2, 1, 1)
    merged = references.merge_words(layers, torch.tensor([[-1, 0, 0, 1, -1, -1]]))
    assert merged.flatten().tolist() == [2, 12, 16, 0, 0, 0]


# ----------------------------------------------------------------------------------------------- measurement


def ticking() -> tuple[Any, dict[str, Any], list[str]]:
    """A clock, contenders that take 1, 2, 3, ... times their own number of seconds on it, and who ran."""
    now, ran = [0.0], []

    def contender(name: str, seconds: float) -> Any:
        def run() -> None:
            ran.append(name)
            now[0] += seconds * ran.count(name)

        return run

    return lambda: now[0], {"reference": contender("reference", 6.0), "ours": contender("ours", 2.0)}, ran


def test_contenders_take_turns_and_every_run_is_timed() -> None:
    clock, contenders, ran = ticking()
    seconds = measure.race(contenders, 3, clock, settle=lambda: None)
    assert seconds == {"reference": [6, 12, 18], "ours": [2, 4, 6]}
    assert ran == ["reference", "ours", "ours", "reference", "reference", "ours"]


def test_the_clock_is_read_when_the_device_has_settled() -> None:
    now = [0.0]

    def settle() -> None:
        now[0] += sum(pending)
        pending.clear()

    pending: list[float] = [100.0]  # of earlier work: not this contender's
    seconds = measure.race({"ours": lambda: pending.append(5.0)}, 1, lambda: now[0], settle)
    assert seconds == {"ours": [5.0]}


def test_ratios_are_taken_round_by_round() -> None:
    # The quotient of the medians would be 4.
    assert measure.ratio([4.0, 30.0, 8.0], [2.0, 10.0, 1.0]) == (3.0, 2.0, 8.0)


@pytest.mark.skipif(not measure.can_measure_memory(), reason="memory is measured on Linux")
def test_the_peak_is_that_of_the_work_even_after_a_higher_one() -> None:
    def fill(megabytes: int) -> None:
        # Straight from the system: in a process that has worked before, an allocator may have some at hand.
        np.frombuffer(mmap.mmap(-1, megabytes * 1_000_000), np.uint8).fill(1)

    fill(300)
    assert 55 < measure.peak_here(lambda: fill(60)) < 75


def test_waits_for_the_device_are_counted() -> None:
    numbers = torch.arange(6)

    def work() -> None:
        (numbers * 2).sum()
        numbers.sum().item()
        numbers[numbers > 2]
        numbers.clone()[numbers > 2] = torch.zeros(3, dtype=torch.int64)
        numbers[torch.tensor([1, 2])]

    assert measure.waits(work) == 3
    contenders = CASES["word_merge"].make(2, torch.empty(0))
    assert measure.waits(contenders["ours"]) == 0
    assert measure.waits(contenders["reference"]) == 2 * 97


# ------------------------------------------------------------------------------------------------- the table


REFERENCE, OURS = Measured([0.4, 3.0, 0.8], 50.0, 9), Measured([0.2, 1.0, 0.1], 5.0, 2)


@pytest.mark.parametrize(
    ("aim", "met"),
    [
        (Aim(), None),
        (Aim(time=3.0), True),
        (Aim(time=3.1), False),
        (Aim(memory=10.0), True),
        (Aim(memory=10.1), False),
        (Aim(time=3.0, memory=10.1), False),
        (Aim(time=3.1, memory=10.0), False),
        (Aim(waits=2), True),
        (Aim(time=3.0, waits=1), False),
    ],
)
def test_an_aim_is_met_when_all_of_it_is(aim: Aim, met: bool | None) -> None:
    assert row("clip B=2", REFERENCE, OURS, aim).met is met


def test_memory_that_was_not_measured_is_not_judged() -> None:
    unknown = row("clip B=2", Measured(REFERENCE.seconds), Measured(OURS.seconds), Aim(memory=2.0))
    assert unknown.met is None and unknown.values["memory_ratio"] is None
    little = row("clip B=2", REFERENCE, OURS._replace(megabytes=0.99), Aim(memory=2.0))
    assert little.met is None and little.values["memory_ratio"] is None
    assert row("clip B=2", REFERENCE, OURS._replace(megabytes=1.0), Aim()).values["memory_ratio"] == 50


def test_the_table_holds_what_was_measured() -> None:
    measured = row("clip B=2", REFERENCE, OURS._replace(waits=None), Aim(3.5))
    waited = row("clip B=2", Measured(REFERENCE.seconds), Measured(OURS.seconds, waits=0), Aim())
    text = markdown({"threads": "2"}, [measured, waited])
    assert text.startswith("threads: 2\n\n| case |")
    assert "| clip B=2 | 800 | 200 | 3.00 [2.00, 8.00] | 3 | 50.0 | 5.0 | 10.0 | time >= 3.5 | no |" in text
    assert "| - | - | - | - | - |\n" in text and text.endswith("|\n\nclip B=2: waits for the device: None -> 0\n")


# ------------------------------------------------------------------------------------------------- the command


def test_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    arguments = ["losses", "--quick", "--device", "cpu", "--only", "nt_xent", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    monkeypatch.setattr(measure, "can_measure_memory", lambda: True)
    monkeypatch.setattr(measure, "peak_in_child", lambda words: {"reference": 5.0, "ours": 4.0}[words[3]])
    guarded(command.main)
    table, told = capsys.readouterr()
    assert table.splitlines()[0].startswith("device: CPU, processor: ")
    assert f"torch: {torch.__version__}" in table and "threads: 1" in table
    (line,) = [line for line in table.splitlines() if line.startswith("| nt_xent B=16 |")]
    assert line.split(" | ")[4] == "2" and line.endswith(" | - | - |")
    assert [line.rpartition(": ")[2] for line in told.splitlines()] == ["comparing", "timing, 2 rounds", "peak memory"]
    figures = json.loads(file.read_text())
    (measured,) = figures["rows"]
    assert figures["header"]["torch"] == torch.__version__
    assert len(measured["reference_s"]) == 2 and min(measured["ours_s"]) > 0
    slow, fast = measured["reference_s"], measured["ours_s"]
    assert measured["time_ratio"]["lowest"] == pytest.approx(min(a / b for a, b in zip(slow, fast)))
    assert (measured["reference_mb"], measured["ours_mb"]) == (5.0, 4.0)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["lossses"], "invalid choice: 'lossses'"),
        (["losses", "--only", "clipp"], "invalid choice: 'clipp' (choose from"),
        (["losses", "--rounds", "0"], "--rounds 0: expected 1 or more"),
        (["losses", "--json", "nowhere/figures.json"], "--json nowhere/figures.json: no such folder"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(
    arguments: list[str], what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        guarded(command.main)
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == ""
    assert len(err.splitlines()) == 1 and err.startswith("error: ") and what in err


@pytest.mark.slow  # a process that imports torch for each of two contenders
@pytest.mark.skipif(not measure.can_measure_memory(), reason="memory is measured on Linux")
def test_memory_is_that_of_a_process_of_its_own() -> None:
    reference, ours = (
        measure.peak_in_child(["losses", "--peak", "nt_xent", name, "16"]) for name in ("reference", "ours")
    )
    assert 0 <= reference < 50 and 0 <= ours < 50


def test_a_child_that_fails_is_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho Traceback: >&2; echo KeyError: theirs >&2; exit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(
        UserError, match=r"losses --peak clip theirs: the child process ended with status 1: KeyError: "
    ):
        measure.peak_in_child(["losses", "--peak", "clip", "theirs"])
