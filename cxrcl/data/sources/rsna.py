"""RSNA Pneumonia Detection Challenge (stage 2): 26,684 frontal images of NIH, one a patient, boxes by radiologists.

Shih et al. 2019 (Radiology: AI 1:e180041). The published 70/15/15 split is GLoRIA's (Huang et al., ICCV 2021), which
CXR-CLIP and others follow: two shuffles of the sorted patients with NumPy's MT19937 and seed 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cxrcl.data.labels import NO_FINDING
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.data.sources.download import alone, compare_counts, count_splits, drop, find_file, place
from cxrcl.data.sources.draw import Draw, listed_splits
from cxrcl.errors import DataError

LABELS = (NO_FINDING, "Lung Opacity", "Pneumonia")
CLASSES = ("Normal", "Lung Opacity", "No Lung Opacity / Not Normal")
_PUBLISHED = {"train": 18_678, "valid": 4_003, "test": 4_003, "Pneumonia": 6_012, NO_FINDING: 8_851}
_LISTS = {"test.csv": "test", "val.csv": "valid", "train.csv": "train"}


def read(
    source: Path,
    *,
    split: Literal["gloria", "drawn"] = "gloria",
    lists: str = "",
    images: str = "",
    draw: Draw = Draw(valid_fraction=0.15, test_fraction=0.15),
) -> Prepared:
    """RSNA Pneumonia: pneumonia and the three classes of images, no reports.

    Args:
        source: the folder with stage_2_train_labels.csv, stage_2_detailed_class_info.csv and stage_2_train_images/.
        split: gloria: the published one, of GLoRIA's own files (see lists), else worked out by its rule. drawn: by
            patient, see the fractions and the seed.
        lists: folder of GLoRIA's train.csv, val.csv and test.csv (inside the source folder, or a full path).
        images: folder of the images inside the source folder; the source folder itself when not given.
    """
    boxes_file = find_file(source, "stage_2_train_labels.csv*", "*train_labels.csv*")
    boxes = read_table(boxes_file, ("patientId", "Target"))
    wrong = ~boxes["Target"].isin(("0", "1"))
    if wrong.any():
        raise DataError(f"{boxes_file}: Target {boxes['Target'][wrong].iloc[0]!r}: expected 0 or 1")
    # An image has a row for each box: a patient counts once.
    target = (boxes["Target"] == "1").groupby(boxes["patientId"].str.strip()).any().sort_index()
    classes = _classes(source, target)
    patients = pd.Series(target.index, dtype=str)

    dropped: dict[str, int] = {}
    if split == "drawn":
        splits, note = draw.splits(patients)
    elif lists:
        listed = listed_splits(source / Path(lists).expanduser(), _LISTS, _names, "patients")
        splits, note = patients.map(listed), f"Splits: GLoRIA's files in {lists}."
    else:
        splits, note = gloria_split(patients), "Splits: worked out by GLoRIA's rule (70/15/15 by patient, seed 0)."
    present = {NO_FINDING: classes == "Normal", "Lung Opacity": classes == "Lung Opacity", "Pneumonia": target}
    labels = {name: np.where(is_present, "1", "0") for name, is_present in present.items()}
    table = alone(patients, split=splits, source="rsna").assign(**labels)
    table = drop(table, table["split"].isna(), "images in none of the lists", dropped)
    table = place(table, source / images, dropped)
    counts = count_splits(table) | {name: int((table[name] == "1").sum()) for name in LABELS}
    notes = [
        f"{note} {compare_counts(_PUBLISHED, counts)}",
        "Classes: Normal is No Finding here; `No Lung Opacity / Not Normal` is 0 in all three labels. Others call "
        "every image without pneumonia normal: to follow them, use Pneumonia alone.",
        "Pneumonia is Target (a box on the image). It is 1 where the class is Lung Opacity, and nowhere else.",
        "The images are a part of NIH ChestX-ray14 with other names: do not test on them what was trained on NIH.",
        "Views, sex and age stand in the DICOM headers, which are not read.",
    ]
    return Prepared(table.reset_index(drop=True), LABELS, source / images, dropped, notes)


def gloria_split(patients: pd.Series, seed: int = 0) -> pd.Series:
    """GLoRIA's split of sorted ids: a shuffle cuts 30 % off, a shuffle of these halves them into valid and test.

    The same as two calls of scikit-learn's train_test_split (test_size=0.3, then 0.5; random_state=seed).
    """
    order = np.random.RandomState(seed).permutation(len(patients))
    held_out = order[: int(np.ceil(0.3 * len(patients)))]
    again = np.random.RandomState(seed).permutation(len(held_out))
    num_valid = int(np.ceil(0.5 * len(held_out)))
    splits = np.full(len(patients), "train", dtype=object)
    splits[held_out[again[:num_valid]]] = "valid"
    splits[held_out[again[num_valid:]]] = "test"
    return pd.Series(splits, index=patients.index)


def _classes(source: Path, target: pd.Series) -> np.ndarray:
    """The class of each patient, in the order of `target`."""
    file = find_file(source, "stage_2_detailed_class_info.csv*", "*detailed_class_info.csv*")
    info = read_table(file, ("patientId", "class"))
    info = pd.DataFrame(
        {"patient": info["patientId"].str.strip(), "class": info["class"].str.strip()}
    ).drop_duplicates()
    unknown = ~info["class"].isin(CLASSES)
    if unknown.any():
        raise DataError(f"{file}: class {info['class'][unknown].iloc[0]!r}: expected {', '.join(CLASSES)}")
    if info["patient"].duplicated().any():
        raise DataError(
            f"{file}: {int(info['patient'].duplicated().sum())} patients have two classes: expected one each"
        )
    classes = info.set_index("patient")["class"].reindex(target.index)
    if without := int(classes.isna().sum()):
        raise DataError(f"{file}: {without} patients of the labels have no class: download it again")
    return classes.to_numpy()


def _names(file: Path) -> pd.Series:
    """The patients of one of GLoRIA's files."""
    hint = "name the folder of GLoRIA's train.csv, val.csv and test.csv with --lists"
    return read_table(file, ("patientId",), hint)["patientId"].str.strip()
