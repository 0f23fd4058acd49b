"""A folder of images and a table of their labels. See `read`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxrcl.data.manifest import OPTIONAL, REQUIRED
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.data.sources.cells import filled, label_names, looks_like_labels, relative_paths
from cxrcl.data.sources.download import IMAGE_SUFFIX, drop
from cxrcl.data.sources.draw import Draw
from cxrcl.data.sources.image_files import find_images
from cxrcl.data.sources.own_table import NO_PATIENTS, SAME_ROW, Columns, column
from cxrcl.errors import DataError


def read(source: Path, *, columns: Columns = Columns(), class_column: str = "", draw: Draw = Draw()) -> Prepared:
    """A folder of images and a table of labels; columns by name or by number from 0.

    A row's image is looked for anywhere below the folder: by its path, else by its file name, else by the name without
    suffix (`3.dcm` and `3` find `a/3.png`). A name that two images have is an error, a row without an image is dropped.
    Without --labels and --class-column, all columns that hold label values only are labels.

    Args:
        class_column: column that names the class, or several with | between, in place of label columns.
    """
    file, separator = columns.file(source)
    rows = read_table(file, (), separator=separator)
    images = find_images(source)
    names = rows[column(rows, columns.image, "image")]
    paths = _find(relative_paths(names, source), images, file)
    absent = paths == ""
    if absent.all():
        raise DataError(
            f"{file}: none of {len(rows)} rows has its image below {source}; the first names "
            f"{names.iloc[0] if len(rows) else 'nothing'!r}: choose the column with --image"
        )
    dropped: dict[str, int] = {}
    rows, paths = drop(rows, absent, "row without an image", dropped), paths[~absent]
    result, note = columns.manifest(rows, paths, paths, draw, file)
    labels = _classes(rows, class_column, file) if class_column else _labels(rows, columns, file)
    result = result.join(labels)
    result = drop(result, result.duplicated(), SAME_ROW, dropped)
    notes = [f"Table: {file.name}.", note]
    if extra := len(images) - paths.nunique():
        notes.append(f"{extra} images have no row in the table and are left out.")
    if not columns.patient:
        notes.append(NO_PATIENTS)
    return Prepared(result, tuple(map(str, labels)), source, dropped, notes)


def _find(names: pd.Series, images: pd.Series, file: Path) -> pd.Series:
    """The image of each row, '' where there is none."""
    paths = names.where(names.isin(images), "")
    base, image_base = names.str.rpartition("/")[2], images.str.rpartition("/")[2]
    stem, image_stem = (part.str.replace(IMAGE_SUFFIX, "", regex=True) for part in (base, image_base))
    for wanted, names_of_images in ((base, image_base), (stem, image_stem)):
        open_rows = (paths == "") & (wanted != "")
        is_wanted = names_of_images.isin(wanted[open_rows])
        twice = is_wanted & names_of_images.duplicated(keep=False)
        if twice.any():
            same = images[names_of_images == names_of_images[twice].iloc[0]]
            raise DataError(
                f"{file}: {names_of_images[twice].nunique()} names belong to several images, such as {same.iloc[0]} "
                f"and {same.iloc[1]}: write paths into the table, or take the copies away"
            )
        match: dict[str, str] = dict(zip(names_of_images[is_wanted], images[is_wanted]))
        names_left = wanted[open_rows]
        paths.update(pd.Series([match.get(name, "") for name in names_left], index=names_left.index, dtype=str))
    return paths


def _classes(rows: pd.DataFrame, name: str, file: Path) -> pd.DataFrame:
    """1 for each class that a row names, 0 for the others; blank where it names none."""
    classes = filled(rows[column(rows, name, "class-column")])
    values = classes.str.replace(r"\s*\|\s*", "|", regex=True).str.get_dummies("|").astype(str)
    values = values.rename(columns=label_names(list(values.columns), str(file)))
    return values.where(classes != "", "")


def _labels(rows: pd.DataFrame, columns: Columns, file: Path) -> pd.DataFrame:
    """The label columns: those named, else every other column that holds label values only."""
    named = (columns.image, columns.patient, columns.study, columns.view, columns.split)
    used = {*REQUIRED, *OPTIONAL, *(column(rows, name, "") for name in named if name)}
    others = (
        [] if columns.labels else [str(name) for name in rows if name not in used and looks_like_labels(rows[name])]
    )
    labels = columns.label_cells(rows, file, others)
    if labels.columns.empty:
        raise DataError(
            f"{file}: no column holds only 1, 0, -1 and blanks; found: {', '.join(rows.columns)}: "
            "name the label columns with --labels, or the column of classes with --class-column"
        )
    return labels
