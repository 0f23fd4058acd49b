"""Published lists of the images of train, valid and test, in place of the column `split`.

A folder with `train.txt`, `val.txt` (or `valid.txt`) and `test.txt`: UTF-8, one image a line, blank lines left out. For
a fraction of the training images there is a list of its own, `train_1.txt` for 1 %. These are the names in the BenchX
repository (Zhou et al. 2024, `preprocess/datasets/<set>`). A line is the image's path below any folder, its file name,
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

from cxrcl.data.images.image_io import SUFFIXES
from cxrcl.data.manifest import Manifest
from cxrcl.errors import ConfigError, DataError

_SUFFIX = re.compile("|".join(re.escape(suffix) + "$" for suffix in SUFFIXES), re.IGNORECASE)
_AMBIGUOUS = -1  # in place of a row: several images have this name


def apply_lists(manifest: Manifest, split_lists: Path, fraction: float = 1.0) -> tuple[Manifest, str]:
    """Keep the listed images and give them the split of their list.

    Args:
        manifest: all images.
        split_lists: the folder of the lists.
        fraction: which list of training images: `train.txt` at 1, `train_10.txt` at 0.1.

    Returns:
        The listed images in the manifest's order, and a line that counts them.

    Raises:
        ConfigError: a list is missing.
        DataError: a listed image is not in the manifest, or could be two of it, or stands in two lists.
    """
    files = _files(split_lists, fraction)
    names = manifest.rows["image"].tolist()
    listed = {split: _names(file) for split, file in files.items()}
    depths = {name.count("/") + 1 for lines in listed.values() for _, name in lines}
    rows_by_name = {depth: _by_last_parts(names, depth) for depth in depths}
    splits = np.full(len(manifest), "", dtype=object)
    for split, file in files.items():
        matches = [rows_by_name[name.count("/") + 1].get(name) for _, name in listed[split]]
        for what, bad in (("are not in the manifest", None), ("are the name of several images", _AMBIGUOUS)):
            lines = [line for (line, _), row in zip(listed[split], matches, strict=True) if row == bad]
            if lines:
                raise DataError(
                    f"{file}: {len(lines)} of {len(matches)} images {what}, first at line {lines[0]}: expected on each "
                    "line the name of an image in the column image, with or without its folders and suffix"
                )
        rows = np.array(matches, dtype=int)
        other = next((name for name in splits[rows] if name not in ("", split)), None)
        if other is not None:
            line = listed[split][int(np.flatnonzero(splits[rows] == other)[0])][0]
            count = int((splits[rows] == other).sum())
            raise DataError(
                f"{file}: {count} images stand in {files[other].name} as well, first at line {line}: take them out of "
                "one of the lists"
            )
        splits[rows] = split
    counts = ", ".join(f"{split} {(splits == split).sum():,} ({file.name})" for split, file in files.items())
    split_of = replace(manifest, rows=manifest.rows.assign(split=splits))
    kept = split_of.take(splits != "")
    return (
        kept,
        f"lists of {split_lists}: {counts}; {len(manifest) - len(kept):,} images are in none of them and left out",
    )


def _files(folder: Path, fraction: float) -> dict[str, Path]:
    if not folder.is_dir():
        raise ConfigError(f"split_lists={folder}: no such folder", argument="split_lists")
    percent = float(Fraction(str(fraction)) * 100)
    train = "train.txt" if fraction == 1 else f"train_{percent:g}.txt"
    valid = "valid.txt" if (folder / "valid.txt").is_file() else "val.txt"
    files = {"train": folder / train, "valid": folder / valid, "test": folder / "test.txt"}
    if absent := [file.name for file in files.values() if not file.is_file()]:
        there = sorted(file.name for file in folder.glob("*.txt"))
        hint = f" for fraction={fraction:g}" if train in absent and fraction < 1 else ""
        raise ConfigError(
            f"split_lists={folder}: no {', '.join(absent)}{hint} (lists there: {', '.join(there) or 'none'})",
            argument="fraction" if hint else "split_lists",
        )
    return files


def _names(file: Path) -> list[tuple[int, str]]:
    """The number of each line that is not blank, and the name in it."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 at byte {error.start}: expected a text file, one image a line") from None
    names = [(number, _key(line.strip())) for number, line in enumerate(lines, start=1) if line.strip()]
    if not names:
        raise DataError(f"{file}: names no image: expected one a line")
    return names


def _key(name: str) -> str:
    return _SUFFIX.sub("", name.replace("\\", "/").removeprefix("./"))


def _by_last_parts(images: Sequence[str], parts: int) -> dict[str, int]:
    """Rows by the last `parts` parts of the image's path without its suffix."""
    keys = ["/".join(_key(name).rsplit("/", parts)[-parts:]) for name in images]
    counts = Counter(keys)
    return {key: row if counts[key] == 1 else _AMBIGUOUS for row, key in enumerate(keys)}
