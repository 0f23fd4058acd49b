"""Published lists of films that say what is trained on, chosen on and scored, in place of the column `split`.

A folder with `train.txt`, `val.txt` (or `valid.txt`) and `test.txt`: UTF-8, one film a line, blank lines left out. For
a fraction of the training films there is a list of its own, `train_1.txt` for 1 %. These are the names in the BenchX
repository (Zhou et al. 2024, `preprocess/datasets/<set>`). A line is the film's path below any folder, its file name,
or its name without the suffix.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from cxrcl.data.image_io import SUFFIXES
from cxrcl.data.manifest import Manifest
from cxrcl.errors import ConfigError, DataError

_SUFFIX = re.compile("|".join(re.escape(suffix) + "$" for suffix in SUFFIXES), re.IGNORECASE)
_TWICE = -1  # in place of a row: several films go by this name


def apply_lists(manifest: Manifest, folder: Path, fraction: float = 1.0) -> tuple[Manifest, str]:
    """The listed films with the split of their list, in the manifest's order; and a line that counts them.

    Args:
        fraction: which list of training films: `train.txt` at 1, `train_10.txt` at 0.1.

    Raises:
        ConfigError: a list is missing.
        DataError: a listed film is not in the manifest, or could be two of it, or stands in two lists.
    """
    files = _files(folder, fraction)
    names = manifest.rows["image"].tolist()
    listed = {split: _names(file) for split, file in files.items()}
    depths = {name.count("/") + 1 for lines in listed.values() for _, name in lines}
    rows_by_name = {depth: _by_last_parts(names, depth) for depth in depths}
    splits = np.full(len(manifest), "", dtype=object)
    for split, file in files.items():
        found = [rows_by_name[name.count("/") + 1].get(name) for _, name in listed[split]]
        for what, bad in (("are not in the manifest", None), ("are the name of several films", _TWICE)):
            lines = [line for (line, _), row in zip(listed[split], found, strict=True) if row == bad]
            if lines:
                raise DataError(
                    f"{file}: {len(lines)} of {len(found)} films {what}, first at line {lines[0]}: expected on each "
                    "line the name of a film in the column image, with or without its folders and suffix"
                )
        rows = np.array(found, dtype=int)
        other = next((name for name in splits[rows] if name not in ("", split)), None)
        if other is not None:
            line = listed[split][int(np.flatnonzero(splits[rows] == other)[0])][0]
            count = int((splits[rows] == other).sum())
            raise DataError(
                f"{file}: {count} films stand in {files[other].name} as well, first at line {line}: take them out of "
                "one of the lists"
            )
        splits[rows] = split
    counts = ", ".join(f"{split} {(splits == split).sum():,} ({file.name})" for split, file in files.items())
    split_of = replace(manifest, rows=manifest.rows.assign(split=splits))
    kept = split_of.take(splits != "")
    return kept, f"lists of {folder}: {counts}; {len(manifest) - len(kept):,} films are in none of them and left out"


def _files(folder: Path, fraction: float) -> dict[str, Path]:
    if not folder.is_dir():
        raise ConfigError(f"data.split_lists={folder}: no such folder")
    percent = float(Fraction(str(fraction)) * 100)
    train = "train.txt" if fraction == 1 else f"train_{percent:g}.txt"
    valid = "valid.txt" if (folder / "valid.txt").is_file() else "val.txt"
    files = {"train": folder / train, "valid": folder / valid, "test": folder / "test.txt"}
    if absent := [file.name for file in files.values() if not file.is_file()]:
        there = sorted(file.name for file in folder.glob("*.txt"))
        hint = f" for data.fraction={fraction:g}" if train in absent and fraction < 1 else ""
        raise ConfigError(
            f"data.split_lists={folder}: no {', '.join(absent)}{hint} (lists there: {', '.join(there) or 'none'})"
        )
    return files


def _names(file: Path) -> list[tuple[int, str]]:
    """The number of each line that is not blank, and the name in it."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 at byte {error.start}: expected a text file, one film a line") from None
    found = [(number, _key(line.strip())) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise DataError(f"{file}: names no film: expected one a line")
    return found


def _key(name: str) -> str:
    return _SUFFIX.sub("", name.replace("\\", "/").removeprefix("./"))


def _by_last_parts(images: Sequence[str], parts: int) -> dict[str, int]:
    """Rows by the last `parts` parts of the film's path without its suffix."""
    keys = ["/".join(_key(name).rsplit("/", parts)[-parts:]) for name in images]
    counts = Counter(keys)
    return {key: row if counts[key] == 1 else _TWICE for row, key in enumerate(keys)}
