"""CSV files of predictions and labels, matched by the names of their columns and rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cxrcl import files as csv_file
from cxrcl.errors import DataError

# Columns that manifests use for other things.
NOT_LABELS = ("image", "patient", "study", "view", "split", "findings", "impression", "text", "sex", "age", "source")


@dataclass(frozen=True)
class Table:
    """A CSV file: one row an image, columns of str with '' for blank."""

    file: Path
    rows: pd.DataFrame
    id_column: str
    sha256: str

    @property
    def names(self) -> list[str]:
        return list(self.rows.columns)

    @property
    def ids(self) -> pd.Series:
        return self.rows[self.id_column]

    def column(self, name: str) -> list[str]:
        """The values of a column, without blanks around them.

        Raises:
            DataError: there is no such column.
        """
        if name not in self.rows:
            raise DataError(f"{self.file}: no column {name}; found: {', '.join(self.names)}")
        return self.rows[name].str.strip().tolist()


def read(file: Path, id_column: str, once_by: Sequence[str] = ()) -> Table:
    """The table in a CSV file, or in manifest.csv of a folder. Blanks around the names of images are taken off.

    Args:
        once_by: further columns: an image stands there once for each of their values.

    Raises:
        DataError: one line with what was found and expected.
    """
    if file.is_dir():
        file = file / "manifest.csv"
    rows = csv_file.read(file)
    csv_file.refuse_repeated_columns(file)
    if id_column not in rows:
        columns = ", ".join(rows.columns)
        raise DataError(f"{file}: no column {id_column} to match rows by; found: {columns}. Name it with --id-column")
    if rows.empty:
        raise DataError(f"{file}: 0 rows")
    keys = [id_column, *once_by]
    table = Table(file, rows, id_column, hashlib.sha256(file.read_bytes()).hexdigest())
    rows[keys] = np.array([table.column(name) for name in keys], dtype=object).T
    for name in keys:
        _refuse(table, (rows[name] == "").to_numpy(), f"{name} is blank", "every row needs one")
    and_by = "".join(f" and {name}" for name in once_by)
    repeated = rows.duplicated(keys).to_numpy()
    _refuse(
        table, repeated, f"{id_column}{and_by} {'are' if once_by else 'is'} repeated", f"keep one row an image{and_by}"
    )
    return table


def _refuse(table: Table, bad: np.ndarray, fault: str, remedy: str) -> None:
    """Raise DataError where any row is bad, bool [N]."""
    if bad.any():
        places = np.flatnonzero(bad)
        rows = f"{len(places)} row{'s' if len(places) > 1 else ''}, first at row {places[0] + 2}"
        raise DataError(f"{table.file}: {fault} in {rows}: {remedy}")


def of_splits(table: Table, splits: Sequence[str] | None) -> Table:
    """The rows of these splits. None takes all, and is refused where there are several."""
    if splits is None:
        present = sorted(set(table.column("split"))) if "split" in table.rows else []
        if len(present) > 1:
            raise DataError(f"{table.file} has the splits {', '.join(present)}: choose with --split, such as test")
        return table
    values = pd.Series(table.column("split"))
    if absent := [name for name in splits if name not in set(values)]:
        raise DataError(f"{table.file}: no row of split {', '.join(absent)}; it has {', '.join(sorted(set(values)))}")
    return replace(table, rows=table.rows[values.isin(list(splits)).to_numpy()].reset_index(drop=True))


def shared_labels(
    predictions: Sequence[Table], labels: Table, keep: Sequence[str] | None, other: Sequence[str]
) -> tuple[tuple[str, ...], list[str]]:
    """The labels that every file has, in the order of the labels file, and notes on columns left out.

    Args:
        keep: these only.
        other: columns with another meaning.

    Raises:
        DataError: no label is left, a label of `keep` is missing, or names differ in their writing only.
    """
    reserved = {*NOT_LABELS, *other}

    def offered(table: Table) -> list[str]:
        return [name for name in table.names if name not in reserved]

    if keep is not None:
        for table in (*predictions, labels):
            if missing := [name for name in keep if name not in offered(table)]:
                found = ", ".join(offered(table))
                raise DataError(f"--labels-keep: {table.file} has no column {', '.join(missing)}; found: {found}")
        return tuple(keep), []
    label_names, notes = offered(labels), []
    for table in predictions:
        unknown = [name for name in offered(table) if name not in label_names]
        for name in unknown:
            like = [label for label in label_names if label not in table.names and _bare(label) == _bare(name)]
            if like:
                raise DataError(f"{table.file}: column {name!r} is written {like[0]!r} in {labels.file}: rename one")
        if unknown:
            notes.append(f"{table.file.name}: not scored, no such label: {', '.join(unknown)}")
    shared = tuple(name for name in label_names if all(name in table.rows for table in predictions))
    if not shared:
        raise DataError(
            f"{predictions[0].file} and {labels.file} share no label; "
            f"predictions: {', '.join(offered(predictions[0])) or 'none'}; labels: {', '.join(label_names)}"
        )
    lacking = [name for name in label_names if name not in shared and _is_label(labels.rows[name])]
    if lacking:
        notes.append(f"labels left out, not in every file of predictions: {', '.join(lacking)}")
    return shared, notes


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _numbers(text: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Cells as float64 [N], nan where one is no number, and bool [N] of the blank cells."""
    text = text.str.strip()
    blank = text.str.lower().isin(["", "nan"]).to_numpy()
    return pd.to_numeric(text, errors="coerce").to_numpy(dtype=float), blank


def _labels(text: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """As `_numbers`; True and False are 1 and 0."""
    return _numbers(text.str.strip().str.lower().replace({"true": "1", "false": "0"}))


def _is_label(values: pd.Series) -> bool:
    numbers, blank = _labels(values)
    return bool((np.isin(numbers, (-1, 0, 1)) | blank).all())


def label_values(table: Table, labels: Sequence[str]) -> np.ndarray:
    """Labels float64 [N, C] of 1, 0 and nan. Uncertain ones (-1) become unknown.

    Raises:
        DataError: another value.
    """
    array = np.empty((len(table.rows), len(labels)))
    for k, name in enumerate(labels):
        values, blank = _labels(table.rows[name])
        wrong = ~np.isin(values, (-1, 0, 1)) & ~blank
        shown = table.rows[name].to_numpy()[wrong][0] if wrong.any() else ""
        _refuse(table, wrong, f"label {name!r} is {shown!r}", "labels are 1, 0, -1, True, False or blank")
        array[:, k] = np.where(values == -1, np.nan, values)
    return array


def scores(table: Table, labels: Sequence[str], ids: pd.Series) -> np.ndarray:
    """Scores float64 [N, C] of these images in their order; rows of other images are left out.

    Raises:
        DataError: an image without a row, or a score that is no finite number.
    """
    place = pd.Index(table.ids).get_indexer(pd.Index(ids))
    if (missing := place < 0).any():
        first = ids.to_numpy()[missing][0]
        raise DataError(
            f"{table.file}: no row for {int(missing.sum())} of {len(ids)} images, first {first!r}: "
            "add them, or choose the images to score by --split"
        )
    array = np.empty((len(ids), len(labels)))
    for k, name in enumerate(labels):
        values, _ = _numbers(table.rows[name])
        _refuse(table, ~np.isfinite(values), f"the score of {name!r} is no number", "give every image one")
        array[:, k] = values[place]
    return array


def model_names(files: Sequence[Path]) -> list[str]:
    """A name for each file: the shortest end of its path that tells it from the others: p, run1/p, ..."""
    for length in range(1, max(len(file.parts) for file in files) + 1):
        names = ["/".join(file.with_suffix("").parts[-length:]) for file in files]
        if len(set(names)) == len(names):
            return names
    raise DataError(f"--predictions names {files[0]} twice")


def check_apart(scored: Table, validation: Table) -> None:
    """Check that no image is scored that thresholds are fitted on.

    Raises:
        DataError: an image in both.
    """
    both = set(scored.ids) & set(validation.ids)
    if both:
        raise DataError(
            f"{len(both)} images, first {min(both)!r}, are in the scored and in the validation rows: "
            "thresholds and temperatures are fitted on other images than those scored"
        )


def digests(tables: Sequence[Table]) -> Mapping[str, str]:
    """The sha256 of each file."""
    return {str(table.file): table.sha256 for table in tables}
