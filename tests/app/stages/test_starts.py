"""The folder of a run tells what was run, each time that it was started."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import said
from helpers import ROOT
from tiny import TINY_RUN, TINY_TEXT

import cxrcl
from cxrcl.app import provenance
from cxrcl.commands.hydra import compose

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture
def words(tiny_set: Path, tmp_path: Path) -> list[str]:
    """The words of a command that trains for two steps."""
    return [*TINY_RUN, *TINY_TEXT, "evals=[]", f"data.root='{tiny_set}'", f"run_dir='{tmp_path / 'a run'}'"]


def starts_of(folder: Path) -> list[dict[str, Any]]:
    starts: list[dict[str, Any]] = yaml.safe_load((folder / "starts.yaml").read_text(encoding="utf-8"))
    return starts


def test_every_start_is_recorded_and_none_is_overwritten(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a run"
    monkeypatch.setattr(
        provenance,
        "code_of",
        lambda package: provenance.Code("1.2", "c0ffee", ("cxrcl/x.py",), b"--- a\n+++ b\n", "ab" * 32),
    )
    said("train", *words, "trainer.save_every_steps=1")
    values = compose("train", [*words, "trainer.save_every_steps=1"])
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")) == values
    first = (folder / "starts.yaml").read_bytes()
    (start,) = starts_of(folder)
    assert re.fullmatch(TIME, start["time"]) and start["from_step"] == 0 and "changed_settings" not in start
    assert start["overrides"] == [*words, "trainer.save_every_steps=1"]
    assert start["command"].startswith("python train.py data.num_workers=0 ") and start["folder"] == str(Path.cwd())
    assert start["code"]["cxrcl"]["commit"] == "c0ffee" and start["environment"]["processes"] == 1
    assert (folder / start["code"]["cxrcl"]["patch"]).read_bytes() == b"--- a\n+++ b\n"
    logged = (folder / "log.txt").read_text(encoding="utf-8")
    assert all(re.match(f"{TIME} ", line) for line in logged.splitlines()) and "writes to" in logged

    said("train", *words, "trainer.save_every_steps=1", "trainer.log_every=7")
    assert (folder / "starts.yaml").read_bytes().startswith(first)
    again = starts_of(folder)[1]
    assert again["from_step"] == 2 and again["changed_settings"] == {"trainer.log_every": {"before": 20, "now": 7}}
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["trainer"]["log_every"] == 7
    assert (folder / "log.txt").read_text(encoding="utf-8").startswith(logged)
    assert "already complete" in (folder / "log.txt").read_text(encoding="utf-8")[len(logged) :]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines and all(re.fullmatch(TIME, line["time"]) for line in lines)


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="not a git checkout")
def test_the_commit_of_this_checkout_is_recorded(words: list[str], tmp_path: Path) -> None:
    said("train", *words)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    found = starts_of(tmp_path / "a run")[0]["code"]["cxrcl"]
    assert found["commit"] == head and found["version"] == cxrcl.__version__


def test_a_record_that_cannot_be_written_ends_no_run(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "a run" / "starts.yaml").mkdir(parents=True)
    (tmp_path / "a run" / "log.txt").mkdir()
    printed = said("train", *words)
    assert "starts.yaml: not written" in printed and (tmp_path / "a run" / "checkpoints" / "last.pt").is_file()


def test_what_ended_a_run_stands_in_its_log(words: list[str], tmp_path: Path) -> None:
    printed = said("train", *words, "optimizer.lr=1e30", "trainer.log_every=1", "trainer.max_steps=9", status=1)
    error = printed.splitlines()[-1].removeprefix("error: ")
    assert "not finite" in error or "non-finite" in error
    assert error in " ".join((tmp_path / "a run" / "log.txt").read_text(encoding="utf-8").split())
