"""NIH ChestX-ray14: 112,120 frontal images of 30,805 patients, 14 findings taken from reports by text mining.

Wang et al. 2017 (arXiv 1705.02315). Two test sets go by the name of NIH: the official list of 25,596 images, and the
22,433 images of BenchX (arXiv 2410.21969) and others. Results on them cannot be compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd

from cxrcl.data.labels import NO_FINDING
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.data.sources.download import (
    as_cells,
    check_ages,
    compare_counts,
    count_splits,
    drop,
    find_file,
    multi_hot,
    place,
)
from cxrcl.data.sources.draw import Draw, listed_splits
from cxrcl.errors import DataError

_RENAMED = {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening"}
_NAMES = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia", NO_FINDING),
)
FINDINGS = {name: _RENAMED.get(name, name) for name in _NAMES}  # the source's names -> ours
LABELS = (NO_FINDING, *(name for name in FINDINGS.values() if name != NO_FINDING))
_LISTS = {
    "official": {"train_val_list.txt": "train", "test_list.txt": "test"},
    "benchx": {"train.txt": "train", "val.txt": "valid", "test.txt": "test"},
}
_PUBLISHED = {
    "official": {"train and valid": 86_524, "test": 25_596},
    "benchx": {"train": 78_468, "valid": 11_219, "test": 22_433},
}


def read(
    source: Path,
    *,
    split: Literal["official", "benchx"] = "official",
    lists: str = "",
    images: str = "",
    draw: Draw = Draw(test_fraction=None),
) -> Prepared:
    """NIH ChestX-ray14: labels of 14 findings, no reports.

    Args:
        source: the folder with Data_Entry_2017*.csv, the lists, and the images in folders or zip files.
        split: official: train_val_list.txt and test_list.txt (test: 25,596 images), valid drawn from train by patient.
            benchx: train.txt, val.txt and test.txt (test: 22,433 images) of the BenchX repository.
        lists: folder of these lists (inside the source folder, or a full path); the source folder when not given.
        images: folder of the images inside the source folder; the source folder itself when not given.
    """
    file = find_file(source, "Data_Entry_2017*.csv*")
    entries = read_table(file, ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "View Position"))
    sex = next((name for name in ("Patient Gender", "Patient Sex") if name in entries), None)
    if sex is None:
        raise DataError(f"{file}: no column Patient Gender or Patient Sex; found: {', '.join(entries.columns)}")
    names = entries["Image Index"].str.strip()
    table = pd.DataFrame(
        {
            "image": names,
            "patient": entries["Patient ID"].str.strip(),
            "study": names.str.rsplit(".", n=1).str[0],
            "view": entries["View Position"].str.strip().replace("", "unknown"),
            "split": names.map(listed_splits(source / Path(lists).expanduser(), _LISTS[split], _listed, "images")),
            "sex": entries[sex].str.strip(),
            "age": _years(entries["Patient Age"]),
            "source": "nih",
        }
    )
    labels = multi_hot(entries["Finding Labels"], lambda cell: _findings(cell, file))
    table = pd.concat([table, as_cells(labels.reindex(columns=list(LABELS), fill_value=False))], axis=1)

    dropped: dict[str, int] = {}
    unknown_ages = int(((table["age"] == "") & (entries["Patient Age"].str.strip() != "")).sum())
    table = drop(table, table["image"].duplicated(), "images that stand twice in the table", dropped)
    table = drop(table, table["split"].isna(), "images in none of the lists", dropped)
    notes = ["Splits: the lists as given."]
    if split == "official":
        table["split"], note = draw.splits(table["patient"], table["split"])
        notes = [note]
    table = place(table, source / images, dropped)

    notes += [
        f"Split {split}. {compare_counts(_PUBLISHED[split], count_splits(table))}",
        "The test sets (official 25,596, BenchX 22,433) overlap with each other's train: do not compare results.",
        "Labels were mined from reports; a finding that is not named is 0. Effusion is Pleural Effusion here, "
        f"Pleural_Thickening Pleural Thickening. Table: {file.name}.",
        "Each image is a study of its own: the source does not say which images were taken together.",
    ]
    if unknown_ages:
        notes.append(f"{unknown_ages} ages above 120 years or no numbers were left blank.")
    return Prepared(table.reset_index(drop=True), LABELS, source / images, dropped, notes)


def _listed(file: Path) -> pd.Series:
    """The images of a list: the first word of each line, which may have labels after it and folders before."""
    if not file.is_file():
        raise DataError(f"{file}: not found: name the folder of the lists with --lists")
    lines = pd.Series(file.read_text(encoding="utf-8-sig").splitlines(), dtype=str)
    return lines.str.split().str[0].dropna().str.rsplit("/", n=1).str[-1]


def _findings(cell: str, file: Path) -> list[str]:
    names = [name.strip() for name in cell.split("|")]
    unknown = [name for name in names if name not in FINDINGS]
    if unknown:
        raise DataError(f"{file}: finding {unknown[0]!r}: expected {', '.join(FINDINGS)}, joined by |")
    return [FINDINGS[name] for name in names]


def _years(ages: pd.Series) -> pd.Series:
    """Ages such as 58, 058Y, 011M and 021D in whole years."""
    parts = ages.str.strip().str.extract(r"^(?P<number>\d+)(?P<unit>[YMD]?)$")
    per_year = parts["unit"].map({"M": 12, "D": 365}).fillna(1)
    return check_ages(pd.to_numeric(parts["number"]) // per_year)
