"""Open-i: XML reports with and without sections, broken and hostile files, Kaggle's tables, labels by MeSH tags."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from downloads import column, fill_images, load, positives, row, write, write_images

from cxrcl.commands import prepare
from cxrcl.data.sources import openi
from cxrcl.data.sources.openi_xml import ReportError, parse_report
from cxrcl.errors import DataError

read = partial(prepare.call, openi.read)


def xml(uid: int, images: list[str], tags: list[str], **sections: str) -> str:
    texts = "".join(f'<AbstractText Label="{name}">{text}</AbstractText>' for name, text in sections.items())
    return (
        f'<?xml version="1.0" encoding="utf-8"?><eCitation><meta type="rr"/><uId id="CXR{uid}"/>'
        f"<MedlineCitation><Article><Abstract>{texts}</Abstract></Article></MedlineCitation>"
        f"<MeSH>{''.join(f'<major>{tag}</major>' for tag in tags)}<automatic>Pneumonia</automatic></MeSH>"
        + "".join(f'<parentImage id="{image}"><caption>PA and lateral</caption></parentImage>' for image in images)
        + "</eCitation>"
    )


REPORTS = {
    "1.xml": xml(
        *(1, ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"], ["normal"]),
        COMPARISON="None.",
        FINDINGS="The heart is normal.\n  No effusion &lt;1 cm.",
        IMPRESSION="Normal chest.",
    ),
    "2.xml": xml(
        2,
        ["CXR2_IM-0652-1001"],
        ["Cardiomegaly/borderline", "Opacity/lung/base/left"],
        FINDINGS="",
        IMPRESSION="Zebra.",
    ),
    "3.xml": xml(3, ["CXR3_IM-1384-1001"], ["No Indexing"], IMPRESSION="Apple."),
    "4.xml": xml(4, [], ["normal"], FINDINGS="No image."),
    "5.xml": "<eCitation><uId id='CXR5'/><parentImage id='CXR5_IM-1'>",
    "6.xml": '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><eCitation>&b;</eCitation>',
    "7.xml": xml(7, ["CXR7_IM-0001-1001"], ["Pneumonia/lung"]),
}
IMAGES = ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001", "CXR2_IM-0652-1001", "CXR3_IM-1384-1001"]
PROJECTIONS = (
    "uid,filename,projection\n1,1_IM-0001-4001.dcm.png,Frontal\n1,1_IM-0001-3001.dcm.png,Lateral\n"
    "2,2_IM-0652-1001.dcm.png,Frontal\n9,9_IM-1384-1001.dcm.png,Frontal\n"
)
KAGGLE = (
    "uid,MeSH,Problems,image,indication,comparison,findings,impression\n"
    '1,normal,normal,"Chest, 2 views",XXXX,None.,"Clear lungs,\nno effusion.",Normal chest.\n'
    "2,Cardiomegaly/borderline;Opacity/lung/base/left,Cardiomegaly,x,,,,Zebra.\n"
    "4,normal,normal,x,,,No image.,\n"
)


def build(source: Path) -> Path:
    for name, text in REPORTS.items():
        write(source / "NLMCXR_reports" / "ecgen-radiology" / name, text)
    write_images(source / "NLMCXR_png", [f"{name}.png" for name in IMAGES])
    return source


@pytest.fixture
def download(tmp_path: Path) -> Path:
    return build(tmp_path / "openi")


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    source = tmp_path / "kaggle"
    write(source / "indiana_reports.csv", KAGGLE)
    write(source / "indiana_projections.csv", PROJECTIONS)
    write_images(source / "images" / "images_normalized", ["1_IM-0001-4001.dcm.png", "1_IM-0001-3001.dcm.png"])
    write_images(source / "images" / "images_normalized", ["2_IM-0652-1001.dcm.png", "9_IM-1384-1001.dcm.png"])
    return source


def test_a_report_and_its_images(download: Path, tmp_path: Path) -> None:
    prepared = read(download)
    first = row(prepared, "CXR1_1_IM-0001-3001.png")
    assert first["image"] == "NLMCXR_png/CXR1_1_IM-0001-3001.png"
    assert (first["patient"], first["study"], first["view"], first["source"]) == ("CXR1", "CXR1", "unknown", "openi")
    assert first["findings"] == "The heart is normal. No effusion <1 cm." and first["impression"] == "Normal chest."
    assert len(load(prepared, tmp_path / "out")) == 4
    splits = column(prepared, "split")
    assert splits["CXR1_1_IM-0001-3001.png"] == splits["CXR1_1_IM-0001-4001.png"]


def test_a_missing_section_is_blank_and_the_sections_stay_apart(download: Path) -> None:
    prepared = read(download)
    assert [row(prepared, "CXR2_IM-0652-1001.png")[name] for name in ("findings", "impression")] == ["", "Zebra."]
    assert row(prepared, "CXR3_IM-1384-1001.png")["findings"] == ""


def test_what_is_left_out(download: Path) -> None:
    assert read(download).dropped == {
        "report files that are no XML": 2,
        "reports without images": 1,
        "no image of that name in the download": 1,
    }


def test_labels_of_the_reports(download: Path) -> None:
    prepared = read(download)
    assert positives(prepared, "CXR1_1_IM-0001-4001.png") == ["No Finding"]
    assert positives(prepared, "CXR2_IM-0652-1001.png") == ["Lung Opacity"]
    assert positives(prepared, "CXR2_IM-0652-1001.png", "-1") == ["Cardiomegaly"]
    assert row(prepared, "CXR2_IM-0652-1001.png")["No Finding"] == "0"
    assert positives(prepared, "CXR3_IM-1384-1001.png", "") == list(prepared.labels), "it was not indexed"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("Opacity/lung/base", ["Lung Opacity"]),
        ("Opacity/breast", []),
        ("Nodule/lung;Calcified Granuloma/lung", ["Lung Lesion"]),
        ("Cardiac Shadow/enlarged/mild", ["Cardiomegaly"]),
        ("Cardiomegaly/borderline;Cardiac Shadow/enlarged", ["Cardiomegaly"]),
        ("Hydropneumothorax/left", ["Pneumothorax", "Pleural Effusion"]),
        ("Thickening/pleura/apex", ["Pleural Other"]),
        ("Fractures, Bone/ribs;Catheters, Indwelling/right", ["Fracture", "Support Devices"]),
        ("normal;Scoliosis", []),
        ("Spine/degenerative", []),
        (" Normal ", ["No Finding"]),
    ],
)
def test_tags(tags: str, expected: list[str]) -> None:
    cells = openi.tag_labels(pd.Series([tags])).iloc[0]
    assert [name for name in openi.LABELS if cells[name] == "1"] == expected
    assert set(cells) <= {"0", "1"}


def test_reports_without_tags_are_blank() -> None:
    cells = openi.tag_labels(pd.Series(["", "No Indexing", "Technical Quality of Image Unsatisfactory"]))
    assert (cells == "").all(axis=None)


def test_views_of_kaggles_table_beside_the_xml_reports(download: Path) -> None:
    write(download / "indiana_projections.csv", PROJECTIONS)
    assert column(read(download), "view") == {
        "CXR1_1_IM-0001-3001.png": "Lateral",
        "CXR1_1_IM-0001-4001.png": "Frontal",
        "CXR2_IM-0652-1001.png": "Frontal",
        "CXR3_IM-1384-1001.png": "unknown",  # IM-1384-1001 of another report
    }


def test_kaggles_tables(kaggle: Path, tmp_path: Path) -> None:
    prepared = read(kaggle)
    first = row(prepared, "1_IM-0001-3001.dcm.png")
    assert first["image"] == "images/images_normalized/1_IM-0001-3001.dcm.png" and first["view"] == "Lateral"
    assert (first["patient"], first["findings"], first["impression"]) == (
        *("CXR1", "Clear lungs, no effusion.", "Normal chest."),
    )
    assert positives(prepared, "1_IM-0001-3001.dcm.png") == ["No Finding"]
    assert positives(prepared, "2_IM-0652-1001.dcm.png", "-1") == ["Cardiomegaly"]
    assert prepared.dropped == {"images without a report": 1, "reports without images": 1}
    load(prepared, tmp_path / "out")


def test_which_layout(download: Path, kaggle: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no XML reports"):
        read(kaggle, layout="xml")
    with pytest.raises(DataError, match=r"indiana_reports\.csv: not found: expected ecgen-radiology"):
        read(download, layout="kaggle")
    for name in ("indiana_reports.csv", "indiana_projections.csv"):
        (kaggle / name).rename(download / name)
    (kaggle / "images").rename(download / "images")
    assert len(read(download, images="NLMCXR_png").table) == 4
    assert len(read(download, layout="kaggle", images="images").table) == 3


def test_splits_are_drawn_by_report(download: Path, tmp_path: Path) -> None:
    folder = download / "NLMCXR_reports" / "ecgen-radiology"
    for uid in range(10, 30):
        write(folder / f"{uid}.xml", xml(uid, [f"CXR{uid}_IM-1", f"CXR{uid}_IM-2"], ["normal"]))
        write_images(download / "NLMCXR_png", [f"CXR{uid}_IM-1.png", f"CXR{uid}_IM-2.png"])
    prepared = read(download, valid_fraction=0.25, test_fraction=0.5)
    reports = prepared.table.groupby("patient")["split"].agg(["first", "nunique"])
    assert reports["nunique"].max() == 1
    assert reports["first"].value_counts().to_dict() == {"test": 12, "valid": 6, "train": 5}
    other = read(download, valid_fraction=0.25, test_fraction=0.5, seed=1)
    assert other.table["split"].tolist() != prepared.table["split"].tolist()
    assert set(read(download, test_fraction=1).table["split"]) == {"test"}


def test_an_image_of_two_reports(download: Path) -> None:
    folder = download / "NLMCXR_reports" / "ecgen-radiology"
    write(folder / "8.xml", xml(8, ["CXR2_IM-0652-1001"], ["normal"]))
    prepared = read(download)
    assert prepared.dropped["images that stand in two reports"] == 1
    assert row(prepared, "CXR2_IM-0652-1001.png")["patient"] == "CXR2"


def test_a_report_that_is_parsed() -> None:
    report = parse_report(REPORTS["1.xml"].encode("utf-8"))
    assert (report.uid, report.tags) == ("CXR1", ["normal"])
    assert report.sections["COMPARISON"] == "None."
    encoded = REPORTS["1.xml"].replace("utf-8", "utf-16").encode("utf-16")
    assert parse_report(encoded) == report


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused_before_they_unfold(encoding: str) -> None:
    bomb = "".join(f'<!ENTITY a{k + 1} "{f"&a{k};" * 10}">' for k in range(9))
    text = f'<!DOCTYPE x [<!ENTITY a0 "ha">{bomb}]><eCitation><major>&a9;</major></eCitation>'
    with pytest.raises(ReportError, match="declares entities"):
        parse_report(text.encode(encoding))
    outside = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><eCitation><major>&a;</major></eCitation>'
    with pytest.raises(ReportError, match="declares entities"):
        parse_report(outside.encode(encoding))


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    build(folder)
    for k in range(10, 20):
        names, tags = [f"CXR{k}_IM-1", f"CXR{k}_IM-2"], [("normal", "Cardiomegaly")[k % 2]]
        report = xml(k, names, tags, FINDINGS=f"This is report number {k}.")
        write(folder / "NLMCXR_reports" / "ecgen-radiology" / f"{k}.xml", report)
        write_images(folder / "NLMCXR_png", [f"{name}.png" for name in names])
    fill_images(folder)
    return ["--test-fraction=0.4"]
