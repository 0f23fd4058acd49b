"""The one table that every data set is turned into: a CSV with one image a row.

Columns: `image` (path relative to the manifest's folder, also into a zip file: `archive.zip!/inside/image.png`),
`patient`, `study`, `view`, `split` (train, valid, test); optional `findings`, `impression`, `text`,
`text_augment` (the whole report in other words), `sex`, `age`, `source`; every other column is a label with the values
1 (present), 0 (absent), -1 (uncertain) or blank (the source does not say).
"""

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

REQUIRED = ("image", "patient", "study", "view", "split")
OPTIONAL = ("findings", "impression", "text", "text_augment", "sex", "age", "source")
SPLITS = ("train", "valid", "test")
FILE_NAME = "manifest.csv"
ROOT = "root"  # the part of rows of `data.root=DIR`: where they lie, and no name of a source
FEW_VALUES = ("view", "split", "sex", "source", "part")


@dataclass(frozen=True)
class Manifest:
    """Checked rows of one or several sources.

    Attributes:
        rows: one image a row, columns of str with '' for blank; `path` holds the image's absolute path, `line` the
            (int) row of the file, its header being row 1, and `part` the key of its source ('' before `merge`).
        labels: label names, the columns of `values`.
        values: label values, float32 [rows, C] of 1, 0, -1, nan, uncertain ones replaced by the policy.
        stated: float32 [rows, C], the values as the source has them: texts are made from these.
    """

    rows: pd.DataFrame
    labels: tuple[str, ...]
    values: np.ndarray
    stated: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.stated is None:
            object.__setattr__(self, "stated", self.values)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def paths(self) -> np.ndarray:
        """The column `path`, str [rows]."""
        return self.rows["path"].to_numpy(dtype=str)

    @property
    def lines(self) -> np.ndarray:
        """The column `line`, int64 [rows]: rows of the CSV, for messages."""
        return self.rows["line"].to_numpy(dtype=np.int64)

    def take(self, keep: np.ndarray) -> Manifest:
        """The rows that `keep` chooses: bool [rows], or positions int64 [n]."""
        positions = np.flatnonzero(keep) if keep.dtype == bool else keep
        rows = self.rows.iloc[positions].reset_index(drop=True)
        return Manifest(rows, self.labels, self.values[positions], self.stated[positions])

    def split(self, name: str) -> Manifest:
        """The rows of a split."""
        return self.take((self.rows["split"] == name).to_numpy())

    def with_labels(self, labels: Sequence[str]) -> Manifest:
        """The same rows with exactly these labels in this order, nan where there is no such column."""
        values, stated = (np.full((len(self), len(labels)), np.nan, dtype=np.float32) for _ in range(2))
        for column, name in enumerate(labels):
            if name in self.labels:
                values[:, column] = self.values[:, self.labels.index(name)]
                stated[:, column] = self.stated[:, self.labels.index(name)]
        return Manifest(self.rows, tuple(labels), values, stated)

    def fingerprint(self) -> str:
        """16 hex digits that change when images, patients, splits, texts or labels change."""
        digest = hashlib.sha256(",".join(self.labels).encode())
        columns = [c for c in (*REQUIRED, "findings", "impression", "text", "text_augment") if c in self.rows]
        for value in pd.util.hash_pandas_object(self.rows[columns], index=False).to_numpy():
            digest.update(value.tobytes())
        digest.update(self.values.tobytes())
        digest.update(self.stated.tobytes())
        return digest.hexdigest()[:16]


def _read_table(file: Path) -> pd.DataFrame:
    table = csv_file.read(file, hint="a folder with manifest.csv is expected; scripts/prepare.py makes one")
    csv_file.refuse_repeated_columns(file)
    missing = [name for name in REQUIRED if name not in table]
    if missing:
        if not set(REQUIRED) & set(table.columns):  # of a file without a header these are cells of a patient
            columns = f"none of these among {len(table.columns)}; the first line has to name the columns"
        else:
            columns = f"found: {', '.join(map(str, table.columns))}. Rename or add the column"
        raise DataError(f"{file}: no column {', '.join(missing)}; {columns}")
    if table.empty:
        raise DataError(f"{file}: 0 rows")
    return table


def _rows_named(mask: np.ndarray) -> str:
    """'3 rows, first at line 2': lines as an editor counts them (the header is line 1, quoted line breaks aside)."""
    positions = np.flatnonzero(mask)
    return f"{len(positions)} row{'s' if len(positions) > 1 else ''}, first at row {positions[0] + 2}"


def _check_ids(table: pd.DataFrame, file: Path) -> None:
    for name in ("image", "patient", "study"):
        # Only different values are looked at, here and below: a column of strings is slow to work on row by row.
        blank = [value for value in table[name].unique() if value.strip().lower() in ("", "nan", "none", "null")]
        if blank:
            mask = table[name].isin(blank).to_numpy()
            raise DataError(f"{file}: blank {name} in {_rows_named(mask)}: every image needs one")
    wrong = ~table["split"].isin(SPLITS).to_numpy()
    if wrong.any():
        value = table["split"].to_numpy()[wrong][0]
        raise DataError(f"{file}: split {value!r} in {_rows_named(wrong)}: use {', '.join(SPLITS)}")
    twice = table["image"].duplicated().to_numpy()
    if twice.any():
        raise DataError(f"{file}: the same image stands in {_rows_named(twice)} again: keep one row an image")


def refuse_shared_patients(table: pd.DataFrame, where: str) -> None:
    """Refuse a patient in two splits: a model would be tested on a person it was trained on.

    Args:
        table: a manifest's rows, with the columns patient and split.
        where: what to name in the message.

    Raises:
        DataError: a patient is in two splits.
    """
    splits = table.groupby("patient", sort=True)["split"].nunique()
    shared = splits[splits > 1].index
    if len(shared):
        # Patient ids are not written to logs: short hashes let their owner find them.
        hashed = [hashlib.sha256(str(p).encode()).hexdigest()[:8] for p in shared[:3]]
        raise DataError(
            f"{where}: {len(shared)} patients stand in more than one split (sha256 of the first ids: "
            f"{', '.join(hashed)}): give each patient one split, or set check_patients=false",
            argument="check_patients",
        )


def _shown(value: str) -> str:
    """A cell for a message. One that is longer than a label may be a name or a report, and logs must hold neither."""
    return repr(value) if len(value) <= 4 else f"a text of {len(value)} characters"


def _label_values(table: pd.DataFrame, labels: Sequence[str], file: Path) -> np.ndarray:
    """float32 [rows, C] of 1, 0, -1 and nan."""
    values = np.full((len(table), len(labels)), np.nan, dtype=np.float32)
    for column, name in enumerate(labels):
        if name not in table:
            continue
        codes, different = pd.factorize(table[name])
        texts = pd.Series([value.strip() for value in different], dtype=object)
        numbers = pd.to_numeric(texts.where(texts != ""), errors="coerce").to_numpy(dtype=np.float32, na_value=np.nan)
        is_wrong = (texts != "").to_numpy() & ~np.isin(numbers, (-1, 0, 1))
        if is_wrong.any():
            rows = is_wrong[codes]
            raise DataError(
                f"{file}: label {name!r} is {_shown(texts[codes[rows][0]])} in {_rows_named(rows)}: labels are 1, 0, "
                "-1 or blank; if the column is not a label, give the names of the labels",
                argument="labels",
            )
        values[:, column] = numbers[codes]
    return values


def load(
    root: Path, labels: Sequence[str] | None = None, allow_outside_root: bool = False, check_patients: bool = True
) -> Manifest:
    """Read and check `root`/manifest.csv.

    Args:
        labels: the label columns to use, in this order, as far as they are there; None takes every column that has
            no other meaning.
        allow_outside_root: accept image paths that lead out of `root`.
        check_patients: refuse a patient in two splits.

    Raises:
        DataError: one line with the row, the value and the remedy.
    """
    file = root / FILE_NAME
    table = _read_table(file)
    _check_ids(table, file)
    if check_patients:
        refuse_shared_patients(table, str(file))
    if labels is None:
        labels = [str(c) for c in table.columns if c not in (*REQUIRED, *OPTIONAL)]
    else:
        labels = [name for name in labels if name in table]
    values = _label_values(table, labels, file)
    rows = table[[c for c in (*REQUIRED, *OPTIONAL) if c in table]].copy()
    rows["line"] = np.arange(2, len(rows) + 2)
    rows["path"] = _image_paths(root, rows["image"].tolist(), file, allow_outside_root)
    rows["part"] = ""
    return Manifest(rows, tuple(labels), values)


def label_columns(root: Path) -> list[str]:
    """The label columns of `root`/manifest.csv: all that have no other meaning."""
    header = pd.read_csv(root / FILE_NAME, nrows=0, encoding="utf-8-sig")
    return [str(name) for name in header if name not in (*REQUIRED, *OPTIONAL)]


_LEADS_OUT = re.compile(r"(?:^|[/\\])\.\.(?:[/\\]|$)|^[/\\~]|^[A-Za-z]:|\0")


def _image_paths(root: Path, images: list[str], file: Path, allow_outside_root: bool) -> list[str]:
    if not allow_outside_root:
        # The expression would take most of the time of reading a manifest: it is run only where one of its marks is.
        suspects = [k for k, x in enumerate(images) if ".." in x or x[0] in "/\\~" or x[1:2] == ":" or "\0" in x]
        outside = np.zeros(len(images), dtype=bool)
        outside[[k for k in suspects if _LEADS_OUT.search(images[k])]] = True
        if outside.any():
            raise DataError(
                f"{file}: image paths lead out of the folder in {_rows_named(outside)}: "
                "make them relative to it, or set allow_outside_root=true",
                argument="allow_outside_root",
            )
    base = str(root.resolve())
    names = [name.replace("\\", "/") for name in images]
    return [name if name[0] == "/" else f"{base}/{name}" for name in names]


def merge(parts: Mapping[str, Manifest]) -> Manifest:
    """Put the rows of several sources one after another; labels are the union, nan where a source does not have one.

    Patients and studies are told apart by source where there are several, and `patient_in_source` has the number as the
    source gives it; a column that a source does not have is '' in its rows.
    """
    parts = {key: replace(part, rows=part.rows.assign(part=key)) for key, part in parts.items()}
    if len(parts) == 1:
        return next(iter(parts.values()))
    labels = tuple(dict.fromkeys(name for part in parts.values() for name in part.labels))
    tables, values = [], []
    for key, part in parts.items():
        rows = part.rows.assign(patient_in_source=part.rows["patient"])
        for column in ("patient", "study"):
            rows[column] = f"{key}/" + rows[column]
        tables.append(rows)
        values.append(part.with_labels(labels).values)
    return Manifest(pd.concat(tables, ignore_index=True).fillna(""), labels, np.concatenate(values))


def check_studies(manifest: Manifest) -> None:
    """Refuse studies whose images differ in labels or texts: such a study cannot be one sample.

    Raises:
        DataError: how many studies differ.
    """
    columns = [c for c in ("findings", "impression", "text", "text_augment") if c in manifest.rows]
    table = manifest.rows[["patient", "study", *columns]].assign(
        **{f"label {k}": np.nan_to_num(column, nan=9.0) for k, column in enumerate(manifest.stated.T)}
    )
    differ = (table.groupby(["patient", "study"], sort=False).nunique() > 1).any(axis=1)
    if differ.any():
        raise DataError(
            f"{int(differ.sum())} studies have images with different labels or reports: give each image of a study the "
            "same ones, or make every image a sample with unit=image",
            argument="unit",
        )


def select(manifest: Manifest, views: Sequence[str] | None, filters: Mapping[str, Sequence[str]]) -> Manifest:
    """Keep rows by view and by the values of other columns, in all sources alike.

    Args:
        views: values of the column `view` to keep; None or (): all.
        filters: column -> values to keep.

    Raises:
        DataError: nothing is left, or nothing of a source, unless the filter chooses among sources (`part`): a source
            without such a column, or with other names for its views, would be lost without a word.
    """
    wanted = {**({"view": views} if views else {}), **filters}
    keep = np.ones(len(manifest), dtype=bool)
    for column, allowed in wanted.items():
        columns = [c for c in manifest.rows.columns if c not in ("path", "line", "patient_in_source")]
        if column not in columns:
            raise DataError(
                f"filters: {column}: no such column; the manifest has {', '.join(columns)}", argument="filters"
            )
        present = set(manifest.rows[column])
        absent = [value for value in allowed if value not in present]
        if absent:
            # Names of images, patients and texts are many, and no log should hold them.
            hint = f": it has {', '.join(sorted(present))}" if column in FEW_VALUES else ""
            raise DataError(f"{column} {absent[0]!r} does not occur in the data{hint}")
        keep &= manifest.rows[column].isin(list(allowed)).to_numpy()
    if not keep.any():
        raise DataError(f"no image is left after filtering by {', '.join(wanted)}")
    left = manifest.take(keep)
    lost = [key for key in manifest.rows["part"].unique() if "part" not in wanted and key not in {*left.rows["part"]}]
    if lost:
        rows = manifest.rows[manifest.rows["part"] == lost[0]]
        blank = [column for column in wanted if (rows[column] == "").all()]
        hint = f"it has no {', '.join(blank)}" if blank else f"its views: {', '.join(sorted(set(rows['view'])))}"
        raise DataError(
            f"no image of the source {lost[0]} is left after filtering by {', '.join(wanted)} ({hint}): leave out "
            "this source, or change views or filters, which hold for all sources",
            argument="views" if set(wanted) == {"view"} else "filters",
        )
    return left
