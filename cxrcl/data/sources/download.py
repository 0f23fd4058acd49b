"""Shared by the readers: finding files and images, parsing labels, dropping and counting rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pandas as pd

from cxrcl.data.images.image_io import SUFFIXES
from cxrcl.data.sources.image_files import list_images, walk
from cxrcl.errors import DataError

IMAGE_SUFFIX = re.compile("|".join(re.escape(suffix) + "$" for suffix in SUFFIXES), re.IGNORECASE)
NO_IMAGE = "no image of that name in the download"
OLDEST_YEARS = 120
Table = TypeVar("Table", pd.DataFrame, pd.Series)


def find_file(source: Path, *patterns: str) -> Path:
    """The file below `source` that matches the first pattern with a match; of several files the last by name.

    Raises:
        DataError: no pattern matches a file.
    """
    for pattern in patterns:
        files = sorted(path for path in source.glob(pattern) if path.is_file())
        if files:
            return files[-1]
    raise DataError(f"{source}: no {' or '.join(patterns)} in it: --source is the folder of the download")


def locate(names: pd.Series, folder: Path, by: Literal["name", "stem"] = "stem") -> pd.Series:
    """Find the images of these names below a folder, by listings of folders and the indices of zip files.

    Args:
        names: file names, one a row.
        folder: images may lie at any depth in it, in zip files too; an image outside of zip files is preferred.
        by: `stem` ignores the suffix: a copy of the images in another format is found as well.

    Returns:
        Paths relative to `folder`, '' where there is no such image.

    Raises:
        DataError: none is found, or a name stands for two images.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: not found: expected the folder of the images (--images, inside --source)")
    loose, packed = list_images(folder)
    places: dict[str, str] = {}
    twice: dict[str, str] = {}
    for path in loose:
        if places.setdefault(key := _key(path, by), path) != path:
            twice[key] = path
    # A zip file is often kept beside what was taken out of it.
    for path in packed:
        places.setdefault(_key(path, by), path)
    keys = names if by == "name" else names.map(lambda name: _key(name, "stem"))
    if len(both := keys[keys.isin(twice)]):
        key = both.iloc[0]
        raise DataError(
            f"{folder}: two images of the same name: {places[key]} and {twice[key]}: "
            "name the folder that holds one of them with --images"
        )
    paths = keys.map(places).astype(object).fillna("")
    if not (paths != "").any():
        tars = sum(path.lower().endswith((".tar", ".tar.gz", ".tgz")) for path in walk(folder))
        raise DataError(
            f"{folder}: none of the {len(names)} images is there (the first is {names.iloc[0] if len(names) else '?'})"
            + (f": unpack the {tars} tar archives in it" if tars else ": name their folder with --images")
        )
    return paths


def _key(path: str, by: str) -> str:
    name = path.rsplit("/", 1)[-1]
    if by == "stem":  # ids of DICOM have dots, and no suffix
        name = IMAGE_SUFFIX.sub("", name)
    return name


def place(
    table: pd.DataFrame, folder: Path, dropped: MutableMapping[str, int], by: Literal["name", "stem"] = "stem"
) -> pd.DataFrame:
    """The rows whose `image`, a name, is found below a folder, with its path there (see `locate`)."""
    places = locate(table["image"], folder, by)
    return drop(table.assign(image=places), places == "", NO_IMAGE, dropped)


def alone(names: pd.Series, **columns: object) -> pd.DataFrame:
    """A table of images of whose persons nothing is known: each is a study and a patient of its own."""
    return pd.DataFrame({"image": names, "patient": names, "study": names, "view": "unknown", **columns})


def drop(table: Table, bad: pd.Series, reason: str, dropped: MutableMapping[str, int]) -> Table:
    """The rows that are not `bad`; the others are counted in `dropped`."""
    if bad.any():
        dropped[reason] = dropped.get(reason, 0) + int(bad.sum())
    return table[~bad]


def multi_hot(cells: pd.Series, parse: Callable[[str], Iterable[str]]) -> pd.DataFrame:
    """The names in each cell: bool [rows, names], columns sorted.

    Args:
        cells: one a row.
        parse: cell -> its names; called once for each different cell.
    """
    codes, different = pd.factorize(cells)
    pairs = [(row, name) for row, cell in enumerate(different) for name in parse(str(cell))]
    places = {name: place for place, name in enumerate(sorted({name for _, name in pairs}))}
    table = np.zeros((len(different), len(places)), dtype=bool)
    table[[row for row, _ in pairs], [places[name] for _, name in pairs]] = True
    return pd.DataFrame(table[codes], columns=list(places), index=cells.index)


def as_cells(present: pd.DataFrame, is_labelled: pd.Series | None = None) -> pd.DataFrame:
    """'1' and '0' of a bool table [rows, C]; '' in the rows where `is_labelled`, bool [rows], is false."""
    cells = np.where(present.to_numpy(dtype=bool), "1", "0").astype(object)
    if is_labelled is not None:
        cells[~is_labelled.to_numpy(dtype=bool)] = ""
    return pd.DataFrame(cells, columns=present.columns, index=present.index)


def check_ages(years: pd.Series) -> pd.Series:
    """Whole years as text; '' for what is no number from 0 to 120."""
    numbers = pd.to_numeric(years, errors="coerce")
    good = numbers.between(0, OLDEST_YEARS)
    return numbers.where(good, 0).astype(int).astype(str).where(good, "")


def count_splits(table: pd.DataFrame) -> dict[str, int]:
    """Split -> number of rows, and `train and valid` together, which most sources publish."""
    counts = {str(name): int(count) for name, count in table["split"].value_counts().items()}
    return counts | {"train and valid": counts.get("train", 0) + counts.get("valid", 0)}


def compare_counts(published: Mapping[str, int], counts: Mapping[str, int]) -> str:
    """A note for the card: the published counts, and this download's where they differ."""
    wanted = ", ".join(f"{name} {count:,}" for name, count in published.items())
    if all(counts.get(name, 0) == count for name, count in published.items()):
        return f"Counts are the published ones: {wanted}."
    here = ", ".join(f"{name} {counts.get(name, 0):,}" for name in published)
    return f"Published counts: {wanted}; this download: {here}."
