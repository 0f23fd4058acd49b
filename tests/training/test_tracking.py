"""Where figures go."""

from __future__ import annotations

import json
import math
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cxrcl.training.tracking import FileTracker, Tracker, duration


def lines(folder: Path) -> list[dict[str, float | None]]:
    """metrics.jsonl, but for the times, which are no figures."""
    content = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    now = datetime.now(UTC)
    assert all(timedelta(0) <= now - datetime.fromisoformat(line["time"]) < timedelta(minutes=1) for line in content)
    return [{name: value for name, value in line.items() if name != "time"} for line in content]


def test_every_figure_becomes_a_line_of_json_and_nan_becomes_null(tmp_path: Path) -> None:
    tracker = FileTracker(tmp_path / "räume", 1)
    tracker.metrics(1, {"train/loss": 2.5, "a/b": math.nan})
    tracker.metrics(2, {"train/loss": 1.5})
    assert lines(tmp_path / "räume") == [{"step": 1, "train/loss": 2.5, "a/b": None}, {"step": 2, "train/loss": 1.5}]
    tracker.close()
    later = FileTracker(tmp_path / "räume", 1)
    later.metrics(3, {"train/loss": 0.5})
    later.close()
    assert [line["step"] for line in lines(tmp_path / "räume")] == [1, 2, 3]


def test_tensorboard_can_read_the_figures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = FileTracker(tmp_path, 1)
    tracker.metrics(5, {"train/loss": 2.5})
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(5, 2.5)]


def test_without_a_terminal_lines_are_printed_at_intervals_and_at_the_end(
    tmp_path: Path, log: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = FileTracker(tmp_path, 3)
    tracker.begin(0, 7, 8)
    for step in range(1, 8):
        tracker.metrics(step, {"train/loss": 1.0}, show=f"loss {step}")
        tracker.step(step)
    tracker.say("done")
    tracker.close()
    *steps, last = log.messages
    assert [re.findall(r"(\d)/7", line) for line in steps] == [["3"], ["6"], ["7"]] and last == "done"
    assert "loss 6" in steps[1] and "images/s" in steps[1] and "0:00" in steps[2]
    assert capsys.readouterr() == ("", "")


def test_at_a_terminal_a_live_bar_is_drawn_instead(
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    tracker = FileTracker(tmp_path, 1)
    tracker.begin(2, 5, 8)
    for step in range(3, 6):
        tracker.metrics(step, {"train/loss": 1.0}, show=f"loss {step}")
        tracker.step(step)
    tracker.say("said")
    tracker.close()
    err = capsys.readouterr().err
    assert log.messages == ["said"]
    assert "2/5" in err and "\r" in err and "loss 5" in err


def test_the_null_tracker_writes_nothing(log: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker()
    tracker.begin(0, 1, 1)
    tracker.metrics(1, {"a": 1.0})
    tracker.step(1)
    tracker.say("x")
    tracker.close()
    assert not log.messages and capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3661, "1:01:01")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
