"""A plain table of images and texts, such as ConVIRT's two columns. See `read`."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TextIO

import pandas as pd
from tqdm import tqdm

from cxrcl.data.images.image_io import SUFFIXES
from cxrcl.data.sources import cells
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.errors import DataError


def read(
    source: Path,
    *,
    table: str = "",
    image: str = "0",
    text: str = "1",
    patient: str = "",
    study: str = "",
    view: str = "",
    split: str = "",
    labels: str = "",
    images: str = "",
    header: Literal["auto", "yes", "no"] = "auto",
    separator: str = "",
    text_in: Literal["auto", "cells", "files"] = "auto",
    valid_fraction: float = 0.1,
    test_fraction: float = 0.1,
    balanced: str = "",
    seed: int = 0,
) -> Prepared:
    """A plain table with a column of images and one of texts; columns by name or by number from 0.

    Text files are read whole, with all their lines. Rows whose text is the same file are one study; without a column of
    studies or of text files each image is a study, and without a column of patients each study is a patient.

    Args:
        table: file in the folder; the only CSV or TSV in it when not given.
        image: column of image paths, relative to --images.
        text: column of texts; '' when there is none.
        patient: column of patients' ids: a patient is in one split only.
        study: column of studies' ids.
        view: column of views.
        split: column of splits (train, valid or val, test); they are drawn when not given.
        labels: label columns, with commas between: values 1, 0, -1 or blank.
        images: folder of the images inside the source folder; the source folder itself when not given.
        header: whether the first line names the columns; auto: it does, unless its image cell ends like an image file.
        separator: of columns: a character, or tab; a comma when not given, a tab for .tsv.
        text_in: whether texts stand in the cells or in files named there; auto: files, if all cells end in .txt.
        valid_fraction: share of the patients for valid, where the data has no valid split.
        test_fraction: share of the patients for test, where the data has no splits.
        balanced: column whose values should be as frequent in each drawn split.
        seed: of the draw.
    """
    file = cells.the_table(source, table)
    separator = cells.the_separator(separator, file)
    has_header = header == "yes" or (header == "auto" and not _starts_with_an_image(file, image, separator))
    rows = read_table(file, (), separator=separator, header=has_header)
    folder = source / images
    result = pd.DataFrame({"image": _image_paths(rows[cells.column(rows, image, "image")], file, folder)})
    notes = [f"Table: {file.name}, {'with' if has_header else 'without'} a header, {len(rows)} rows."]

    own_study = result["image"]
    if text:
        written = cells.filled(rows[cells.column(rows, text, "text")])
        if cells.looks_like_labels(written):
            raise DataError(
                f"{file}: column {written.name} holds labels, no texts: choose another --text, or --text ''"
            )
        in_files = text_in == "files" or (text_in == "auto" and _all_text_files(written))
        if in_files:
            own_study = written.mask(written == "", result["image"])
            notes.append("Texts are read whole from the files that the table names; images of one text are one study.")
        result["text"] = _texts(written, source, file) if in_files else written
    result["study"] = cells.filled(rows[cells.column(rows, study, "study")]) if study else own_study
    result["patient"] = cells.filled(rows[cells.column(rows, patient, "patient")]) if patient else result["study"]
    if not patient:
        notes.append("No column of patients was given: each study counts as a patient, so splits may share persons.")
    result["view"] = cells.filled(rows[cells.column(rows, view, "view")]).replace("", "unknown") if view else "unknown"

    own_splits = cells.as_splits(rows[cells.column(rows, split, "split")], str(file)) if split else None
    even = rows[cells.column(rows, balanced, "balanced")] if balanced else None
    result["split"], note = cells.draw_splits(result["patient"], own_splits, valid_fraction, test_fraction, seed, even)
    chosen = cells.columns(rows, labels, "labels")
    for name, label in (names := cells.label_names(chosen, str(file))).items():
        result[label] = cells.as_labels(rows[name], str(file))
    again = result.duplicated()
    dropped = {"the same row again": int(again.sum())} if again.any() else {}
    return Prepared(result[~again], tuple(names.values()), folder, dropped, (*notes, note))


def _starts_with_an_image(file: Path, image: str, separator: str) -> bool:
    """Whether the first line is data: its image cell ends like an image file, which no name of a column does."""
    if not file.is_file() or not image.isdecimal():
        return False
    opener: Callable[..., TextIO] = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8-sig", newline="") as lines:
            first = next(csv.reader(lines, delimiter=separator), [])
    except (UnicodeDecodeError, csv.Error, OSError, EOFError):
        return False  # read_table will say what is wrong with the file
    return int(image) < len(first) and first[int(image)].strip().lower().endswith(SUFFIXES)


def _image_paths(written: pd.Series, file: Path, folder: Path) -> pd.Series:
    """Paths relative to `folder`: with / between the parts, without a leading ./ or the path of the folder."""
    paths = written.str.strip().str.replace("\\", "/", regex=False).str.removeprefix("./")
    for prefix in (folder, folder.resolve()):
        paths = paths.str.removeprefix(f"{prefix.as_posix()}/")
    wrong = ~paths.str.lower().str.endswith(SUFFIXES)
    if wrong.any():
        raise DataError(
            f"{file}: {written[wrong].iloc[0]!r} in column {written.name} is no image file, in {int(wrong.sum())} of "
            f"{len(written)} rows: choose the column with --image"
        )
    return paths


def _all_text_files(written: pd.Series) -> bool:
    there = written[written != ""]
    return bool(len(there)) and bool(there.str.lower().str.endswith(".txt").all())


def _texts(written: pd.Series, source: Path, file: Path) -> pd.Series:
    """The whole content of each named file; '' where none is named."""
    names = [name for name in written.unique() if name]
    missing = [name for name in names if not (source / name).is_file()]
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of {len(names)} text files are missing in {source}, first: {missing[0]}"
        )
    content = {"": ""}
    for name in tqdm(names, desc="reading texts", unit="", disable=None, leave=False):
        try:
            content[name] = (source / name).read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{source / name}: not UTF-8 at byte {error.start}: save it as UTF-8") from None
    return written.map(content)
