"""Where the lines go that the package says: once, to the terminal of a command, and nowhere when used as a library."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import pytest
from helpers import in_processes

from cxrcl.commands.entry import guarded
from cxrcl.distributed import Runtime


def _said(runtime: Runtime, folder: Path) -> list[str]:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("cxrcl").addHandler(handler)
    for level in (logging.WARNING, logging.ERROR):
        logging.getLogger("cxrcl.app.train").log(level, f"{logging.getLevelName(level)} of process {runtime.rank}")
    return lines


def test_what_every_process_would_say_is_said_by_the_first(tmp_path: Path) -> None:
    first, second = in_processes(2, _said, tmp_path)
    assert first == ["WARNING of process 0", "ERROR of process 0"] and second == ["ERROR of process 1"]


def test_a_command_prints_the_lines_and_a_library_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("cxrcl.app.train")
    logger.info("before")
    guarded(lambda: logger.info("during"))
    logger.info("after")
    assert capsys.readouterr() == ("during\n", "")


def test_a_line_that_cannot_be_printed_ends_the_command_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(SystemExit):
        guarded(lambda: logging.getLogger("cxrcl.app.train").info("a line"))
    assert capsys.readouterr().err == "error: No space left on device\n"


def test_a_package_that_configures_logging_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stderr)
    root.addHandler(handler)
    try:
        guarded(lambda: logging.getLogger("cxrcl.app.train").info("once"))
    finally:
        root.removeHandler(handler)
    assert capsys.readouterr() == ("once\n", "")
    assert logging.getLogger("cxrcl").propagate
