"""Open-i, the Indiana University chest images: 7,470 images of 3,955 reports (3,851 with images), one report a patient.

Demner-Fushman et al. 2016 (doi 10.1093/jamia/ocv080). Two layouts: the XML reports and PNG images of the National
Library of Medicine, and Kaggle's two tables. Findings and impression stay apart: CXR-CLIP's recipe takes max() of the
two strings, which is the one later in the alphabet, not the longer one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd
from tqdm import tqdm

from cxrcl.data.labels import NO_FINDING
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.data.sources.download import as_cells, compare_counts, drop, multi_hot, place
from cxrcl.data.sources.draw import Draw
from cxrcl.data.sources.openi_xml import ReportError, parse_report
from cxrcl.errors import DataError

# Head of a tag, and a word that has to follow it ('' for none) -> labels. Tags that could mean several findings are
# left out.
TAGS = {
    ("cardiomegaly", ""): ("Cardiomegaly",),
    ("cardiac shadow", "enlarged"): ("Cardiomegaly",),
    ("mediastinum", "enlarged"): ("Enlarged Cardiomediastinum",),
    ("opacity", "lung"): ("Lung Opacity",),
    ("airspace disease", ""): ("Lung Opacity",),
    ("infiltrate", ""): ("Lung Opacity",),
    ("nodule", "lung"): ("Lung Lesion",),
    ("mass", "lung"): ("Lung Lesion",),
    ("pulmonary edema", ""): ("Edema",),
    ("consolidation", ""): ("Consolidation",),
    ("pneumonia", ""): ("Pneumonia",),
    ("pulmonary atelectasis", ""): ("Atelectasis",),
    ("pneumothorax", ""): ("Pneumothorax",),
    ("hydropneumothorax", ""): ("Pneumothorax", "Pleural Effusion"),
    ("pleural effusion", ""): ("Pleural Effusion",),
    ("thickening", "pleura"): ("Pleural Other",),
    ("fractures, bone", ""): ("Fracture",),
    ("catheters, indwelling", ""): ("Support Devices",),
    ("implanted medical device", ""): ("Support Devices",),
    ("medical device", ""): ("Support Devices",),
    ("tube, inserted", ""): ("Support Devices",),
}
LABELS = (NO_FINDING, *dict.fromkeys(name for names in TAGS.values() for name in names))
NORMAL = "normal"
NOT_INDEXED = ("no indexing", "technical quality of image unsatisfactory")
DOUBT = "borderline"
_PUBLISHED = {"reports with images": 3_851, "images": 7_470}


def read(
    source: Path,
    *,
    layout: Literal["auto", "xml", "kaggle"] = "auto",
    images: str = "",
    draw: Draw = Draw(test_fraction=0.2),
) -> Prepared:
    """Open-i (Indiana): findings and impression of each report, labels by its MeSH tags.

    Splits are drawn by report; --test-fraction 1 makes all of it a test set.

    Args:
        source: the folder with ecgen-radiology/*.xml (at most two folders down) and NLMCXR_png/, or with Kaggle's
            indiana_reports.csv, indiana_projections.csv and images.
        layout: auto: XML reports if there are any, else Kaggle's tables.
        images: folder of the images inside the source folder; the source folder itself when not given.
    """
    dropped: dict[str, int] = {}
    files = [] if layout == "kaggle" else _xml_files(source)
    if files:
        rows = _from_xml(files, dropped)
        rows["view"] = _views(source, rows)
    elif layout == "xml":
        raise DataError(f"{source}: no XML reports: expected ecgen-radiology/*.xml in it")
    else:
        rows = _from_kaggle(source, dropped)
    rows = drop(rows, rows["image"].duplicated(), "images that stand in two reports", dropped)
    rows = rows.reset_index(drop=True)
    if draw.test_fraction == 1:
        splits, note = pd.Series("test", index=rows.index), "Splits: all test."
    else:
        splits, note = draw.splits(rows["uid"])
    ids = "CXR" + rows["uid"]
    table = pd.DataFrame(
        {
            "image": rows["image"],
            "patient": ids,
            "study": ids,
            "view": rows["view"],
            "split": splits,
            "findings": rows["findings"],
            "impression": rows["impression"],
            "source": "openi",
        }
    )
    table = pd.concat([table, tag_labels(rows["tags"])], axis=1)
    table = place(table, source / images, dropped, by="name" if not files else "stem")
    silent = (table["findings"] == "") & (table["impression"] == "")
    counts = {"reports with images": table["study"].nunique(), "images": len(table)}
    notes = [
        f"{note} {compare_counts(_PUBLISHED, counts)}",
        "A report is a patient: the source gives no other ids, and took one report a patient.",
        f"Labels: MeSH tags that indexers chose from the report. No Finding is the tag `{NORMAL}` alone; a finding "
        f"that no tag names is 0; a tag with `{DOUBT}` is -1; without tags, blank. Which tags count for which "
        "label: TAGS in cxrcl/data/sources/openi.py.",
        f"{int(silent.sum())} images have a report without findings and impression (XXXX: removed for privacy).",
        "Views are Kaggle's Frontal and Lateral; unknown where indiana_projections.csv is not there.",
    ]
    return Prepared(table.reset_index(drop=True), LABELS, source / images, dropped, notes)


def tag_labels(tags: pd.Series) -> pd.DataFrame:
    """Labels of reports, '1', '0', '-1' or '', a column a label.

    Args:
        tags: of each report, joined by ';'.
    """
    marks = multi_hot(tags, _labels_of)
    present = marks.reindex(columns=list(LABELS), fill_value=False)
    doubtful = marks.reindex(columns=[f"{name}?" for name in LABELS], fill_value=False).set_axis(LABELS, axis=1)
    cells = as_cells(present, ~marks.reindex(columns=["?"], fill_value=False)["?"])
    return cells.mask(doubtful & ~present, "-1")


def _labels_of(tags: str) -> list[str]:
    """The labels of a report, with a question mark where in doubt; '?' alone where it was not indexed."""
    parts = [[word.strip() for word in tag.lower().split("/")] for tag in tags.split(";") if tag.strip()]
    heads = {words[0] for words in parts}
    if not heads - set(NOT_INDEXED):
        return ["?"]
    if heads == {NORMAL}:
        return [NO_FINDING]
    names = []
    for words in parts:
        mark = "?" if DOUBT in words else ""
        for (head, qualifier), labels in TAGS.items():
            if words[0] == head and (not qualifier or qualifier in words[1:]):
                names += [name + mark for name in labels]
    return names


def _xml_files(source: Path) -> list[Path]:
    for pattern in ("ecgen-radiology/*.xml", "*/ecgen-radiology/*.xml", "*/*/ecgen-radiology/*.xml", "*.xml"):
        files = [path for path in source.glob(pattern) if not path.name.startswith(".")]
        if files:
            return sorted(files)
    return []


def _from_xml(files: list[Path], dropped: dict[str, int]) -> pd.DataFrame:
    """One image a row: uid, image, tags, findings, impression."""
    rows = []
    for file in tqdm(files, desc="reports", unit="", disable=None, leave=False):
        try:
            report = parse_report(file.read_bytes())
        except ReportError:
            dropped["report files that are no XML"] = dropped.get("report files that are no XML", 0) + 1
            continue
        if not report.images:
            dropped["reports without images"] = dropped.get("reports without images", 0) + 1
        uid = (report.uid or file.stem).upper().removeprefix("CXR")
        texts = {name.lower(): report.sections.get(name, "") for name in ("FINDINGS", "IMPRESSION")}
        rows += [{"uid": uid, "image": image, "tags": ";".join(report.tags), **texts} for image in report.images]
    if not rows:
        raise DataError(f"{files[0].parent}: no image in any of {len(files)} XML files: expected Open-i's reports")
    return pd.DataFrame(rows, dtype=str)


def _from_kaggle(source: Path, dropped: dict[str, int]) -> pd.DataFrame:
    """One image a row, with the columns of `_from_xml` and `view`."""
    hint = "expected ecgen-radiology/*.xml, or Kaggle's indiana_reports.csv and indiana_projections.csv"
    reports = read_table(source / "indiana_reports.csv", ("uid", "MeSH", "findings", "impression"), hint)
    rows = read_table(source / "indiana_projections.csv", ("uid", "filename", "projection"), hint)
    table = rows.merge(reports.drop_duplicates("uid"), on="uid", how="left", indicator=True)
    table = drop(table, table["_merge"] != "both", "images without a report", dropped)
    without = int((~reports["uid"].isin(rows["uid"])).sum())
    if without:
        dropped["reports without images"] = without
    texts = {name: table[name].str.split().str.join(" ") for name in ("findings", "impression")}
    view = table["projection"].str.strip().replace("", "unknown")
    return pd.DataFrame(
        {"uid": table["uid"], "image": table["filename"].str.strip(), "view": view, "tags": table["MeSH"], **texts}
    )


def _views(source: Path, rows: pd.DataFrame) -> pd.Series:
    """The views in Kaggle's table, where it is beside the XML reports. Both name an image alike from IM- on."""
    file = source / "indiana_projections.csv"
    if not file.is_file():
        return pd.Series("unknown", index=rows.index)
    projections = read_table(file, ("uid", "filename", "projection"))
    keys = projections["uid"].str.strip() + "/" + projections["filename"].str.extract(r"(IM-[\w-]+)")[0]
    views = pd.Series(projections["projection"].str.strip().to_numpy(), index=keys)
    views = views[~views.index.duplicated() & (views != "")]
    return (rows["uid"] + "/" + rows["image"].str.extract(r"(IM-[\w-]+)")[0]).map(views).fillna("unknown")
