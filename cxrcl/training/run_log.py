"""log.txt of a run: what the terminal said, of every start, with the time."""

from __future__ import annotations

import logging
import traceback
import warnings
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from cxrcl.errors import DataError, UserError

NAME = "log.txt"


def utc_now() -> str:
    """The time as ISO 8601, to the second: 2026-01-31T23:59:59Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class RunLog(logging.Handler, AbstractContextManager["RunLog"]):
    """While it is entered, lines of the package, warnings of all libraries, and the error that ends the run.

    They are kept until `open` names the folder, since much is said before it is chosen, and appended to log.txt from
    then on, a line at a time: of several processes each writes there what it alone says. A disk that cannot be written
    to ends no run.

    Args:
        process: number of this process; lines of others than the first begin with it.
    """

    def __init__(self, process: int = 0) -> None:
        super().__init__()
        self._process = process
        self._file: Path | None = None
        self._waiting: list[str] = []

    def open(self, folder: Path) -> None:
        """The folder of the run, which exists."""
        self._file = folder / NAME
        self._append("".join(self._waiting))
        self._waiting = []

    def emit(self, record: logging.LogRecord) -> None:
        self._write(record.getMessage())

    def __enter__(self) -> RunLog:
        self._show = warnings.showwarning
        warnings.showwarning = self._warned  # type: ignore[assignment]
        logging.getLogger("cxrcl").addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger("cxrcl").removeHandler(self)
        warnings.showwarning = self._show
        # A mistake is found by all processes, and damaged data by one of them.
        if isinstance(error, UserError) and (self._process == 0 or isinstance(error, DataError)):
            self._write(f"error: {error}")
        elif isinstance(error, KeyboardInterrupt):
            self._write("error: interrupted")
        elif isinstance(error, Exception) and not isinstance(error, UserError):
            self._write("".join(traceback.format_exception(error)).rstrip())

    def _warned(self, message: Any, category: Any, filename: str, lineno: int, *rest: Any) -> None:
        self._show(message, category, filename, lineno, *rest)
        self._write(f"{category.__name__}: {message} ({filename}:{lineno})")

    def _write(self, text: str) -> None:
        of = f"process {self._process}: " if self._process else ""
        line = f"{utc_now()} {of}{text}\n"
        if self._file is None:
            self._waiting.append(line)
        else:
            self._append(line)

    def _append(self, text: str) -> None:
        try:
            if text and self._file is not None:
                with self._file.open("a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(text)
        except OSError:  # what matters is printed as well
            pass
