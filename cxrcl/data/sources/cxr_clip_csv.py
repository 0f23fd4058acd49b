"""The processed CSVs of CXR-CLIP and of its hospital variant: one study a row, lists as Python literals in the cells.

You et al. 2023 (arXiv 2310.13292). Training files hold `image` (list of paths), `view` or `AP`, `PA`, `Lateral` (lists
of paths), `text` (list of findings and impression) with `text_augment` (the same, translated there and back), or
`text_label` ([[positive], [negative], [uncertain]] or [positive]); test files `image`, `label` with `class` (names of
what is present), or a column of 0 and 1 for each label.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from cxrcl.data.labels import CHEXPERT
from cxrcl.data.manifest import SPLITS
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.data.sources.cells import as_labels, filled, label_names, literal_list, looks_like_labels, relative_paths
from cxrcl.data.sources.download import drop
from cxrcl.data.sources.mimic_cxr import normal_views
from cxrcl.errors import DataError

_VIEW_LISTS = ("AP", "PA", "Lateral")
_COLUMNS = ("image", "view", *_VIEW_LISTS, "text", "text_augment", "text_label", "label", "class")
# ChestX-ray14 says Effusion for what CheXpert calls Pleural Effusion.
_RENAMED = {"Effusion": "Pleural Effusion"}
_SPLIT_OF = {"train": "train", "valid": "valid", "val": "valid", "validate": "valid", "test": "test"}
_TEXTS = ("findings", "impression", "text", "text_augment")
_ABSENCE = re.compile(r"(?i)(?:normal|no (?!finding).*)$")  # classes of a two-class test set that name no finding
_LIST = re.compile(r"\[\s*(?:['\"\[\]]|nan)")  # and not the [ with which a text may begin
_NAN = re.compile(r"(?<=[\[,\s])nan(?=\s*[,\]])")
_PATIENT = r"(?:^|/)(patient\d+|p\d{8}|\d{8}(?=_\d{3}\.))"


def read(
    source: Path,
    *,
    train: str = "",
    valid: str = "",
    test: str = "",
    images: str = "",
    patient_pattern: str = _PATIENT,
    not_named: Literal["blank", "zero"] = "blank",
) -> Prepared:
    """CSVs of CXR-CLIP, or of its hospital variant: reports, positive, negative and uncertain labels, label columns.

    Args:
        source: the folder of the CSVs.
        train: the CSV of train, relative to source. By default the CSV whose name ends in train; so for valid and test.
        valid: the CSV of valid.
        test: the CSV of test.
        images: the folder that the paths of images are relative to, or that they begin with; source by default.
        patient_pattern: regular expression whose group is the patient in the path of an image. By default CheXpert's,
            MIMIC-CXR's and ChestX-ray14's; where it finds none, each row is a patient of its own.
        not_named: labels that a list of positives does not name: blank (not known) or zero (absent).
    """
    files = _files(source, {"train": train, "valid": valid, "test": test})
    parts = [_read_part(file, split) for split, file in files.items()]
    studies = pd.concat([part.studies for part in parts], ignore_index=True)
    values = _values(parts, {"blank": "", "zero": "0"}[not_named])
    # The names that the prompts of the package have.
    values = values.rename(columns={old: new for old, new in _RENAMED.items() if new not in values})
    values = values.rename(columns=label_names(values.columns.tolist(), str(source)))
    labels = tuple(sorted(map(str, values), key=lambda n: (CHEXPERT.index(n) if n in CHEXPERT else len(CHEXPERT), n)))

    folder = Path(images).expanduser() if images else source
    rows = studies.join(values).explode(["image", "view"], ignore_index=True).fillna("")
    dropped: dict[str, int] = {}
    rows = drop(rows, rows["image"] == "", "images without a path", dropped)
    rows = rows.assign(image=relative_paths(rows["image"].astype(str), folder), view=normal_views(rows["view"]))
    outside = rows["image"].str.match(r"/|~|[A-Za-z]:")
    if outside.any():
        raise DataError(
            f"{int(outside.sum())} paths of images are absolute and not below {folder}: set --images to the folder "
            "that they begin with"
        )
    rows = drop(rows, rows.duplicated(["image", "split"]), "images that stand twice in a file", dropped)
    shared = rows["image"].duplicated()
    if shared.any():
        raise DataError(
            f"{source}: {int(shared.sum())} images of one CSV stand in another, too: each image has one split"
        )
    patient = _patients(rows["image"], patient_pattern)
    unknown = int(patient.isna().sum())
    unused = sorted({name for part in parts for name in part.unused})
    notes = [
        "split: " + ", ".join(f"{split} is {file.name}" for split, file in files.items()),
        "study: one row of a CSV",
        f"patient: read from the path of the image; {unknown} of {len(rows)} images have none there: each row of "
        "the CSV then counts as a patient, and whether splits share patients cannot be checked",
        f"labels that a list of positives does not name are {not_named}",
        *([f"columns that were not used: {', '.join(unused)}"] if unused else []),
    ]
    table = rows.assign(patient=patient.fillna(rows["study"])).reset_index(drop=True)
    return Prepared(table.astype(str), labels, folder, dropped, notes)


class _Part(NamedTuple):
    """The content of a CSV.

    Attributes:
        studies: a row a study, with lists of images and views.
        columns: labels with a column of their own.
        named: for each row, values of the labels that its lists name.
        form: what these lists are: three, positives, class, or '' where there are none.
        unused: columns that no rule reads.
    """

    studies: pd.DataFrame
    columns: pd.DataFrame
    named: list[dict[str, str]]
    form: str
    unused: list[str]


def _files(source: Path, options: dict[str, str]) -> dict[str, Path]:
    """Split -> CSV, by the options, else by the ends of file names."""
    if any(options.values()):
        return {split: source / name for split, name in options.items() if name}
    candidates: dict[str, list[Path]] = {}
    for file in sorted([*source.glob("*.csv"), *source.glob("*.csv.gz")]):
        split = _SPLIT_OF.get(re.split(r"[_\-. ]", file.name.lower().split(".csv")[0])[-1])
        if split:
            candidates.setdefault(split, []).append(file)
    for split, files in candidates.items():
        if len(files) > 1:
            raise DataError(
                f"{source}: {' and '.join(file.name for file in files)} are all {split}: name the ones of one data set "
                "with --train, --valid, --test"
            )
    if not candidates:
        raise DataError(
            f"{source}: no CSV whose name ends in train, valid or test: name them with --train, --valid, --test"
        )
    return {split: candidates[split][0] for split in SPLITS if split in candidates}


def _read_part(file: Path, split: str) -> _Part:
    table = read_table(file, ("image",))
    other = [name for name in table.columns if name not in _COLUMNS and not name.startswith("Unnamed")]
    names = [name for name in other if looks_like_labels(table[name])]
    studies = pd.DataFrame(
        {
            "image": (images := _lists(table, "image", file)),
            "view": _views(table, images, file),
            "study": [f"{split}-{number}" for number in range(len(table))],
            "split": split,
            "source": "cxr_clip_csv",
            **_texts(table, file),
        }
    )
    unused = [name for name in other if name not in names]
    columns = pd.DataFrame({name: as_labels(table[name], str(file)) for name in names}, index=table.index)
    return _Part(studies, columns, *_named(table, file), unused)


def _lists(table: pd.DataFrame, column: str, file: Path) -> list[list[Any]]:
    """The cells of a column as lists; a cell that is no list is a list of one, a blank or missing one is empty."""
    if column not in table:
        return [[] for _ in range(len(table))]
    return [_parsed(cell, column, file, row) for row, cell in enumerate(filled(table[column]), start=2)]


def _parsed(cell: str, column: str, file: Path, row: int) -> list[Any]:
    if not _LIST.match(cell):
        return [cell] if cell else []
    for text in (cell, _NAN.sub("''", cell)):  # pandas writes a missing part of a list as nan, which is no literal
        if (value := literal_list(text)) is not None:
            return value
    raise DataError(f"{file}: {column} of row {row} is not a list of texts or lists such as ['a', 'b']")


def _views(table: pd.DataFrame, images: list[list[Any]], file: Path) -> list[list[str]]:
    """The view of each image: from the list `view`, else from the list AP, PA or Lateral that has its path."""
    if "view" in table:
        views = _lists(table, "view", file)
        for row, (named, paths) in enumerate(zip(views, images), start=2):
            if named and len(named) != len(paths):
                raise DataError(f"{file}: row {row} has {len(paths)} images and {len(named)} views: expected one each")
        return [named or [""] * len(paths) for named, paths in zip(views, images)]
    view_of: list[dict[str, str]] = [{} for _ in images]
    for view in _VIEW_LISTS:
        for views_of_row, paths in zip(view_of, _lists(table, view, file)):
            views_of_row.update(dict.fromkeys(paths, view))
    return [[views_of_row.get(path, "") for path in paths] for views_of_row, paths in zip(view_of, images)]


def _texts(table: pd.DataFrame, file: Path) -> dict[str, list[str]]:
    """Two sections are findings and impression; one, or more than two, cannot be told apart and are the text."""
    sections = [[str(part).strip() for part in parts] for parts in _lists(table, "text", file)]
    pairs = [parts if len(parts) == 2 else ["", ""] for parts in sections]
    rewritten = _lists(table, "text_augment", file)
    return {
        "findings": [pair[0] for pair in pairs],
        "impression": [pair[1] for pair in pairs],
        "text": ["" if len(parts) == 2 else " ".join(parts) for parts in sections],
        "text_augment": [_rewriting(parts, of) for parts, of in zip(rewritten, sections)],
    }


def _rewriting(parts: Sequence[Any], sections: Sequence[str]) -> str:
    """The whole report in other words; a section without a rewriting stays as it is."""
    new_sections = [str(part).strip() for part in parts]
    if any(new_sections) and len(new_sections) == len(sections):
        new_sections = [new or old for new, old in zip(new_sections, sections)]
    return " ".join(filter(None, new_sections))


def _named(table: pd.DataFrame, file: Path) -> tuple[list[dict[str, str]], str]:
    """Label -> value for each row, of text_label or class, and the form of these lists."""
    if "text_label" in table:
        cells = _lists(table, "text_label", file)
        if any(isinstance(part, list) for parts in cells for part in parts):
            return [_three(parts, file, row) for row, parts in enumerate(cells, start=2)], "three"
        return [{str(part): "1" for part in parts if part} for parts in cells], "positives"
    cells = _lists(table, "class", file)
    names = [{str(part): "1" for part in parts if not _ABSENCE.match(str(part))} for parts in cells]
    return names, "class" if "class" in table else ""


def _three(parts: list[Any], file: Path, row: int) -> dict[str, str]:
    """Label -> value; of a name in several lists, positive outweighs uncertain, and uncertain negative."""
    if parts and (len(parts) != 3 or not all(isinstance(part, list) for part in parts)):
        raise DataError(f"{file}: text_label of row {row} is not three lists: expected positive, negative, uncertain")
    positive, negative, uncertain = parts or ([], [], [])
    lists: tuple[tuple[list[str], str], ...] = ((negative, "0"), (uncertain, "-1"), (positive, "1"))
    return {str(name): value for names, value in lists for name in names}


def _values(parts: Sequence[_Part], not_named: str) -> pd.DataFrame:
    """Labels of all rows. A test set with `class` is labelled in full: what no list names there is absent."""
    absent = {"three": "", "positives": not_named, "class": "0", "": ""}
    tables = []
    for part in parts:
        # A name that one file of a form never has may stand in the next one.
        names = sorted({name for p in parts if p.form == part.form for labels in p.named for name in labels})
        lists = {name: [labels.get(name, absent[part.form]) for labels in part.named] for name in names}
        tables.append(part.columns.assign(**lists))
    return pd.concat(tables, ignore_index=True).fillna("")


def _patients(images: pd.Series, pattern: str) -> pd.Series:
    try:
        if re.compile(pattern).groups == 1:
            return images.str.extract(pattern, expand=False)
    except re.error:
        pass
    raise DataError(f"--patient-pattern {pattern}: expected a regular expression with one group, such as (patient\\d+)")
