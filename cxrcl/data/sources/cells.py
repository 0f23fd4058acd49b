"""Shared by the readers of tables that users write: finding columns, reading cells, drawing splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cxrcl.data.labels import CHEXPERT, NO_FINDING
from cxrcl.data.sources.base import split_patients
from cxrcl.errors import DataError

BLANK = ("", "nan", "none", "null", "n/a")
_LABELS = {"1": "1", "1.0": "1", "true": "1", "0": "0", "0.0": "0", "false": "0", "-1": "-1", "-1.0": "-1"}
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "validate", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def the_table(source: Path, name: str) -> Path:
    """The table of a folder: the one named, else the only CSV or TSV that lies in it."""
    if name:
        return source / name
    files = sorted(path for path in source.iterdir() if re.search(r"(?i)\.(csv|tsv)(\.gz)?$", path.name))
    if len(files) != 1:
        names = ", ".join(path.name for path in files[:5]) or "none"
        raise DataError(f"{source}: {len(files)} CSV files ({names}): name the one to read with --table")
    return files[0]


def the_separator(option: str, file: Path) -> str:
    """The separator of columns: that of the option ('tab' is a word for it), else that of the file's suffix."""
    if not option:
        return "\t" if ".tsv" in file.name.lower() else ","
    mark = "\t" if option in ("tab", "\\t") else option
    if len(mark) != 1:
        raise DataError(f"--separator {option}: expected one character, or tab")
    return mark


def column(table: pd.DataFrame, name: str, option: str) -> str:
    """A column by its name in the header, else by its number from 0."""
    if name in table:
        return name
    if name.isdecimal() and int(name) < len(table.columns):
        return str(table.columns[int(name)])
    raise DataError(
        f"--{option} {name}: no such column; found: {', '.join(table.columns)} "
        f"(by name, or by number from 0 to {len(table.columns) - 1})"
    )


def columns(table: pd.DataFrame, names: str, option: str) -> list[str]:
    """Several columns, named with commas between."""
    return [column(table, name.strip(), option) for name in names.split(",") if name.strip()]


def is_blank(cells: pd.Series) -> pd.Series:
    return cells.str.strip().str.lower().isin(BLANK)


def filled(cells: pd.Series) -> pd.Series:
    """Cells without space around them; 'nan' and the like become ''."""
    return cells.str.strip().mask(is_blank(cells), "")


def as_labels(cells: pd.Series, where: str) -> pd.Series:
    """'1', '0', '-1' and '' of a label column that may hold 1.0, True or nan."""
    text = filled(cells).str.lower()
    wrong = (text != "") & ~text.isin(_LABELS)
    if wrong.any():
        raise DataError(
            f"{where}: label {cells.name!r} is {cells[wrong].iloc[0]!r} in {int(wrong.sum())} rows: "
            "expected 1, 0, -1 or blank"
        )
    return text.map(_LABELS).fillna("")


def looks_like_labels(cells: pd.Series) -> bool:
    """Whether a column holds label values only, and at least one."""
    text = filled(cells).str.lower()
    return bool((text != "").any() and ((text == "") | text.isin(_LABELS)).all())


def label_names(columns: Sequence[str], where: str) -> dict[str, str]:
    """Column -> label: CheXpert's spelling where only capitals, dashes or spaces differ; `normal` is No Finding.

    The prompts of the package have sentences for labels of that spelling.
    """
    spelling = {re.sub(r"[^a-z]", "", name.lower()): name for name in CHEXPERT} | {"normal": NO_FINDING}
    names = {name: spelling.get(re.sub(r"[\s_-]", "", name.lower()), name) for name in columns}
    for name, label in names.items():
        same = [other for other in names if names[other] == label and other != name]
        if same:
            raise DataError(f"{where}: {name!r} and {same[0]!r} are both the label {label!r}: keep one of them")
    return names


def as_splits(cells: pd.Series, where: str) -> pd.Series:
    """train, valid and test of a column that may spell them training, val, validate, dev, ..."""
    text = cells.str.strip().str.lower()
    wrong = ~text.isin(SPLIT_WORDS)
    if wrong.any():
        raise DataError(
            f"{where}: split {cells[wrong].iloc[0]!r} in {int(wrong.sum())} rows: expected train, valid or test"
        )
    return text.map(SPLIT_WORDS)


def is_split(words: pd.Series) -> pd.Series:
    """Which words spell a split."""
    return words.str.strip().str.lower().isin(SPLIT_WORDS)


def draw_splits(
    patients: pd.Series,
    own_splits: pd.Series | None,
    valid_fraction: float,
    test_fraction: float,
    seed: int,
    balanced: pd.Series | None = None,
) -> tuple[pd.Series, str]:
    """A split for each row, all rows of a patient in one.

    Args:
        patients: ids, one a row.
        own_splits: the splits of the data, or None. A missing valid split is drawn from the patients of train.
        valid_fraction, test_fraction: shares of the patients (of train's, when only valid is drawn).
        seed: of the draw.
        balanced: a column whose values should be as frequent in every split; a patient counts as the set of its values.

    Returns:
        The splits, and a note on where they are from.
    """
    if min(valid_fraction, test_fraction) < 0 or valid_fraction + test_fraction >= 1:
        fractions = f"--valid-fraction {valid_fraction:g} --test-fraction {test_fraction:g}"
        raise DataError(f"{fractions}: expected 0 or more, and together less than 1")
    rows = pd.Series(True, index=patients.index)
    shares = {"train": 1 - valid_fraction - test_fraction, "valid": valid_fraction, "test": test_fraction}
    if own_splits is not None:
        rows = own_splits == "train"
        shares = {"train": 1 - valid_fraction, "valid": valid_fraction}
        if (own_splits == "valid").any() or not rows.any() or valid_fraction == 0:
            return own_splits, "Splits: as the data has them."
    groups = None if balanced is None else _sets(patients[rows], balanced[rows])
    splits = (pd.Series("train", index=patients.index) if own_splits is None else own_splits).astype(object)
    splits[rows] = split_patients(patients[rows], shares, seed, groups)
    parts = ", ".join(f"{name} {share:g}" for name, share in shares.items())
    how = "drawn by patient" if own_splits is None else "as the data has them, but valid is drawn from train"
    even = "" if balanced is None else f", balanced by {balanced.name}"
    note = f"Splits: {how} ({parts} of the patients, seed {seed}{even})."
    return splits, note


def _sets(patients: pd.Series, values: pd.Series) -> pd.Series:
    """For each row, the different values of its patient's rows, joined: the same for all rows of a patient."""
    pairs = pd.DataFrame({"patient": patients, "value": filled(values)}).drop_duplicates().sort_values("value")
    return patients.map(pairs.groupby("patient")["value"].agg("|".join))
