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
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.data.sources.cells import filled, looks_like_labels, relative_paths
from cxrcl.data.sources.download import drop
from cxrcl.data.sources.draw import Draw
from cxrcl.data.sources.own_table import NO_PATIENTS, SAME_ROW, Columns, column
from cxrcl.errors import DataError


def read(
    source: Path,
    *,
    columns: Columns = Columns(),
    text: str = "1",
    images: str = "",
    header: Literal["auto", "yes", "no"] = "auto",
    text_in: Literal["auto", "cells", "files"] = "auto",
    draw: Draw = Draw(),
) -> Prepared:
    """A plain table with a column of images and one of texts; columns by name or by number from 0.

    Text files are read whole, with all their lines. Rows whose text is the same file are one study; without a column of
    studies or of text files each image is a study, and without a column of patients each study is a patient.

    Args:
        text: column of texts; '' when there is none.
        images: folder that the paths of images are relative to, inside the source folder; the source folder itself when
            not given.
        header: whether the first line names the columns; auto: it does, unless its image cell ends like an image file.
        text_in: whether texts stand in the cells or in files named there; auto: files, if all cells end in .txt.
    """
    file, separator = columns.file(source)
    has_header = header == "yes" or (header == "auto" and not _starts_with_an_image(file, columns.image, separator))
    rows = read_table(file, (), separator=separator, header=has_header)
    folder = source / images
    named = rows[column(rows, columns.image, "image")]
    paths = relative_paths(named, folder)
    wrong = ~paths.str.lower().str.endswith(SUFFIXES)
    if wrong.any():
        raise DataError(
            f"{file}: {named[wrong].iloc[0]!r} in column {named.name} is no image file, in {int(wrong.sum())} of "
            f"{len(named)} rows: choose the column with --image"
        )
    notes = [f"Table: {file.name}, {'with' if has_header else 'without'} a header, {len(rows)} rows."]

    texts, studies = pd.DataFrame(index=rows.index), paths
    if text:
        written = filled(rows[column(rows, text, "text")])
        if looks_like_labels(written):
            raise DataError(
                f"{file}: column {written.name} holds labels, no texts: choose another --text, or --text ''"
            )
        given = written[written != ""].str.lower()
        in_files = text_in == "files" or (text_in == "auto" and len(given) > 0 and given.str.endswith(".txt").all())
        if in_files:
            studies = written.mask(written == "", paths)
            notes.append("Texts are read whole from the files that the table names; images of one text are one study.")
        texts["text"] = _texts(written, source, file) if in_files else written
    if not columns.patient:
        notes.append(NO_PATIENTS)
    result, note = columns.manifest(rows, paths, studies, draw, file)
    labels = columns.label_cells(rows, file)
    result = result.join([texts, labels])
    dropped: dict[str, int] = {}
    result = drop(result, result.duplicated(), SAME_ROW, dropped)
    return Prepared(result, tuple(map(str, labels)), folder, dropped, (*notes, note))


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
