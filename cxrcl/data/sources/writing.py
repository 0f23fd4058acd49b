"""A `Prepared` data set as a folder: checks, a link to the images, manifest.csv and a card."""

from __future__ import annotations

import datetime
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxrcl.data.manifest import FILE_NAME, OPTIONAL, REQUIRED, SPLITS
from cxrcl.data.sources import card as cards
from cxrcl.data.sources.base import Prepared
from cxrcl.data.sources.cells import is_blank
from cxrcl.data.sources.image_files import find_missing
from cxrcl.errors import DataError

LINK = "images"


@dataclass(frozen=True)
class Written:
    """A data set that was written.

    Attributes:
        table: the rows of the manifest.
        card: the content of card.json.
    """

    table: pd.DataFrame
    card: Mapping[str, Any]


def check_folders(source: Path, out: Path, force: bool = False) -> None:
    """Refuse folders that cannot be used, before anything is read.

    Args:
        source: the download.
        out: the folder to make.
        force: write over a manifest that is there.
    """
    if not source.is_dir():
        raise DataError(f"--source {source}: no such folder")
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out}: a file of that name is in the way")
    if out.is_dir() and out.samefile(source):
        raise DataError(f"--out {out}: it is the source itself: choose another folder")
    if (out / FILE_NAME).exists() and not force:
        raise DataError(f"{out / FILE_NAME} exists: write over it with --force, or choose another --out")


def write(
    prepared: Prepared,
    out: Path,
    *,
    dataset: str,
    source: Path,
    options: Mapping[str, object],
    version: str,
    num_checked: int | None = None,
    drop_missing: bool = False,
) -> Written:
    """Check a data set and make its folder: images (a link), card.json, card.md, and manifest.csv as the last.

    Args:
        dataset, source, options, version: how it was read; of paths only the last part goes onto the card.
        num_checked: images to look for (see `image_files.find_missing`).
        drop_missing: leave out rows without an image; all images are looked for then.

    Raises:
        DataError: the data are not fit for training, and how to mend them. Nothing was written.
    """
    table = check(prepared)
    num_checked, missing = find_missing(prepared.images, table["image"], len(table) if drop_missing else num_checked)
    dropped = {reason: number for reason, number in prepared.dropped.items() if number}
    if len(missing) and drop_missing:
        dropped["image file missing"] = len(missing)
        table = table.drop(missing.index)
        if table.empty:
            raise DataError(f"{prepared.images}: no image of the table is there, such as {missing.iloc[0]}")
    elif len(missing):
        raise DataError(
            f"{prepared.images}: {len(missing)} of {num_checked} images that were looked for are missing, first: "
            f"{missing.iloc[0]}: complete the download, or leave their rows out with --drop-missing"
        )
    table = table.assign(image=f"{LINK}/" + table["image"])
    # A carriage return by itself is not quoted, and would end the row when the file is read.
    table = table.replace("\r\n?", "\n", regex=True)
    content = table.to_csv(index=False, lineterminator="\n").encode()
    card = {
        "dataset": dataset,
        "source": source.resolve().name,
        "options": {name: _without_folders(value) for name, value in options.items()},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "version": version,
        "images_checked": num_checked,
        "manifest_sha256": hashlib.sha256(content).hexdigest(),
        **cards.count(table, prepared.labels),
        "dropped": dropped,
        "notes": list(prepared.notes),
    }
    files = {
        "card.json": (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode(),
        "card.md": cards.markdown(card).encode(),
        FILE_NAME: content,
    }
    with _staging(out) as staging:
        for name, data in files.items():
            (staging / name).write_bytes(data)
        _lead_to(prepared.images, out / LINK, staging)
        for name in files:
            (staging / name).replace(out / name)
    return Written(table, card)


def _without_folders(value: object) -> object:
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A folder inside `out`, for files to be moved out of when all are whole; `out` goes again if it stays empty."""
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".prepare-", dir=out) as folder:
            yield Path(folder)
    finally:
        if is_new and not any(out.iterdir()):
            out.rmdir()


def _lead_to(folder: Path, link: Path, staging: Path) -> None:
    """A symbolic link, so that images are not copied."""
    if not folder.is_dir():
        raise DataError(f"{folder}: the folder of the images was not found")
    if link.exists() and link.samefile(folder):
        return
    if link.exists() and not link.is_symlink():
        raise DataError(f"{link} is no link that this tool made: choose another --out")
    (staging / LINK).symlink_to(folder.resolve(), target_is_directory=True)
    (staging / LINK).replace(link)


# -------------------------------------------------------------------------------------------------- checks


def check(prepared: Prepared) -> pd.DataFrame:
    """The table with its columns in order and every blank a '', or a DataError in one line."""
    labels = list(prepared.labels)
    reserved = [name for name in labels if name in (*REQUIRED, *OPTIONAL)]
    if reserved:
        raise DataError(f"label {reserved[0]!r}: a column of that name has another meaning in a manifest: rename it")
    rows = prepared.table
    absent = [name for name in (*REQUIRED, *labels) if name not in rows]
    assert not absent, f"the reader gave no column {absent}"
    unknown = [name for name in rows if name not in (*REQUIRED, *OPTIONAL, *labels)]
    assert not unknown, f"the reader gave columns that are neither known nor labels: {unknown}"
    if rows.empty:
        dropped = ", ".join(f"{number}: {reason}" for reason, number in prepared.dropped.items() if number)
        raise DataError(f"{prepared.images}: no image is left (dropped {dropped or 'nothing'})")
    table = rows[[name for name in (*REQUIRED, *OPTIONAL, *labels) if name in rows]].fillna("").astype(str)
    _check_cells(table, labels)
    _check_patients(table)
    return table


def _check_cells(table: pd.DataFrame, labels: list[str]) -> None:
    for name in ("image", "patient", "study"):
        blank = is_blank(table[name])
        if blank.any():
            first = table.loc[blank, "image"].iloc[0]
            raise DataError(f"blank {name} in {int(blank.sum())} rows, first: {first!r}: every image needs one")
    outside = table["image"].str.contains(r"^[/\\~]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)|\0", regex=True)
    if outside.any():
        raise DataError(
            f"{int(outside.sum())} images lie outside of the folder of the images, first: "
            f"{table.loc[outside, 'image'].iloc[0]!r}: write paths relative to it"
        )
    twice = table["image"].duplicated()
    if twice.any():
        raise DataError(
            f"{int(twice.sum())} rows name an image that another row has, first: "
            f"{table.loc[twice, 'image'].iloc[0]!r}: keep one row an image"
        )
    for name, allowed in (("split", list(SPLITS)), *((label, list(cards.VALUES)) for label in labels)):
        wrong = ~table[name].isin(allowed)
        if wrong.any():
            raise DataError(
                f"{name} is {table.loc[wrong, name].iloc[0]!r} in {int(wrong.sum())} rows: "
                f"expected {', '.join(value or 'blank' for value in allowed)}"
            )


def _check_patients(table: pd.DataFrame) -> None:
    pairs = table[["patient", "split"]].drop_duplicates()
    shared = pairs["patient"][pairs["patient"].duplicated()]
    if len(shared):
        first = shared.min()
        splits = " and ".join(sorted(pairs.loc[pairs["patient"] == first, "split"]))
        raise DataError(
            f"{shared.nunique()} patients are in more than one split, first: {first!r} in {splits}: a model would be "
            "tested on persons it was trained on; give each patient one split, or let splits be drawn (see --help)"
        )


def has_mixed_studies(table: pd.DataFrame) -> bool:
    """Whether images of a study differ in labels or texts, so that a study cannot be one sample."""
    of_study = [name for name in table if name not in ("image", "view", "split", "sex", "age", "source")]
    return len(table[of_study].drop_duplicates()) > len(table[["patient", "study"]].drop_duplicates())
