"""A mixed collection of real images with a labels.csv (one image a row) and a reports.csv (one study a row).

Labels: 1, 0, -1, and blank for "the source does not say", which is not a negative. Reports name their images in
`image_paths`, separated by semicolons; `clinical_note` is left out, since it often names the diagnosis.
"""

from __future__ import annotations

from pathlib import Path

from cxrcl.data.labels import CHEXPERT
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.data.sources.draw import HeldOut
from cxrcl.errors import DataError

LABELS = (*CHEXPERT, "COVID-19")
HINT = "--source is the folder with labels.csv, reports.csv and images/"


def read(source: Path, *, held_out: HeldOut = HeldOut()) -> Prepared:
    """A folder with labels.csv, reports.csv and images/ (Indiana, NIH, COVID-19, Hannover images in one table)."""
    columns = ("path", "patient_id", "study_id", "view", "split", "source", *LABELS)
    labels = read_table(source / "labels.csv", columns, HINT)
    reports = read_table(source / "reports.csv", ("image_paths", "findings", "impression"), HINT)
    if not (source / "images").is_dir():
        raise DataError(f"{source / 'images'}: not found: {HINT}")
    reports = reports.assign(path=reports["image_paths"].str.split(";")).explode("path")
    reports["path"] = reports["path"].str.strip()
    is_labelled = reports["path"].isin(labels["path"])
    if not is_labelled.all():
        raise DataError(f"{source / 'reports.csv'}: {int((~is_labelled).sum())} image paths are not in labels.csv")
    twice = reports["path"].duplicated()
    if twice.any():
        raise DataError(f"{source / 'reports.csv'}: {int(twice.sum())} images stand in two reports")
    texts = reports[["path", "findings", "impression"]]
    table = labels[list(columns)].merge(texts, on="path", how="left", validate="many_to_one").fillna("")
    table = table.rename(columns={"path": "image", "patient_id": "patient", "study_id": "study"})
    table["image"] = table["image"].str.removeprefix("images/")
    table["split"], origin = held_out.splits(table["patient"], table["split"])
    notes = (
        origin,
        "A blank label means that the source does not say; it is not a negative.",
        "The column clinical_note is left out: it often names the diagnosis.",
    )
    return Prepared(table, LABELS, source / "images", notes=notes)
