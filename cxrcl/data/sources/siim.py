"""SIIM-ACR Pneumothorax Segmentation Challenge: frontal images of NIH with masks of pneumothorax, read as a label.

The published 70/15/15 split (GLoRIA, followed by others) shuffles rows, and an image has a row for each of its masks:
the same image can be in train and in test. Here an image is in one split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.data.sources.download import alone, drop, find_file, place
from cxrcl.data.sources.draw import Draw
from cxrcl.errors import DataError

LABELS = ("Pneumothorax",)
HEALTHY = "-1"
# An image in several lists goes to the first of these that names it: the published test images stay test images.
_LISTS = {"test": ("test.csv",), "valid": ("valid.csv", "val.csv"), "train": ("train.csv",)}


def read(
    source: Path,
    *,
    split: Literal["drawn", "gloria"] = "drawn",
    lists: str = "",
    images: str = "",
    draw: Draw = Draw(valid_fraction=0.15, test_fraction=0.15),
) -> Prepared:
    """SIIM-ACR Pneumothorax: one label, no reports.

    Args:
        source: the folder with train-rle.csv (or stage_2_train.csv) and the images, DICOM at any depth or PNG.
        split: drawn: by image, see the fractions and the seed. gloria: GLoRIA's files (see lists), each image in one
            split; test goes before valid and train.
        lists: folder of GLoRIA's train.csv, valid.csv and test.csv (inside the source folder, or a full path).
        images: folder of the images inside the source folder (needed where masks lie beside images); the source folder
            itself when not given.
    """
    file = find_file(source, "train-rle.csv*", "*train-rle*.csv*", "stage_2_train.csv*")
    masks = read_table(file, ("ImageId", "EncodedPixels"))  # the header has a space before EncodedPixels
    cells, ids = masks["EncodedPixels"].str.strip(), masks["ImageId"].str.strip()
    rows = pd.DataFrame({"mask": ~cells.isin(("", HEALTHY)), "healthy": cells == HEALTHY})
    by_image = rows.groupby(ids.to_numpy()).any()
    both = int(by_image.all(axis=1).sum())
    names = pd.Series(by_image.index, dtype=str)

    dropped: dict[str, int] = {}
    if split == "drawn":
        splits, note = draw.splits(names)
    else:
        splits, note = _listed(names, source / Path(lists).expanduser())
    values = np.select([by_image["mask"], by_image["healthy"]], ["1", "0"], "")
    table = alone(names, split=splits, source="siim", Pneumothorax=values)
    table = drop(table, table["split"].isna(), "images in none of the lists", dropped)
    table = place(table, source / images, dropped)
    notes = [
        note,
        f"{len(masks):,} rows of {len(names):,} images: an image has a row for each mask, and counts once here. The "
        "published split by rows puts the same image into several splits: results on it are too good.",
        "The table has no patients: each image counts as a patient, so a person may have images in two splits.",
        "Pneumothorax is 1 with a mask, 0 where the mask is -1. Views, sex and age stand in the DICOM headers, "
        "which are not read. The images are a part of NIH ChestX-ray14 with other names.",
    ]
    if both:
        notes.append(f"{both} images have both a mask and the mark of a healthy image: they count as Pneumothorax.")
    return Prepared(table.reset_index(drop=True), LABELS, source / images, dropped, notes)


def _listed(names: pd.Series, folder: Path) -> tuple[pd.Series, str]:
    """The split of each image by GLoRIA's files (nan where none names it), and a note on images in several."""
    parts = []
    for split, files in _LISTS.items():
        file = next((folder / name for name in files if (folder / name).is_file()), None)
        if file is None:
            raise DataError(f"{folder}: no {' or '.join(files)}: name the folder of GLoRIA's files with --lists")
        parts.append(pd.Series(split, index=read_table(file, ("ImageId",))["ImageId"].str.strip()))
    rows = pd.concat(parts)
    several = int((rows.groupby(level=0).nunique() > 1).sum())
    note = (
        f"Splits: GLoRIA's files; {several} images stand in several of them and were left in one (test before valid "
        "before train)."
    )
    return names.map(rows[~rows.index.duplicated()]), note
