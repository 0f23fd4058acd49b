"""MIMIC-CXR-JPG 2.0.0 and 2.1.0 with the free-text reports of MIMIC-CXR.

Johnson et al. 2019 (arXiv 1901.07042): 377,110 images of 227,835 studies of 65,379 patients; recommended split train
368,960, validate 2,991, test 5,159 images. The reports are a download of their own (mimic-cxr-reports.zip).
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pandas as pd

from cxrcl.data.labels import CHEXPERT
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.data.sources.cells import as_labels
from cxrcl.data.sources.download import drop
from cxrcl.data.text.sections import Sections, split_report
from cxrcl.errors import DataError

_SPLITS = {"train": "train", "validate": "valid", "test": "test"}
_VIEWS = {"": "unknown", "LATERAL": "Lateral", "LL": "Lateral", "RL": "Lateral"}
_REPORTS = ("mimic_cxr_sectioned.csv", "mimic_cxr_sectioned.csv.gz", "mimic-cxr-reports.zip", "mimic-cxr-reports", ".")
_NO_TEXT = Sections("", "")
_PROBED = 50  # studies whose report files are looked for before a folder is said to hold none


def read(
    source: Path,
    *,
    labels: Literal["chexpert", "negbio"] = "chexpert",
    reports: str = "",
    views: str = "",
    without_text: Literal["keep", "drop"] = "keep",
) -> Prepared:
    """MIMIC-CXR-JPG 2.0.0 or 2.1.0 with its reports (findings, impression) and labels of 14 findings.

    Args:
        source: the folder with mimic-cxr-2.0.0-split.csv, -metadata.csv, -chexpert.csv (.gz too) and files/.
        labels: the labeler whose file is read.
        reports: mimic-cxr-reports.zip, its unpacked folder, or mimic_cxr_sectioned.csv, by default looked for in
            source; none takes labels only.
        views: keep these only, such as PA,AP; all by default.
        without_text: keep or drop studies that have neither findings nor impression.
    """
    images = source / "files"
    if not images.is_dir():
        raise DataError(f"{images}: not found: --source is the folder mimic-cxr-jpg/2.x.0 that holds files/")
    table = _images(source, _labels(source, labels))
    texts, where = _texts(source, reports, table[["subject", "number"]].drop_duplicates())
    sections = [texts.get(study, _NO_TEXT) for study in table["number"]]
    table = table.assign(
        findings=[text.findings for text in sections], impression=[text.impression for text in sections]
    )

    dropped: dict[str, int] = {}
    if views:
        kept_views = [view.strip() for view in views.split(",")]
        absent = sorted(set(kept_views) - set(table["view"]))
        if absent:
            counts = ", ".join(f"{view} ({count})" for view, count in table["view"].value_counts().items())
            raise DataError(f"--views {views}: no image has the view {absent[0]}: it has {counts}")
        reason = f"view is not {' or '.join(kept_views)}"
        table = drop(table, ~table["view"].isin(kept_views), reason, dropped)
    silent = (table["findings"] == "") & (table["impression"] == "")
    notes = [
        "published: 377,110 images, 227,835 studies, 65,379 patients; train 368,960, validate 2,991, test 5,159 images",
        "split: the recommended one, validate is valid",
        f"labels: {labels}; blank is not mentioned, -1 uncertain",
        f"reports: {where}; {table.loc[silent, 'study'].nunique()} of {table['study'].nunique()} studies without text",
        "LATERAL, LL and RL are the view Lateral; a blank view is unknown",
    ]
    if without_text == "drop":
        if silent.all():
            raise DataError(
                f"--without-text drop leaves nothing: no study has findings or impression (reports: {where})"
            )
        table = drop(table, silent, "study without findings and impression", dropped)
    table = table.drop(columns=["subject", "number"]).reset_index(drop=True)
    return Prepared(table, CHEXPERT, images, dropped, notes)


def normal_views(views: pd.Series) -> pd.Series:
    """PA, AP, Lateral or unknown; other words of the source stay as they are."""
    stripped = views.str.strip()
    return stripped.str.upper().map(_VIEWS).fillna(stripped)


def _file(source: Path, kind: str) -> Path:
    """mimic-cxr-2.0.0-<kind>.csv or .csv.gz: both releases of the data carry 2.0.0 in these names."""
    files = sorted(source.glob(f"mimic-cxr-*-{kind}.csv")) + sorted(source.glob(f"mimic-cxr-*-{kind}.csv.gz"))
    return files[0] if files else source / f"mimic-cxr-2.0.0-{kind}.csv.gz"


def _unique(table: pd.DataFrame, key: str, file: Path) -> pd.DataFrame:
    twice = table[key].duplicated()
    if twice.any():
        raise DataError(f"{file}: {int(twice.sum())} values of {key} stand twice: expected one row each")
    return table


def _labels(source: Path, labeler: str) -> pd.DataFrame:
    file = _file(source, labeler)
    table = read_table(file, ("study_id", *CHEXPERT), f"--labels {labeler} reads it")
    values = {name: as_labels(table[name], str(file)) for name in CHEXPERT}
    return _unique(pd.DataFrame({"study_id": table["study_id"], **values}), "study_id", file)


def _images(source: Path, labels: pd.DataFrame) -> pd.DataFrame:
    """One image a row, with its view and the labels of its study; `subject` and `number` are the bare ids."""
    file = _file(source, "split")
    split = _unique(read_table(file, ("dicom_id", "study_id", "subject_id", "split")), "dicom_id", file)
    wrong = ~split["split"].isin(_SPLITS)
    if wrong.any():
        raise DataError(f"{file}: split {split.loc[wrong, 'split'].iloc[0]!r}: expected {', '.join(_SPLITS)}")
    file = _file(source, "metadata")
    metadata = _unique(read_table(file, ("dicom_id", "ViewPosition")), "dicom_id", file)
    # Joined by id: the files need not be in the same order, nor hold the same images and studies.
    joined = split.merge(metadata[["dicom_id", "ViewPosition"]], on="dicom_id", how="left")
    joined = joined.merge(labels, on="study_id", how="left")
    patient, study = "p" + joined["subject_id"], "s" + joined["study_id"]
    return pd.DataFrame(
        {
            "image": patient.str[:3] + "/" + patient + "/" + study + "/" + joined["dicom_id"] + ".jpg",
            "patient": patient,
            "study": study,
            "view": normal_views(joined["ViewPosition"].fillna("")),
            "split": joined["split"].map(_SPLITS),
            "source": "mimic_cxr",
            "subject": joined["subject_id"],
            "number": joined["study_id"],
            **{name: joined[name].fillna("") for name in CHEXPERT},
        }
    )


def _texts(source: Path, reports: str, studies: pd.DataFrame) -> tuple[dict[str, Sections], str]:
    """Study number -> sections, and the name of the file or folder that they are from."""
    if reports == "none":
        return {}, "none"
    for place in [Path(reports).expanduser()] if reports else [source / name for name in _REPORTS]:
        if place.is_dir():
            read_one = _from_folder(place, studies)
        elif place.suffix == ".zip" and place.is_file():
            try:
                with zipfile.ZipFile(place) as archive:
                    return _split_all(_from_zip(archive), studies), place.name
            except (zipfile.BadZipFile, zlib.error) as error:
                raise DataError(f"{place}: not a whole zip file ({error}): download it again") from None
        elif place.is_file():
            return _sectioned(place), place.name
        else:
            continue
        if read_one is not None:
            return _split_all(read_one, studies), place.name or "files"
    raise DataError(
        f"{reports or source}: no reports: set --reports to mimic-cxr-reports.zip, to its unpacked folder (with "
        "files/p10/p10000032/s50414267.txt) or to mimic_cxr_sectioned.csv, or to none for labels only"
    )


def _split_all(read_one: Callable[[str, str], str | None], studies: pd.DataFrame) -> dict[str, Sections]:
    texts = ((study, read_one(subject, study)) for subject, study in zip(studies["subject"], studies["number"]))
    return {study: split_report(text) for study, text in texts if text is not None}


def _from_folder(folder: Path, studies: pd.DataFrame) -> Callable[[str, str], str | None] | None:
    """A reader of (subject, study), or None where the folder holds no reports."""
    base = folder / "files" if (folder / "files").is_dir() else folder

    def path(subject: str, study: str) -> Path:
        return base / f"p{subject[:2]}" / f"p{subject}" / f"s{study}.txt"

    def read_one(subject: str, study: str) -> str | None:
        file = path(subject, study)
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None

    probed = studies.iloc[:: max(1, len(studies) // _PROBED)]
    return read_one if any(path(*ids).is_file() for ids in zip(probed["subject"], probed["number"])) else None


def _from_zip(archive: zipfile.ZipFile) -> Callable[[str, str], str | None]:
    members = {m[1]: name for name in archive.namelist() if (m := re.search(r"(?:^|/)s(\d+)\.txt$", name))}
    if not members:
        raise DataError(f"{archive.filename}: holds no report such as files/p10/p10000032/s50414267.txt")

    def read_one(subject: str, study: str) -> str | None:
        return archive.read(members[study]).decode("utf-8", errors="replace") if study in members else None

    return read_one


def _sectioned(file: Path) -> dict[str, Sections]:
    """The CSV of MIT-LCP's create_section_files; its last paragraph is the impression of a report without headings."""
    table = _unique(read_table(file, ("study", "impression", "findings")), "study", file)
    last = table["last_paragraph"] if "last_paragraph" in table else pd.Series("", index=table.index)
    bare = (table["impression"].str.strip() == "") & (table["findings"].str.strip() == "")
    impression = table["impression"].mask(bare, last).str.strip()
    numbers = table["study"].str.strip().str.removeprefix("s")
    return {n: Sections(f, i) for n, f, i in zip(numbers, table["findings"].str.strip(), impression)}
