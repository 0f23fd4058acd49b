"""The pairs of the scored images, from a CSV file with the columns image, affirmed, negated, and as there may be:

`unit` says what a text is (`report`, `sentence` or a word of the user's), `finding` what it speaks of, and `direction`
which text is true: `to_absent`, the default, where the image shows the finding and the affirmed text is its own;
`to_present` where it lacks it and the negated text is its own. `omitted` is the own text without the finding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cxrcl import files
from cxrcl.errors import DataError
from cxrcl.types import NEGATION_PAIRS, EvalData

NEEDED = ("image", "affirmed", "negated")
DEFAULTS = {"unit": "report", "finding": "", "direction": "to_absent", "omitted": ""}
DIRECTIONS = ("to_absent", "to_present")
COMMAND = "python scripts/negation_pairs.py"


def read_pairs(data: EvalData, splits: Sequence[str], file: str | None) -> tuple[pd.DataFrame, str]:
    """The pairs of the images of some splits, and the hash of the files they come from.

    Args:
        file: a CSV file; None takes negation.csv beside each manifest.

    Returns:
        Columns `row` (of the image in the pooled splits), `patient`, `unit`, `finding`, `direction`, and the texts
        `own`, `turned`, `affirmed`, `negated`, `omitted`; 16 hex digits of sha256.

    Raises:
        DataError: there is no such file, or none of its rows is of a scored image, or a cell is wrong.
    """
    names = [name for split in splits for name in data.column(split, "image")]
    patients = [name for split in splits for name in data.column(split, "patient")]
    if file is not None:
        folders, paths = [""] * len(names), [Path(file).expanduser()]
        if len(set(names)) < len(names):
            raise DataError(f"pairs={file}: two scored images of different sources have the same name: set pairs=null")
    else:
        folders = [
            path.removesuffix(name).rstrip("/")
            for split in splits
            for path, name in zip(data.column(split, "path"), data.column(split, "image"))
        ]
        paths = [Path(folder) / NEGATION_PAIRS for folder in dict.fromkeys(folders)]
        there = [path for path in paths if path.is_file()]
        if not there:
            raise DataError(
                f"{paths[0]}: not found: `{COMMAND} '{paths[0].parent}'` makes pairs of its reports, or name a file of "
                "your own with evals.negation.pairs=FILE"
            )
        paths = there
    images = pd.DataFrame({"folder": folders, "image": names, "patient": patients, "row": range(len(names))})
    tables = [_read(path).assign(folder="" if file is not None else str(path.parent)) for path in paths]
    pairs = pd.concat(tables, ignore_index=True).merge(images, on=["folder", "image"])
    if pairs.empty:
        raise DataError(f"{paths[0]}: none of its {sum(map(len, tables))} pairs is of an image of {', '.join(splits)}")
    pairs = pairs.sort_values("row", kind="stable", ignore_index=True)
    is_present = pairs["direction"] == "to_absent"
    pairs["own"] = pairs["affirmed"].where(is_present, pairs["negated"])
    pairs["turned"] = pairs["negated"].where(is_present, pairs["affirmed"])
    return pairs, hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def _read(file: Path) -> pd.DataFrame:
    """The checked rows of one file, all columns there."""
    table = files.read(file, hint=f"a CSV with the columns {', '.join(NEEDED)} is expected")
    missing = [name for name in NEEDED if name not in table]
    if missing:
        raise DataError(f"{file}: no column {', '.join(missing)}; found: {', '.join(map(str, table.columns))}")
    table = table[[name for name in (*NEEDED, *DEFAULTS) if name in table]].apply(lambda column: column.str.strip())
    table = table.assign(**{name: value for name, value in DEFAULTS.items() if name not in table})
    for name in NEEDED:
        if (blank := table[name] == "").any():
            raise DataError(f"{file}: blank {name} in row {int(blank.to_numpy().argmax()) + 2}")
    if (wrong := ~table["direction"].isin(DIRECTIONS)).any():
        place = int(wrong.to_numpy().argmax())
        raise DataError(
            f"{file}: direction {table['direction'].iloc[place]!r} in row {place + 2}: expected to_absent (the "
            "affirmed text is true of the image) or to_present (the negated one is)"
        )
    if (same := table["affirmed"] == table["negated"]).any():
        raise DataError(f"{file}: affirmed and negated are the same text in row {int(same.to_numpy().argmax()) + 2}")
    return table
