"""A mixed collection of real films with a labels.csv (one image a row) and a reports.csv (one study a row).

Labels: 1, 0, -1, and blank for "the source does not say", which is not a negative. Reports name their images in
`image_paths`, separated by semicolons; `clinical_note` is left out, since it often names the diagnosis.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxrcl.data.labels import CHEXPERT
from cxrcl.data.manifest import FILE_NAME
from cxrcl.errors import DataError

LABELS = (*CHEXPERT, "COVID-19")


def _read(file: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    if not file.is_file():
        raise DataError(f"{file}: not found: --source is the folder with labels.csv, reports.csv and images/")
    table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    missing = [name for name in columns if name not in table]
    if missing:
        raise DataError(f"{file}: no column {', '.join(missing)}; found: {', '.join(table.columns)}")
    return table


def prepare(source: Path, out: Path) -> Path:
    """Write `out`/manifest.csv; the films stay where they are and `out`/images leads to them.

    Returns:
        The manifest's path.
    """
    labels = _read(source / "labels.csv", ("path", "patient_id", "study_id", "view", "split", "source", *LABELS))
    reports = _read(source / "reports.csv", ("image_paths", "findings", "impression"))
    reports = reports.assign(path=reports["image_paths"].str.split(";")).explode("path")
    reports["path"] = reports["path"].str.strip()
    known = reports["path"].isin(labels["path"])
    if not known.all():
        raise DataError(f"{source / 'reports.csv'}: {int((~known).sum())} image paths are not in labels.csv")
    twice = reports["path"].duplicated()
    if twice.any():
        raise DataError(f"{source / 'reports.csv'}: {int(twice.sum())} images stand in two reports")
    table = labels.merge(reports[["path", "findings", "impression"]], on="path", how="left", validate="one_to_one")
    manifest = pd.DataFrame(
        {
            "image": table["path"],
            "patient": table["patient_id"],
            "study": table["study_id"],
            "view": table["view"],
            "split": table["split"],
            "source": table["source"],
            "findings": table["findings"].fillna(""),
            "impression": table["impression"].fillna(""),
            **{name: table[name] for name in LABELS},
        }
    )
    out.mkdir(parents=True, exist_ok=True)
    _lead_to(source / "images", out / "images")
    path = out / FILE_NAME
    manifest.to_csv(path, index=False)
    return path


def _lead_to(folder: Path, link: Path) -> None:
    """A symbolic link, so that films are not copied."""
    if not folder.is_dir():
        raise DataError(f"{folder}: not found: --source is the folder with labels.csv, reports.csv and images/")
    if link.resolve() == folder.resolve():
        return
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        raise DataError(f"{link} exists: choose another --out")
    link.symlink_to(folder.resolve(), target_is_directory=True)
