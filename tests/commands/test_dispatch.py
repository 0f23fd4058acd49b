"""`cxrcl NAME`, which is `python -m cxrcl NAME`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from cxrcl.commands import dispatch, entry
from cxrcl.commands.entry import spelled

NAMES = [
    "benchmark",
    "demo",
    "evaluate",
    "explain",
    "export",
    "finetune",
    "inference",
    "negation_pairs",
    "pack",
    "prepare",
    "results",
    "score",
    "train",
]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "cxrcl", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, cwd=ROOT)


def test_every_command_is_found_with_a_line_of_help() -> None:
    commands = dispatch.commands()
    assert list(commands) == NAMES and all(commands.values())


def test_without_a_command_all_are_listed() -> None:
    done = run("--help")
    assert done.returncode == 0 and all(f"  {name} " in done.stdout for name in NAMES)
    assert run().returncode == 1


def test_a_misspelt_command_is_answered_with_the_nearest() -> None:
    done = run("evalaute")
    assert done.returncode == 2 and done.stderr == "error: evalaute: no such command (did you mean `evaluate`?)\n"


def test_options_go_to_the_command() -> None:
    done = run("score", "--help")
    assert done.returncode == 0 and "--predictions" in done.stdout


def test_a_mistake_in_a_setting_is_one_line() -> None:
    done = run("train", "trainer.max_stepz=1")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert "did you mean `trainer.max_steps`" in done.stderr


def test_commands_are_printed_as_they_are_typed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (spelled("evaluate"), spelled("pack")) == ("python evaluate.py", "python scripts/pack.py")
    monkeypatch.setattr(entry, "config_folder", lambda: tmp_path / "site-packages" / "cxrcl" / "configs")
    assert (spelled("evaluate"), spelled("pack")) == ("cxrcl evaluate", "cxrcl pack")
