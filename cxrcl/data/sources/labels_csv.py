"""A folder of images and a table of their labels. See `read`."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from cxrcl.data.images.image_io import SUFFIXES
from cxrcl.data.manifest import OPTIONAL, REQUIRED
from cxrcl.data.sources import cells
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.data.sources.image_files import find_images
from cxrcl.errors import DataError

_SUFFIX = "(?i:" + "|".join(re.escape(suffix) for suffix in (*SUFFIXES, ".dcm", ".dicom")) + ")$"


def read(
    source: Path,
    *,
    table: str = "",
    image: str = "0",
    labels: str = "",
    class_column: str = "",
    patient: str = "",
    study: str = "",
    view: str = "",
    split: str = "",
    separator: str = "",
    valid_fraction: float = 0.1,
    test_fraction: float = 0.1,
    balanced: str = "",
    seed: int = 0,
) -> Prepared:
    """A folder of images and a table of labels; columns by name or by number from 0.

    A row's image is looked for anywhere below the folder: by its path, else by its file name, else by the name without
    suffix (`3.dcm` and `3` find `a/3.png`). A name that two images have is an error, a row without an image is dropped.

    Args:
        table: file in the folder; the only CSV or TSV in it when not given.
        image: column of image names or paths.
        labels: label columns (1, 0, -1 or blank), with commas between; all columns with such values when not given.
        class_column: column that names the class, or several with | between, in place of label columns.
        patient: column of patients' ids: a patient is in one split only; without it each image is a patient.
        study: column of studies' ids; without it each image is a study.
        view: column of views.
        split: column of splits (train, valid or val, test); they are drawn when not given.
        separator: of columns: a character, or tab; a comma when not given, a tab for .tsv.
        valid_fraction: share of the patients for valid, where the data has no valid split.
        test_fraction: share of the patients for test, where the data has no splits.
        balanced: column whose values should be as frequent in each drawn split.
        seed: of the draw.
    """
    file = cells.the_table(source, table)
    rows = read_table(file, (), separator=cells.the_separator(separator, file))
    images = find_images(source)
    name_column = cells.column(rows, image, "image")
    paths = _find(rows[name_column].str.strip().str.replace("\\", "/", regex=False), images, file)
    absent = paths == ""
    if absent.all():
        raise DataError(
            f"{file}: none of {len(rows)} rows has its image below {source}; the first names "
            f"{rows[name_column].iloc[0] if len(rows) else 'nothing'!r}: choose the column with --image"
        )
    rows, paths = rows[~absent], paths[~absent]

    def chosen(option: str, name: str) -> pd.Series | None:
        return cells.filled(rows[cells.column(rows, name, option)]) if name else None

    patients, studies, views = chosen("patient", patient), chosen("study", study), chosen("view", view)
    own_splits = chosen("split", split)
    even = chosen("balanced", balanced)
    result = pd.DataFrame({"image": paths})
    result["study"] = paths if studies is None else studies
    result["patient"] = result["study"] if patients is None else patients
    result["view"] = "unknown" if views is None else views.replace("", "unknown")
    result["split"], note = cells.draw_splits(
        result["patient"],
        None if own_splits is None else cells.as_splits(own_splits, str(file)),
        valid_fraction,
        test_fraction,
        seed,
        even,
    )
    used = {cells.column(rows, name, "") for name in (image, patient, study, view, split) if name}
    values = _classes(rows, class_column, file) if class_column else _columns(rows, labels, used, file)
    result = result.join(values)
    again = result.duplicated()
    counts = {"row without an image": int(absent.sum()), "the same row again": int(again.sum())}
    extra = len(images) - paths.nunique()
    notes = [f"Table: {file.name}.", note]
    if extra:
        notes.append(f"{extra} images have no row in the table and are left out.")
    if patients is None:
        notes.append("No column of patients was given: each study counts as a patient, so splits may share persons.")
    return Prepared(result[~again], tuple(values.columns), source, {k: n for k, n in counts.items() if n}, notes)


def _find(names: pd.Series, images: pd.Series, file: Path) -> pd.Series:
    """The image of each row, '' where there is none."""
    names = names.str.removeprefix("./")
    paths = names.where(names.isin(images), "")
    base, image_base = names.str.rpartition("/")[2], images.str.rpartition("/")[2]
    stem, image_stem = (part.str.replace(_SUFFIX, "", regex=True) for part in (base, image_base))
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
    classes = cells.filled(rows[cells.column(rows, name, "class-column")])
    values = classes.str.replace(r"\s*\|\s*", "|", regex=True).str.get_dummies("|").astype(str)
    values = values.rename(columns=cells.label_names(list(values.columns), str(file)))
    return values.where(classes != "", "")


def _columns(rows: pd.DataFrame, labels: str, used: set[str], file: Path) -> pd.DataFrame:
    """The label columns: those named, else every other column that holds label values only."""
    others = [str(name) for name in rows if name not in used and name not in (*REQUIRED, *OPTIONAL)]
    columns = cells.columns(rows, labels, "labels") or [name for name in others if cells.looks_like_labels(rows[name])]
    if not columns:
        raise DataError(
            f"{file}: no column holds only 1, 0, -1 and blanks; found: {', '.join(rows.columns)}: "
            "name the label columns with --labels, or the column of classes with --class-column"
        )
    names = cells.label_names(columns, str(file))
    return pd.DataFrame({names[name]: cells.as_labels(rows[name], str(file)) for name in columns})
