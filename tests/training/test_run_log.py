"""log.txt of a run."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

from cxrcl.errors import ConfigError, DataError
from cxrcl.training.run_log import RunLog


def lines(folder: Path) -> list[str]:
    """Without their times."""
    return [line.partition(" ")[2] for line in (folder / "log.txt").read_text(encoding="utf-8").splitlines()]


def test_lines_are_kept_until_the_folder_is_chosen(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("cxrcl.anything")
    with RunLog() as run:
        logger.info("before")
        assert list(tmp_path.iterdir()) == []
        run.open(tmp_path)
        run.emit(logging.makeLogRecord({"msg": "a lung\nof two lines \udcff"}))
        with pytest.warns(UserWarning, match="of a library"):
            warnings.warn("caught by its caller: of a library", stacklevel=1)
    logger.info("after the run")
    assert lines(tmp_path)[0] == "before" and len(lines(tmp_path)) == 3 and "after" not in "".join(lines(tmp_path))
    with RunLog() as run:
        run.open(tmp_path)
        logger.info("again")
    assert lines(tmp_path)[0] == "before" and lines(tmp_path)[-1] == "again"


def test_warnings_of_every_process_are_kept_and_still_shown(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *rest: shown.append(str(message)))
    for process in (0, 3):
        with RunLog(process) as run:
            run.open(tmp_path)
            warnings.warn(f"odd {process}", stacklevel=1)
    assert shown == ["odd 0", "odd 3"]
    assert [line.partition(" (")[0] for line in lines(tmp_path)] == [
        "UserWarning: odd 0",
        "process 3: UserWarning: odd 3",
    ]


@pytest.mark.parametrize(
    ("error", "process", "last"),
    [
        (ConfigError("a mistake"), 0, "error: a mistake"),
        (ConfigError("a mistake"), 1, "begun"),  # the first process says it
        (DataError("damaged"), 1, "process 1: error: damaged"),
        (KeyboardInterrupt(), 0, "error: interrupted"),
    ],
)
def test_the_error_that_ends_a_run_is_its_last_line(
    error: BaseException, process: int, last: str, tmp_path: Path
) -> None:
    (tmp_path / "log.txt").write_text("2026-01-01T00:00:00Z begun\n")
    with pytest.raises(type(error)), RunLog(process) as run:
        run.open(tmp_path)
        raise error
    assert lines(tmp_path)[-1] == last


def test_a_defect_is_kept_with_its_trace(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunLog() as run:
        run.open(tmp_path)
        raise ZeroDivisionError("nothing by nothing")
    text = (tmp_path / "log.txt").read_text()
    assert "Traceback" in text and "nothing by nothing" in text and "test_run_log.py" in text
