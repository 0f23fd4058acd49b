"""Files: written whole or not at all, looked at before they are read, and CSV without what pandas lets pass."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from cxrcl.errors import DataError, first_line

# Not any '<': a vocabulary may begin with the token <pad>.
_WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml)", re.IGNORECASE)
_AS_WRITTEN: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}  # to pandas


@contextmanager
def replaced(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write, which appears under its name when it is whole and on the disk: readers see the old or the new.

    Args:
        mode: permissions of the new file, which the umask narrows.

    Raises:
        OSError: the disk is full or the folder not writable; an earlier file at `path` is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def download_fault(head: bytes) -> str | None:
    """What a download left in place of a file, by its first bytes, and the remedy; None where nothing is known.

    >>> download_fault(b"<!DOCTYPE html>")
    'a web page: download it again'
    """
    if not head:
        return "empty: download it again"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer: run `git lfs pull` in the folder"
    if _WEB_PAGE.match(head):
        return "a web page: download it again"
    return None


def read(file: Path, separator: str = ",", header: bool = True, hint: str = "") -> pd.DataFrame:
    """A table of strings: '007' is not 7, and a blank cell is '' and not 'nan'. Packed files (.gz) as well.

    Args:
        header: whether the first line names the columns; else they are named '0', '1', ...
        hint: what to do when there is no such file.

    Raises:
        DataError: one line with what was found and expected.
    """
    if not file.is_file():
        raise DataError(f"{file}: not found{f': {hint}' if hint else ''}")
    try:
        table = pd.read_csv(file, sep=separator, header=0 if header else None, **_AS_WRITTEN)
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 at byte {error.start}: save it as UTF-8") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{file}: the file is empty") from None
    except (pd.errors.ParserError, OSError, EOFError) as error:
        raise DataError(f"{file}: not a readable CSV: {first_line(error)}") from None
    table.columns = [str(name).strip() for name in table.columns]
    # pandas takes the first column of longer rows for names of rows, and shifts the rest
    if not isinstance(table.index, pd.RangeIndex):
        raise DataError(f"{file}: rows have more cells than the {len(table.columns)} columns of the header")
    other = [mark for mark in ";\t|," if mark != separator and mark in table.columns[0]]
    if len(table.columns) == 1 and other:
        raise DataError(
            f"{file}: one single column {table.columns[0]!r}: its separator is {other[0]!r}, not {separator!r}"
        )
    return table


def refuse_repeated_columns(file: Path) -> None:
    """Raises DataError where two columns share a name: pandas calls the second 'Edema.1' without a word."""
    first = pd.read_csv(file, header=None, nrows=1, **_AS_WRITTEN)
    names = [name.strip() for name in first.iloc[0]]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{file}: column {', '.join(twice)} stands there more than once")
