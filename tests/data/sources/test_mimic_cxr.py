"""The MIMIC-CXR-JPG reader on a small tree with the layout of the download."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from downloads import column, fill_images, load, write_csv

from cxrcl.data.labels import CHEXPERT
from cxrcl.data.sources import mimic_cxr
from cxrcl.data.sources.base import read_table
from cxrcl.data.sources.mimic_cxr import normal_views
from cxrcl.errors import DataError

Row = dict[str, str]

# dicom_id, subject_id, study_id, split, ViewPosition
IMAGES = [
    ("aaaa-1", "10000032", "50414267", "train", "PA"),
    ("aaaa-2", "10000032", "50414267", "train", "LATERAL"),
    ("bbbb-1", "10000032", "53189527", "train", ""),
    ("cccc-1", "11000001", "51000001", "validate", "LL"),
    ("dddd-1", "19000007", "59000007", "test", "AP"),
]
REPORTS = {
    "50414267": "FINAL REPORT\n FINDINGS: Lungs clear.\n\n IMPRESSION: Normal.\n",
    "53189527": "FINAL REPORT\n IMPRESSION: Edema, \xb5.\n",
    "51000001": "FINAL REPORT\n INDICATION: Fever.\n",
}
SUBJECT = {study: subject for _, subject, study, _, _ in IMAGES}
ALPHABETICAL = sorted(CHEXPERT)


def labels(**edema: str) -> list[Row]:
    blank = dict.fromkeys(ALPHABETICAL, "")
    return [{"subject_id": SUBJECT[s[1:]], "study_id": s[1:], **blank, "Edema": value} for s, value in edema.items()]


def build(folder: Path) -> Path:
    """Without reports. Metadata stand in another order than the split, and one study has no labels."""
    split = [{"dicom_id": d, "study_id": s, "subject_id": p, "split": part} for d, p, s, part, _ in IMAGES]
    write_csv(folder / "mimic-cxr-2.0.0-split.csv.gz", split)
    metadata = [{"dicom_id": d, "subject_id": p, "study_id": s, "ViewPosition": v} for d, p, s, _, v in IMAGES[::-1]]
    write_csv(folder / "mimic-cxr-2.0.0-metadata.csv.gz", metadata)
    found = labels(s50414267="0.0", s53189527="1.0", s51000001="-1.0")
    write_csv(folder / "mimic-cxr-2.0.0-chexpert.csv.gz", found)
    write_csv(folder / "mimic-cxr-2.0.0-negbio.csv.gz", labels(s50414267="1.0"))
    for dicom, subject, study, _, _ in IMAGES:
        path = folder / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{dicom}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.fixture
def download(tmp_path: Path) -> Path:
    return build(tmp_path / "2.1.0")


def report_file(folder: Path, study: str) -> Path:
    subject = SUBJECT[study]
    return folder / f"p{subject[:2]}" / f"p{subject}" / f"s{study}.txt"


def unpacked(folder: Path) -> Path:
    for study, text in REPORTS.items():
        path = report_file(folder, study)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1"))
    return folder


def zipped(path: Path, prefix: str = "files") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{prefix}/", "")
        for study, text in REPORTS.items():
            archive.writestr(str(report_file(Path(prefix), study)), text.encode("latin-1"))
    return path


def test_columns_splits_and_labels(download: Path, tmp_path: Path) -> None:
    zipped(download / "mimic-cxr-reports.zip")
    data = load(mimic_cxr.read(download), tmp_path / "out")
    rows = data.rows
    assert rows["image"].iloc[0] == "images/p10/p10000032/s50414267/aaaa-1.jpg"
    assert all(Path(path).is_file() for path in rows["path"])
    assert rows["patient"].tolist() == ["p10000032"] * 3 + ["p11000001", "p19000007"]
    assert rows["study"].tolist()[1:3] == ["s50414267", "s53189527"]
    assert rows["view"].tolist() == ["PA", "Lateral", "unknown", "Lateral", "AP"]
    assert rows["split"].tolist() == ["train"] * 3 + ["valid", "test"]
    assert set(rows["source"]) == {"mimic_cxr"}
    assert rows["findings"].tolist() == ["Lungs clear."] * 2 + [""] * 3
    assert rows["impression"].tolist() == ["Normal.", "Normal.", "Edema, \ufffd.", "", ""]
    assert data.labels == CHEXPERT
    np.testing.assert_array_equal(data.values[:, CHEXPERT.index("Edema")], [0, 0, 1, -1, np.nan])
    assert np.isnan(np.delete(data.values, CHEXPERT.index("Edema"), axis=1)).all()


def test_the_other_labeler(download: Path) -> None:
    found = mimic_cxr.read(download, labels="negbio", reports="none").table
    assert found["Edema"].tolist() == ["1", "1", "", "", ""]


def test_tables_may_be_unpacked(download: Path) -> None:
    expected = mimic_cxr.read(download, reports="none").table
    for kind in ("split", "metadata", "chexpert"):
        packed = download / f"mimic-cxr-2.0.0-{kind}.csv.gz"
        write_csv(packed.with_suffix(""), read_table(packed, ()).to_dict("records"))
        packed.unlink()
    assert mimic_cxr.read(download, reports="none").table.equals(expected)


@pytest.mark.parametrize(
    "place", ["files", "mimic-cxr-reports/files", "elsewhere/files", "elsewhere", "a.zip", "b.zip"]
)
def test_reports_from_any_place_are_the_same(download: Path, tmp_path: Path, place: str) -> None:
    expected = mimic_cxr.read(download, reports=str(zipped(tmp_path / "reports.zip"))).table
    assert (expected["impression"] != "").sum() == 3
    given = ""
    if place.endswith(".zip"):
        given = str(zipped(tmp_path / place, "files" if place == "a.zip" else "mimic-cxr-reports/files"))
    elif place.startswith("elsewhere"):
        unpacked(tmp_path / place)
        given = str(tmp_path / "elsewhere")
    else:
        unpacked(download / place)
    assert mimic_cxr.read(download, reports=given).table.equals(expected)


def test_sectioned_reports(download: Path, tmp_path: Path) -> None:
    blank = {"findings": "", "impression": "", "last_paragraph": "", "comparison": "None."}
    rows = [
        {"study": "s53189527", **blank, "last_paragraph": "At the end."},
        {"study": "s50414267", **blank, "findings": "In two\nlines.", "last_paragraph": "Not taken."},
    ]
    write_csv(download / "mimic_cxr_sectioned.csv", rows)
    unpacked(download / "files")  # what is sectioned already comes first
    rows = load(mimic_cxr.read(download), tmp_path / "out").rows
    assert rows["findings"].tolist() == ["In two\nlines."] * 2 + [""] * 3
    assert rows["impression"].tolist() == ["", "", "At the end.", "", ""]


def test_missing_reports_are_said(download: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none for labels only"):
        mimic_cxr.read(download)
    with pytest.raises(DataError, match="no reports: set --reports"):
        mimic_cxr.read(download, reports=str(tmp_path / "no.zip"))
    with zipfile.ZipFile(tmp_path / "wrong.zip", "w") as archive:
        archive.writestr("a.txt", "")
    with pytest.raises(DataError, match="holds no report such as"):
        mimic_cxr.read(download, reports=str(tmp_path / "wrong.zip"))
    (tmp_path / "bad.zip").write_bytes(b"x")
    with pytest.raises(DataError, match="not a whole zip file"):
        mimic_cxr.read(download, reports=str(tmp_path / "bad.zip"))


def test_studies_without_text_are_kept_or_dropped(download: Path) -> None:
    unpacked(download / "files")
    kept = mimic_cxr.read(download)
    assert len(kept.table) == 5 and not kept.dropped
    assert any("2 of 4 studies without text" in note for note in kept.notes)
    found = mimic_cxr.read(download, without_text="drop")
    assert found.table["study"].tolist() == ["s50414267", "s50414267", "s53189527"]
    assert found.dropped == {"study without findings and impression": 2}
    with pytest.raises(DataError, match="--without-text drop leaves nothing"):
        mimic_cxr.read(download, reports="none", without_text="drop")


def test_views_are_kept_by_name(download: Path) -> None:
    found = mimic_cxr.read(download, reports="none", views="PA, AP")
    assert column(found, "view") == {"aaaa-1.jpg": "PA", "dddd-1.jpg": "AP"}
    assert found.dropped == {"view is not PA or AP": 3}
    with pytest.raises(DataError, match="no image has the view LL: it has Lateral"):
        mimic_cxr.read(download, reports="none", views="LL")


def test_one_vocabulary_of_views() -> None:
    views = pd.Series(["AP", "lateral", " LL", "RL", "", "AP AXIAL", "LAO"])
    assert normal_views(views).tolist() == ["AP", "Lateral", "Lateral", "Lateral", "unknown", "AP AXIAL", "LAO"]


def test_faults_of_the_tables(download: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="that holds files/"):
        mimic_cxr.read(tmp_path)
    file = download / "mimic-cxr-2.0.0-split.csv.gz"
    rows = read_table(file, ()).to_dict("records")
    write_csv(file, [*rows, rows[0]])
    with pytest.raises(DataError, match="1 values of dicom_id stand twice"):
        mimic_cxr.read(download, reports="none")
    write_csv(file, [{**rows[0], "split": "dev"}])
    with pytest.raises(DataError, match="split 'dev': expected train, validate, test"):
        mimic_cxr.read(download, reports="none")
    (download / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    with pytest.raises(DataError, match=r"chexpert.csv.gz: not found: --labels chexpert"):
        mimic_cxr.read(download, reports="none")


def test_an_image_without_metadata_has_an_unknown_view(download: Path) -> None:
    write_csv(download / "mimic-cxr-2.0.0-metadata.csv.gz", [{"dicom_id": "aaaa-1", "ViewPosition": "PA"}])
    assert mimic_cxr.read(download, reports="none").table["view"].tolist() == ["PA"] + ["unknown"] * 4


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    build(folder)
    zipped(folder / "mimic-cxr-reports.zip")
    fill_images(folder)
    return []
