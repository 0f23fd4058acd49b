"""CSV files as pandas reads them, without what it lets pass in silence."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxrcl.errors import DataError


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
        table = pd.read_csv(
            file,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            sep=separator,
            header=0 if header else None,
        )
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 at byte {error.start}: save it as UTF-8") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{file}: the file is empty") from None
    except (pd.errors.ParserError, OSError, EOFError) as error:
        raise DataError(f"{file}: not a readable CSV: {str(error).splitlines()[0]}") from None
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
    first = pd.read_csv(file, header=None, nrows=1, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    names = [name.strip() for name in first.iloc[0]]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{file}: column {', '.join(twice)} stands there more than once")
