"""VinDr-CXR: 15,000 images of train, each read by three of 17 radiologists, and 3,000 of test with a consensus of five.

Nguyen et al. 2022 (arXiv 2012.15029), labels of whole images; boxes are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cxrcl.data.labels import NO_FINDING
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.data.sources.download import alone, compare_counts, count_splits, drop, find_file, place
from cxrcl.data.sources.draw import Draw
from cxrcl.errors import DataError

# The table of test spells one column without its s; the others get CheXpert's spelling.
RENAMED = {
    "No finding": NO_FINDING,
    "Other disease": "Other diseases",
    "Pleural effusion": "Pleural Effusion",
    "Pleural thickening": "Pleural Thickening",
}
_PUBLISHED = {"train and valid": 15_000, "test": 3_000}


def read(
    source: Path,
    *,
    vote: Literal["any", "majority", "all"] = "majority",
    images: str = "",
    draw: Draw = Draw(valid_fraction=0.2, test_fraction=None),
) -> Prepared:
    """VinDr-CXR: labels of 28 findings and diagnoses, no reports.

    The default --valid-fraction takes 3,000 of the 15,000 images of train, as CXR-CLIP and BenchX do, but not the same.

    Args:
        source: the folder with annotations/, train/ and test/.
        vote: how many of an image's radiologists have to see a finding: any one (CXR-CLIP), more than half, or all.
        images: folder of the images inside the source folder; the source folder itself when not given.
    """
    dropped: dict[str, int] = {}
    parts = [_labels(source, name, vote, dropped) for name in ("train", "test")]
    labels, of_test = (tuple(str(name) for name in part if name not in ("image", "split")) for part in parts)
    if differ := sorted(set(labels) ^ set(of_test)):
        raise DataError(f"{source}: image_labels_train.csv and _test.csv differ in the columns {', '.join(differ)}")
    rows = pd.concat(parts, ignore_index=True)
    if rows["image"].duplicated().any():
        raise DataError(f"{source}: {int(rows['image'].duplicated().sum())} images stand in train and in test")
    rows["split"], note = draw.splits(rows["image"], rows["split"])
    table = alone(rows["image"], split=rows["split"], source="vindr", view="PA").join(rows[list(labels)])
    table = place(table, source / images, dropped)
    notes = [
        f"{note} {compare_counts(_PUBLISHED, count_splits(table))}",
        "The tables have no patients: each image counts as a patient, so a person may have images in train and valid.",
        f"Labels of train: a finding is 1 when {vote} of an image's radiologists marked it; No Finding is 0 beside any "
        "finding. Labels of test: the published consensus.",
        "All images are PA according to the publication; the tables do not say.",
    ]
    return Prepared(table.reset_index(drop=True), labels, source / images, dropped, notes)


def _labels(source: Path, split: str, vote: str, dropped: dict[str, int]) -> pd.DataFrame:
    """One image a row: `image`, `split` and the labels as '1', '0', or '' where no radiologist filled the cell."""
    file = find_file(source, f"annotations/image_labels_{split}.csv*", f"image_labels_{split}.csv*")
    readings = read_table(file, ("image_id",)).rename(columns=RENAMED)
    readings = drop(readings, readings.duplicated(), f"readings that stand twice ({split})", dropped)
    ids = readings["image_id"].str.strip()
    labels = [str(name) for name in readings if name not in ("image_id", "rad_id")]
    marks = readings[labels].apply(lambda cells: pd.to_numeric(cells.mask(cells.str.strip() == ""), errors="coerce"))
    wrong = (~marks.isin((0, 1)) & (readings[labels].apply(lambda cells: cells.str.strip()) != "")).to_numpy()
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(f"{file}: {labels[column]} is {readings[labels].iloc[row, column]!r}: expected 0, 1 or blank")
    groups = marks.groupby(ids.to_numpy(), sort=False)
    positive, answered = groups.sum(), groups.count()
    needed = {"any": 1, "majority": answered // 2 + 1, "all": answered}[vote]
    present = (positive >= needed) & (answered > 0)
    if NO_FINDING in present:
        # "any" lets one radiologist say that there is nothing and another name a finding.
        present[NO_FINDING] &= ~present.drop(columns=NO_FINDING).any(axis=1)
    cells = pd.DataFrame(np.where(present, "1", "0"), index=present.index, columns=labels).where(answered > 0, "")
    return cells.rename_axis("image").reset_index().assign(split=split)
