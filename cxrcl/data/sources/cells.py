"""What the cells of tables say, however they spell it: blanks, label values, names of labels and of splits."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxrcl.data.labels import CHEXPERT, NO_FINDING
from cxrcl.errors import DataError

BLANK = ("", "nan", "none", "null", "n/a")
_LABELS = {"1": "1", "1.0": "1", "true": "1", "0": "0", "0.0": "0", "false": "0", "-1": "-1", "-1.0": "-1"}
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "validate", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def is_blank(cells: pd.Series) -> pd.Series:
    return cells.str.strip().str.lower().isin(BLANK)


def filled(cells: pd.Series) -> pd.Series:
    """Cells without space around them; 'nan' and the like become ''."""
    return cells.str.strip().mask(is_blank(cells), "")


def relative_paths(cells: pd.Series, folder: Path) -> pd.Series:
    """Paths below a folder: '/' between the parts, without a leading ./ or the path of the folder itself."""
    paths = cells.str.strip().str.replace("\\", "/", regex=False).str.removeprefix("./")
    for prefix in (folder, folder.resolve()):
        paths = paths.str.removeprefix(f"{prefix.as_posix()}/")
    return paths


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


def literal_list(cell: str) -> list[Any] | None:
    """The list in a cell that pandas wrote one to, such as "['a', 'b']"; None where it is none."""
    try:
        value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, list) else None


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
