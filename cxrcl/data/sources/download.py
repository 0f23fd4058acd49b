"""What the readers of published downloads share: where files lie, which labels a cell names, which rows stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cxrcl.data.image_io import SUFFIXES
from cxrcl.data.sources.films import list_films, walk
from cxrcl.errors import DataError

_SUFFIX = re.compile("|".join(re.escape(suffix) + "$" for suffix in SUFFIXES), re.IGNORECASE)
NO_FILM = "no film of that name in the download"
OLDEST_YEARS = 120


def find_file(source: Path, *patterns: str) -> Path:
    """The file below `source` that the first pattern with a match names; of several, the last by name.

    Raises:
        DataError: no pattern matches a file.
    """
    for pattern in patterns:
        found = sorted(path for path in source.glob(pattern) if path.is_file())
        if found:
            return found[-1]
    raise DataError(f"{source}: no {' or '.join(patterns)} in it: --source is the folder of the download")


def read_list(file: Path) -> pd.Series:
    """The first word of each line of a text file (blank lines left out): lists of films carry labels after the name."""
    if not file.is_file():
        raise DataError(f"{file}: not found: name the folder of the lists with --lists")
    lines = pd.Series(file.read_text(encoding="utf-8-sig").splitlines(), dtype=str).str.split().str[0]
    return lines.dropna().reset_index(drop=True)


def locate(names: pd.Series, folder: Path, by: Literal["name", "stem"] = "stem") -> pd.Series:
    """Where the films of these names lie below a folder. Only folders and the indices of zip files are read.

    Args:
        names: file names, one a row.
        folder: films may lie at any depth in it, in zip files too; a film outside of zip files is preferred.
        by: `stem` ignores the suffix: a copy of the films in another format is found as well.

    Returns:
        Paths relative to `folder`, '' where there is no such film.

    Raises:
        DataError: none is found, or a name stands for two films.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: not found: expected the folder of the films (--images, inside --source)")
    loose, packed = list_films(folder)
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
            f"{folder}: two films of the same name: {places[key]} and {twice[key]}: "
            "name the folder that holds one of them with --images"
        )
    found = keys.map(places).astype(object).fillna("")
    if not (found != "").any():
        tars = sum(path.lower().endswith((".tar", ".tar.gz", ".tgz")) for path in walk(folder))
        raise DataError(
            f"{folder}: none of the {len(names)} films is there (the first is {names.iloc[0] if len(names) else '?'})"
            + (f": unpack the {tars} tar archives in it" if tars else ": name their folder with --images")
        )
    return found


def _key(path: str, by: str) -> str:
    name = path.rsplit("/", 1)[-1]
    if by == "stem":  # ids of DICOM have dots, and no suffix
        name = _SUFFIX.sub("", name)
    return name


def drop(table: pd.DataFrame, bad: pd.Series, reason: str, dropped: MutableMapping[str, int]) -> pd.DataFrame:
    """The rows that are not `bad`; the others are counted in `dropped`."""
    if bad.any():
        dropped[reason] = dropped.get(reason, 0) + int(bad.sum())
    return table[~bad]


def multi_hot(cells: pd.Series, parse: Callable[[str], Iterable[str]]) -> pd.DataFrame:
    """Which names each cell holds: bool, a column a name, sorted. `parse` is called once for each different cell."""
    codes, different = pd.factorize(cells)
    found = [(row, name) for row, cell in enumerate(different) for name in parse(str(cell))]
    places = {name: place for place, name in enumerate(sorted({name for _, name in found}))}
    table = np.zeros((len(different), len(places)), dtype=bool)
    table[[row for row, _ in found], [places[name] for _, name in found]] = True
    return pd.DataFrame(table[codes], columns=list(places), index=cells.index)


def as_cells(present: pd.DataFrame, known: pd.Series | None = None) -> pd.DataFrame:
    """'1' and '0'; '' in the rows that are not `known`."""
    cells = np.where(present.to_numpy(dtype=bool), "1", "0").astype(object)
    if known is not None:
        cells[~known.to_numpy(dtype=bool)] = ""
    return pd.DataFrame(cells, columns=present.columns, index=present.index)


def check_ages(years: pd.Series) -> pd.Series:
    """Whole years as text; '' for what is no number from 0 to 120."""
    numbers = pd.to_numeric(years, errors="coerce")
    good = numbers.between(0, OLDEST_YEARS)
    return numbers.where(good, 0).astype(int).astype(str).where(good, "")


def count_splits(table: pd.DataFrame) -> dict[str, int]:
    """Rows of each split, and of `train and valid` together, which is what most sources publish."""
    counts = {str(name): int(count) for name, count in table["split"].value_counts().items()}
    return counts | {"train and valid": counts.get("train", 0) + counts.get("valid", 0)}


def compare_counts(published: Mapping[str, int], found: Mapping[str, int]) -> str:
    """A note for the card: the published counts, and this download's where they differ."""
    wanted = ", ".join(f"{name} {count:,}" for name, count in published.items())
    if all(found.get(name, 0) == count for name, count in published.items()):
        return f"Counts are the published ones: {wanted}."
    here = ", ".join(f"{name} {found.get(name, 0):,}" for name in published)
    return f"Published counts: {wanted}; this download: {here}."
