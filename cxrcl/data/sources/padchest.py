"""PadChest: 160,868 images of 67,625 patients of one Spanish hospital, reports in Spanish, 174 findings.

Bustos et al. 2020 (arXiv 1901.07441). 27 % of the reports were labelled by physicians, the others by a network trained
on these. The images are 16-bit PNG files in folders or zip files 0 to 54.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from cxrcl.data.labels import CHEXPERT, NO_FINDING
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.data.sources.cells import filled, literal_list
from cxrcl.data.sources.download import as_cells, check_ages, compare_counts, drop, find_file, multi_hot, place
from cxrcl.data.sources.draw import Draw
from cxrcl.errors import DataError

# CheXpert's name -> the term of the same meaning, then its kinds (children in the source's tree): a label of 0 beside
# one of its kinds would be wrong.
TERMS = {
    NO_FINDING: ("normal",),
    "Enlarged Cardiomediastinum": ("mediastinal enlargement", "superior mediastinal enlargement"),
    "Cardiomegaly": ("cardiomegaly",),
    "Edema": ("pulmonary edema",),
    "Consolidation": ("consolidation",),
    "Pneumonia": ("pneumonia", "atypical pneumonia"),
    "Atelectasis": (
        *("atelectasis", "laminar atelectasis", "lobar atelectasis", "segmental atelectasis", "total atelectasis"),
        *("round atelectasis", "atelectasis basal"),
    ),
    "Pneumothorax": ("pneumothorax", "hydropneumothorax"),
    "Pleural Effusion": (
        *("pleural effusion", "loculated pleural effusion", "loculated fissural effusion", "hydropneumothorax"),
        *("empyema", "hemothorax"),
    ),
    "Fracture": (
        *("fracture", "rib fracture", "callus rib fracture", "clavicle fracture", "humeral fracture"),
        "vertebral fracture",
    ),
}
_OF_TERM = {
    term: [label for label, terms in TERMS.items() if term in terms] for kinds in TERMS.values() for term in kinds
}
_SAME = {terms[0] for terms in TERMS.values()}
EXCLUDE = "exclude"
NOT_FINDINGS = (EXCLUDE, "unchanged", "suboptimal study")
VIEWS = {"L": "Lateral"}
# Known to be cut off or absent in the public archive.
BAD_IMAGES = (
    "216840111366964012283393834152009033102258826_00-059-087.png",
    "216840111366964012339356563862009072111404053_00-043-192.png",
    "216840111366964012373310883942009117084022290_00-064-025.png",
    "216840111366964012373310883942009170084120009_00-097-074.png",
    "216840111366964012558082906712009327122220177_00-102-064.png",
    "216840111366964012819207061112010306085429121_04-020-102.png",
    "216840111366964012819207061112010307142602253_04-014-084.png",
    "216840111366964012819207061112010315104455352_04-024-184.png",
    "216840111366964012959786098432011033083840143_00-176-115.png",
    "216840111366964012989926673512011074122523403_00-163-058.png",
    "216840111366964013076187734852011291090445391_00-196-188.png",
)
_COLUMNS = ("ImageID", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM", "StudyDate_DICOM", "Projection")
_PUBLISHED = {"images": 160_868, "studies": 109_931, "patients": 67_625}


def read(
    source: Path,
    *,
    physician_only: bool = False,
    top_labels: int = 20,
    images: str = "",
    draw: Draw = Draw(),
) -> Prepared:
    """PadChest: Spanish reports (as findings), labels of CheXpert's findings and of the most frequent others.

    Args:
        source: the folder with PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv(.gz) and the images, in folders or
            zip files.
        physician_only: only images whose report was labelled by a physician, and not by the network.
        top_labels: how many further findings become labels: the most frequent ones.
        images: folder of the images inside the source folder (a resized copy); the source folder itself when not given.
    """
    if top_labels < 0:
        raise DataError(f"--top-labels {top_labels}: expected 0 or more")
    file = find_file(source, "PADCHEST_chest_x_ray_images_labels*.csv*", "*PADCHEST*.csv*")
    rows = read_table(file, (*_COLUMNS, "Report", "MethodLabel", "Labels"))
    rows = rows[[*_COLUMNS, "Report", "MethodLabel", "Labels"]].apply(filled)
    dropped: dict[str, int] = {}
    rows = drop(rows, (rows["PatientID"] == "") | (rows["StudyID"] == ""), "images without patient or study", dropped)
    rows = drop(rows, rows["ImageID"].duplicated(), "images that stand twice in the table", dropped)
    rows = rows.reset_index(drop=True)
    rows["split"], note = draw.splits(rows["PatientID"])
    rows = drop(rows, rows["ImageID"].isin(BAD_IMAGES), "images known to be damaged in the archive", dropped)
    rows = drop(rows, rows["Projection"] == "EXCLUDE", "images that are no chest images (Projection EXCLUDE)", dropped)
    if physician_only:
        rows = drop(rows, rows["MethodLabel"] != "Physician", "reports that no physician labelled", dropped)
    findings = multi_hot(rows["Labels"], lambda cell: _names(cell, file))
    excluded = findings.get(EXCLUDE, pd.Series(False, index=rows.index))
    rows = drop(rows, excluded, "reports labelled exclude", dropped)
    rows = place(rows.rename(columns={"ImageID": "image"}), source / images, dropped)
    findings = findings.loc[rows.index]

    labels = _choose(findings, top_labels)
    is_labelled = findings.drop(columns=[name for name in NOT_FINDINGS if name in findings]).any(axis=1)
    table = pd.DataFrame(
        {
            "image": rows["image"],
            "patient": rows["PatientID"],
            "study": rows["StudyID"],
            "view": rows["Projection"].replace({"": "unknown", **VIEWS}),
            "split": rows["split"],
            "findings": rows["Report"].str.split().str.join(" "),
            "sex": rows["PatientSex_DICOM"],
            "age": _ages(rows["StudyDate_DICOM"], rows["PatientBirth"]),
            "source": "padchest",
        }
    )
    table = pd.concat([table, as_cells(findings.reindex(columns=labels, fill_value=False), is_labelled)], axis=1)
    counts = {"images": len(table), "studies": table["study"].nunique(), "patients": table["patient"].nunique()}
    methods = ", ".join(f"{name or 'blank'} {count:,}" for name, count in rows["MethodLabel"].value_counts().items())
    notes = [
        f"{note} {compare_counts(_PUBLISHED, counts)}",
        f"Labelled by: {methods}. A finding that is not named is 0. "
        f"Blank without labels: {int((~is_labelled).sum())} images.",
        "Labels of CheXpert's names count the term of the same meaning and its kinds (Atelectasis: laminar "
        "atelectasis, ...); the others are the source's terms with capitals.",
        "Reports are Spanish, cut and stemmed by the source; they stand in `findings`.",
        "Age is the year of the study less the year of birth. View AP_horizontal: lying patient; COSTAL: ribs.",
    ]
    return Prepared(table.reset_index(drop=True), tuple(labels), source / images, dropped, notes)


def _names(cell: str, file: Path) -> list[str]:
    """The labels in a cell such as "['pleural effusion', ' cardiomegaly']"; terms of NOT_FINDINGS stay as they are."""
    terms = literal_list(cell) if cell else []
    if terms is None or not all(isinstance(term, str) for term in terms):
        raise DataError(f"{file}: Labels {cell[:60]!r}: expected a list such as ['pleural effusion', 'cardiomegaly']")
    return [name for term in terms for name in _names_of_term(term)]


@cache
def _names_of_term(term: str) -> list[str]:
    words = term.split()
    key = " ".join(words).lower()
    names = list(_OF_TERM.get(key, []))
    if key in NOT_FINDINGS:
        names.append(key)
    elif key and key not in _SAME:
        names.append(" ".join(word.capitalize() if word.islower() else word for word in words))
    return names


def _choose(findings: pd.DataFrame, top_labels: int) -> list[str]:
    """The label columns: CheXpert's names in their order, then the most frequent others (ties: by name)."""
    counts = {str(name): int(count) for name, count in findings.sum().items()}
    others = sorted(set(counts) - set(TERMS) - set(NOT_FINDINGS), key=lambda name: (-counts[name], name))
    return [*(name for name in CHEXPERT if name in TERMS), *others[:top_labels]]


def _ages(dates: pd.Series, births: pd.Series) -> pd.Series:
    years = pd.to_numeric(dates.str[:4], errors="coerce")
    return check_ages(years - pd.to_numeric(births, errors="coerce"))
