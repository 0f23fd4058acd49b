"""What the readers of tables that users write share: the file, and which of its columns mean what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxrcl.data.sources.cells import as_labels, as_splits, filled, label_names
from cxrcl.data.sources.draw import Draw
from cxrcl.errors import DataError

NO_PATIENTS = "No column of patients was given: each study counts as a patient, so splits may share persons."
SAME_ROW = "the same row again"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A table of a user's own, and its columns: by name, or by number from 0.

    Attributes:
        table: file in the folder; the only CSV or TSV in it when not given.
        separator: of columns: a character, or tab; a comma when not given, a tab for .tsv.
        image: column of images.
        patient: column of patients' ids: a patient is in one split only; without it each study is a patient.
        study: column of studies' ids; without it each image is a study.
        view: column of views.
        split: column of splits (train, valid or val, test); they are drawn when not given.
        balanced: column whose values should be as frequent in each drawn split.
        labels: label columns (1, 0, -1 or blank), with commas between.
    """

    table: str = ""
    separator: str = ""
    image: str = "0"
    patient: str = ""
    study: str = ""
    view: str = ""
    split: str = ""
    balanced: str = ""
    labels: str = ""

    def file(self, source: Path) -> tuple[Path, str]:
        """The file and its separator: those given, else the only table of the folder and what its suffix says."""
        files = [source / self.table]
        if not self.table:
            files = sorted(path for path in source.iterdir() if re.search(r"(?i)\.(csv|tsv)(\.gz)?$", path.name))
        if len(files) != 1:
            names = ", ".join(path.name for path in files[:5]) or "none"
            raise DataError(f"{source}: {len(files)} CSV files ({names}): name the one to read with --table")
        if not self.separator:
            return files[0], "\t" if ".tsv" in files[0].name.lower() else ","
        mark = "\t" if self.separator in ("tab", "\\t") else self.separator
        if len(mark) != 1:
            raise DataError(f"--separator {self.separator}: expected one character, or tab")
        return files[0], mark

    def cells(self, rows: pd.DataFrame, option: str) -> pd.Series | None:
        """The column of an option as it is written, or None where the option is not given."""
        name = getattr(self, option)
        return rows[column(rows, name, option)] if name else None

    def label_cells(self, rows: pd.DataFrame, where: Path, others: Sequence[str] = ()) -> pd.DataFrame:
        """The label columns, or `others` where none is named, under the names of the labels."""
        chosen = [column(rows, name.strip(), "labels") for name in self.labels.split(",") if name.strip()]
        names = label_names(chosen or others, str(where))
        return pd.DataFrame({label: as_labels(rows[name], str(where)) for name, label in names.items()}, rows.index)

    def manifest(
        self, rows: pd.DataFrame, images: pd.Series, studies: pd.Series, draw: Draw, where: Path
    ) -> tuple[pd.DataFrame, str]:
        """The columns of a manifest from image to split, and a note on the splits.

        Args:
            rows: of the table.
            images: the path of each row's image.
            studies: ids, where there is no column of them.
            draw: of the splits that the table has not.
            where: the file, for errors.
        """
        study, patient, view, split, balanced = (
            self.cells(rows, option) for option in ("study", "patient", "view", "split", "balanced")
        )
        table = pd.DataFrame({"image": images})
        table["study"] = studies if study is None else filled(study)
        table["patient"] = table["study"] if patient is None else filled(patient)
        table["view"] = "unknown" if view is None else filled(view).replace("", "unknown")
        own_splits = None if split is None else as_splits(split, str(where))
        table["split"], note = draw.splits(table["patient"], own_splits, balanced)
        return table, note


def column(table: pd.DataFrame, name: str, option: str) -> str:
    """A column by its name in the header, else by its number from 0."""
    if name in table:
        return name
    if name.isdecimal() and int(name) < len(table.columns):
        return str(table.columns[int(name)])
    raise DataError(
        f"--{option} {name}: no such column; found: {', '.join(table.columns)} "
        f"(by name, or by number from 0 to {len(table.columns) - 1})"
    )
