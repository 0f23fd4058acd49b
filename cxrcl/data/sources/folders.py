"""A folder of images for each class, such as train/NORMAL and train/PNEUMONIA. See `read`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import pandas as pd

from cxrcl.data.sources import cells
from cxrcl.data.sources.base import Prepared
from cxrcl.data.sources.download import drop
from cxrcl.data.sources.draw import Draw
from cxrcl.data.sources.image_files import find_images
from cxrcl.errors import DataError

# Kermany's pneumonia set: person1_virus and person1_bacteria, IM-0129 and NORMAL2-IM-0129 are different persons (one of
# each pair is in train, the other in test), so the word belongs to the id. NIH ChestX-ray14: 00000013_005.
KNOWN_NAMES = r"^(person\d+_[a-z]+|(?:NORMAL\d+-)?IM-\d+|\d{8}(?=_\d{3}\.))"


def read(
    source: Path,
    *,
    splits: Literal["given", "drawn"] = "given",
    patient_pattern: str = "known",
    draw: Draw = Draw(),
) -> Prepared:
    """A folder for each class, inside train/val/test folders or not: the class is the label.

    Folders around these are looked through (`chest_xray/train/NORMAL`), zip files too. An image has 1 for its class and
    0 for every other. Class names that CheXpert has are spelled as there; `normal` is No Finding.

    Args:
        splits: given: the folders train, val (valid, validation) and test; where there are none, or with drawn, splits
            are drawn by patient, balanced over the classes.
        patient_pattern: regular expression that finds the patient in the name of an image (its first group, else all of
            it); known: that of Kermany's set or of NIH ChestX-ray14; none: each image is a patient.
    """
    images = find_images(source)
    # Those of the COVID-19 Radiography set lie beside the images, under the same names.
    masks = images.str.contains(r"(?:^|/)masks?/", case=False, regex=True)
    dropped: dict[str, int] = {}
    images = drop(images, masks, "segmentation mask", dropped)
    inside = _without_common_folders(images)
    first = inside.str.partition("/")[0]
    in_split = cells.is_split(first) & inside.str.contains("/", regex=False)
    own_splits = None
    if in_split.any():
        # Archives hold stray copies beside train, val and test: those folders are the set.
        images = drop(images, ~in_split, "image outside of the folders train, valid and test", dropped)
        inside, first = inside[in_split].str.partition("/")[2], first[in_split]
        own_splits = cells.as_splits(first, str(source)) if splits == "given" else None
    classes, _, rest = (inside.str.partition("/")[k] for k in range(3))
    loose = rest == ""
    images, classes = drop(images, loose, "image in no class folder", dropped), classes[~loose]
    own_splits = None if own_splits is None else own_splits[~loose]
    names = sorted(classes.unique())
    if len(names) < 2:
        raise DataError(
            f"{source}: {len(names)} class folders ({', '.join(names) or 'none'}): expected one folder for each class, "
            "such as NORMAL and PNEUMONIA, or these inside train, val and test"
        )
    patients, note = _patients(images, patient_pattern)
    result = pd.DataFrame({"image": images, "patient": patients, "study": images, "view": "unknown"})
    result["split"], drawn = draw.splits(patients, own_splits, classes.rename("class"))
    labels = cells.label_names(names, str(source))
    for name, label in labels.items():
        result[label] = (classes == name).map({True: "1", False: "0"})
    renamed = [f"{name} is {label}" for name, label in labels.items() if name != label]
    notes = (f"Classes: {', '.join(names)}.", *([f"Labels: {', '.join(renamed)}."] if renamed else []), note, drawn)
    return Prepared(result, tuple(labels.values()), source, dropped, notes)


def _without_common_folders(images: pd.Series) -> pd.Series:
    """Paths below the folder in which they part ways, or below the one that holds a split's only folder."""
    common = os.path.commonpath([*images.str.rpartition("/")[0].unique()])
    prefix = ""
    for part in common.split("/") if common else []:
        if part.lower() in cells.SPLIT_WORDS:
            break
        prefix += f"{part}/"
    return images.str.removeprefix(prefix)


def _patients(images: pd.Series, pattern: str) -> tuple[pd.Series, str]:
    """The patient of each image, and a note on where it is from."""
    alone = images.str.replace(r"\.\w+$", "", regex=True)
    if pattern == "none":
        return alone, "Patients: none are known, each image counts as one."
    expression = KNOWN_NAMES if pattern == "known" else pattern
    try:
        groups = re.compile(expression).groups
    except re.error as error:
        raise DataError(f"--patient-pattern {pattern}: not a regular expression: {error}") from None
    names = images.str.rpartition("/")[2]
    ids = names.str.extract(expression if groups else f"({expression})")[0].fillna("")
    unknown = int((ids == "").sum())
    if pattern != "known" and unknown == len(images):
        raise DataError(f"--patient-pattern {pattern}: found in no file name, such as {names.iloc[0]}")
    note = f"Patients: from file names, by {expression}; {unknown} images without it count as patients of their own."
    return ids.mask(ids == "", alone), note
