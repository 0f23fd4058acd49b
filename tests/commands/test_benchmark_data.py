"""scripts/benchmark.py data: both sides of each trial do the same work, and the arithmetic of its table."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import benchmark as command
import numpy as np
import pytest
import torch
from PIL import Image

from cxrcl.commands.benchmark import data, data_cases, data_inputs, data_references, data_waits
from cxrcl.commands.benchmark.data_cases import CASES, Aim, Case, Trial
from cxrcl.commands.benchmark.table import Row, markdown
from cxrcl.commands.entry import guarded
from cxrcl.types import ImageSpec

# ------------------------------------------------------------------------------------------------- the cases


@pytest.mark.parametrize("name", ["decode_small", "tokens", "store"])
def test_both_sides_do_the_same_work(name: str, tmp_path: Path) -> None:
    trials = CASES[name].make(tmp_path, True)
    for trial in trials.values():
        trial.compare()
    aims = CASES[name].aims
    assert isinstance(aims, Aim) or set(aims) <= set(trials)


def test_films_that_are_a_little_brighter_or_elsewhere_end_the_benchmark() -> None:
    film = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    std = torch.tensor(data_cases.STD).view(3, 1, 1)
    data_cases.compare_images(film + 2.5 / 255 / std, film)
    for other in (film + 3.5 / 255 / std, film.roll(1, dims=-1), torch.full_like(film, torch.nan)):
        with pytest.raises(AssertionError, match="images differ from the reference by"):
            data_cases.compare_images(other, film)


def test_pieces_that_differ_end_the_benchmark() -> None:
    ids, mask = torch.tensor([[2, 5, 3]]), torch.ones(1, 3)
    data_cases.compare_pieces("fast", [ids, mask], [ids.clone(), mask.clone()])
    for other in ([ids + 1, mask], [ids, mask * 0], [ids[:, :2], mask]):
        with pytest.raises(AssertionError, match="fast: pieces differ"):
            data_cases.compare_pieces("fast", other, [ids, mask])


def test_full_size_files_are_of_the_size_of_real_ones(tmp_path: Path) -> None:
    (title,) = data_cases.decode(tmp_path, True, full=(6, 2320, 2828), tiny=(1, 2320, 2828), grain=3.3)
    size = (tmp_path / "2320x2828" / "0.jpg").stat().st_size
    assert 1e6 < size < 2e6 and title.startswith("2320x2828, 1.")


def test_the_reference_equalises_and_jitters() -> None:
    film = np.tile(np.arange(0, 128, 2, dtype=np.uint8), (64, 1))
    image = Image.fromarray(film).convert("RGB")
    spec = ImageSpec(64, (0.0,) * 3, (1.0,) * 3)
    still: Any = ((1, 1), (1, 1), (1, 1), (0, 0))
    torch.manual_seed(0)

    def values(probability: float, jitter: Any) -> np.ndarray:
        pipeline = data_references.training_pipeline(spec, (1, 1), (1, 1), probability, jitter)
        return np.asarray(pipeline(image)[0]) * 255

    assert np.abs(values(0, still) - film).max() < 1
    assert values(1, still).max() > film.max() + 20
    assert abs(values(0, ((1.5, 1.5), (1, 1), (1, 1), (0, 0))).mean() - 1.5 * film.mean()) < 1


def test_reports_are_sentences() -> None:
    found = data_inputs.reports(5)
    assert len(found) == 5 and len(set(found)) == 5
    assert all(len(report) > 3 and all(s.endswith(".") for s in report) for report in found)


# ------------------------------------------------------------------------------------------------- a step


def test_the_share_is_that_of_waits_between_requests_after_the_first_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_waits, "SKIPPED", 1)
    # (asked, given): a slow first one, then 1 of 10 seconds and 3 of 10; nothing is known of the step after the last.
    moments = [(0.0, 90.0), (100.0, 101.0), (110.0, 113.0), (120.0, 125.0)]
    assert data_waits.share(moments) == pytest.approx(20.0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_demo_is_trained_from_files_and_from_a_store(num_workers: int, tmp_path: Path) -> None:
    files, packed = data_waits.images_on_disk(tmp_path, quick=True)
    before = os.environ.get("OMP_NUM_THREADS")
    from_store = num_workers == 0
    place = packed if from_store else files
    found = data_waits.demo_step(place, tmp_path / "run", 6, from_store, num_workers, quick=True)
    assert 0 < found < 100 and os.environ.get("OMP_NUM_THREADS") == before
    assert len(data_waits.TimedFeed.moments) == data_waits.SKIPPED + 6 + 1


# ------------------------------------------------------------------------------------------------- the table


def row(aim: Aim, less_is_better: bool = False) -> Row:
    trial = Trial("images/s", lambda rounds: {}, lambda: None, less_is_better)
    return data.row("c", trial, {"reference": [10.0, 30.0, 8.0], "ours": [40.0, 60.0, 16.0]}, aim)


def test_more_a_second_is_better_and_less_of_a_step() -> None:
    assert row(Aim()).values["median_ratio"] == {"median": 2.0, "lowest": 2.0, "highest": 4.0}
    less = row(Aim(), less_is_better=True).values["median_ratio"]
    assert less == {"median": 0.5, "lowest": 0.25, "highest": 0.5}


@pytest.mark.parametrize(
    ("aim", "met"),
    [
        (Aim(), None),
        (Aim(ratio=2.0), True),
        (Aim(ratio=2.1), False),
        (Aim(at_least=40), True),
        (Aim(at_least=41), False),
        (Aim(at_most=40), True),
        (Aim(at_most=39), False),
        (Aim(ratio=2.0, at_least=41), False),
    ],
)
def test_an_aim_is_met_when_all_of_it_is(aim: Aim, met: bool | None) -> None:
    assert row(aim).met is met


def test_the_table_holds_what_was_measured() -> None:
    text = markdown({"threads": "1"}, [row(Aim(ratio=2.5, at_least=30_000)), row(Aim(at_most=2.0))])
    assert text.startswith("threads: 1\n\n| case | unit |")
    assert "| c | images/s | 10 | 40 | 2.00 [2.00, 4.00] | 3 | ratio >= 2.5, ours >= 30,000 | no |\n" in text
    assert "| ours <= 2 | no |\n" in text


# ------------------------------------------------------------------------------------------------- the command


def test_sides_that_differ_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def differs() -> None:
        raise AssertionError("they differ")

    timed: list[int] = []
    trial = Trial("images/s", lambda rounds: timed.append(rounds) or {}, differs)
    monkeypatch.setitem(CASES, "store", Case(lambda folder, quick: {"x": trial}, Aim()))
    with pytest.raises(AssertionError, match="they differ"):
        data._rows("store", tmp_path, quick=True, rounds=1)
    assert not timed


def test_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    arguments = ["data", "--quick", "--only", "augment", "--only", "store", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    guarded(command.main)
    table, told = (text.splitlines() for text in capsys.readouterr())
    assert [line.rpartition(": ")[2] for line in told] == ["making inputs", "comparing", "measuring, 2 rounds"] * 2
    head = table[0]
    assert head.startswith("device: CPU, processor: ") and "threads: 1, " in head and ", opencv: " in head
    lines = [line.split(" | ") for line in table if line.startswith(("| augment", "| store"))]
    assert [(cells[0], cells[1], cells[5]) for cells in lines] == [
        ("| augment 256 px, CLAHE, jitter", "images/s", "2"),
        ("| store 256 px", "images/s", "2"),
    ]
    figures = json.loads(file.read_text())
    assert figures["header"]["torch"] == torch.__version__ and "load" in figures["header"]
    _, stored = figures["rows"]
    assert len(stored["ours"]) == 2 and min(stored["reference"]) > 0 and stored["met"] is None
    ratios = [a / b for a, b in zip(stored["ours"], stored["reference"])]
    assert stored["median_ratio"]["lowest"] == pytest.approx(min(ratios))


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--only", "decod"], "invalid choice: 'decod' (choose from"),
        (["--rounds", "0"], "--rounds 0: expected 1 or more"),
        (["--json", "nowhere/figures.json"], "--json nowhere/figures.json: no such folder"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(
    arguments: list[str], what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "data", *arguments])
    with pytest.raises(SystemExit) as ended:
        guarded(command.main)
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == ""
    assert len(err.splitlines()) == 1 and err.startswith("error: ") and what in err
