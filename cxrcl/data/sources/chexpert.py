"""CheXpert-v1.0 and CheXpert-v1.0-small: train, valid and, where it is there, the official test set.

Irvin et al. 2019 (arXiv 1901.07031). train.csv: 223,414 images of 64,540 patients, labels by a rule-based labeler;
valid.csv: 234 images of 200 patients, labels by three radiologists; test: 500 studies of 500 patients, by five.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cxrcl.data.labels import CHEXPERT
from cxrcl.data.manifest import FILE_NAME
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.data.sources.cells import as_labels
from cxrcl.data.sources.download import drop
from cxrcl.data.sources.draw import Draw
from cxrcl.errors import DataError

FOLDERS = ("CheXpert-v1.0", "CheXpert-v1.0-small")
# The releases share this end of the path; before it stands CheXpert-v1.0-small/, a mount point, or nothing.
_PATH = r"(?:^|[/\\])(?P<image>(?:train|valid|test)/(?P<patient>patient\d+)/(?P<study>study\d+)/view\d+_[^/]+)$"
_STUDY = r"(?P<patient>patient\d+)/(?P<study>study\d+)/?$"
_SEXES = {"Male": "M", "Female": "F"}
_TEST_FILES = ("test.csv", "test_labels.csv", "groundtruth.csv")


def read(
    source: Path,
    *,
    official_valid_as: Literal["valid", "test"] = "valid",
    exclude_manifest: str = "",
    draw: Draw = Draw(valid_fraction=0.0, test_fraction=None),
) -> Prepared:
    """CheXpert-v1.0 or -small: labels of 14 findings, no reports.

    Args:
        source: the folder with train.csv, valid.csv, train/ and valid/, or the folder above it.
        official_valid_as: the split of the 234 images of valid.csv. As `test`, take valid images from train by
            --valid-fraction.
        exclude_manifest: manifest of another set, such as the 5x200 test set: its patients' images are left out.
    """
    if draw.valid_fraction and official_valid_as == "valid":
        raise DataError(
            f"--valid-fraction {draw.valid_fraction} with --official-valid-as valid would mix labels by radiologists "
            "and by the labeler in one split: use --official-valid-as test, or --valid-fraction 0"
        )
    images = image_folder(source)
    train = official(source, images, "train").assign(split="train", source="chexpert")
    valid = official(source, images, "valid").assign(split=official_valid_as, source="chexpert_valid")
    test, without_view = _official_test(source, images)
    table = pd.concat([train, valid, *([] if test is None else [test])], ignore_index=True)
    dropped = {"official test studies without a view1 image": without_view} if without_view else {}

    table = drop(table, table.duplicated(), "rows that stand twice", dropped)
    if exclude_manifest:
        excluded = table["patient"].isin(_patients(Path(exclude_manifest).expanduser())) & (table["split"] != "test")
        if not excluded.any():
            raise DataError(
                f"--exclude-manifest {exclude_manifest}: none of its patients is in train.csv or valid.csv: expected "
                "the manifest of a set that was taken from CheXpert, with patients such as patient00001"
            )
        reason = f"images of patients in {Path(exclude_manifest).name} (exclude_manifest)"
        table = drop(table, excluded, reason, dropped)
    table["split"], _ = draw.splits(table["patient"], table["split"])
    carved = f"{draw.valid_fraction:g} of the patients of train.csv are valid (seed {draw.seed})"
    notes = [
        "published: 223,414 images of 64,540 patients in train.csv, 234 in valid.csv, 500 studies in the test set",
        f"split: valid.csv is {official_valid_as}; {carved if draw.valid_fraction else 'no carving'}; "
        + ("no official test set was found" if test is None else "the official test set is test"),
        "column source tells the files apart: chexpert (labeler), chexpert_valid and chexpert_test (radiologists)",
        "labels as in the files: blank is not mentioned, -1 uncertain; age 0 is blank; frontal images that are marked "
        "as neither AP nor PA have the view Frontal",
    ]
    return Prepared(table.reset_index(drop=True), CHEXPERT, images, dropped, notes)


def image_folder(source: Path) -> Path:
    """The folder that holds train/ or valid/: `source` or a CheXpert folder in it."""
    folders = [
        f for f in (source, *(source / name for name in FOLDERS)) if any((f / s).is_dir() for s in ("train", "valid"))
    ]
    if not folders:
        raise DataError(
            f"{source}: neither train/ nor valid/ here or in {' or '.join(FOLDERS)}: --source is the unpacked download "
            "(join a download in batches in one train/ first)"
        )
    if len(folders) > 1:
        raise DataError(f"{source}: holds {' and '.join(f.name for f in folders)}: give one of them as --source")
    return folders[0]


def official(source: Path, images: Path, part: str) -> pd.DataFrame:
    """Rows of train.csv or valid.csv with the manifest's columns, all but split and source."""
    file = _first([folder / f"{part}.csv" for folder in (images, source)]) or images / f"{part}.csv"
    hint = "--source is the unpacked download, with train.csv and valid.csv"
    return rows(read_table(file, ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT), hint), file, CHEXPERT)


def rows(table: pd.DataFrame, file: Path, labels: Sequence[str]) -> pd.DataFrame:
    """Rows of a CSV with CheXpert's `Path`; the columns on sex, age and view may be missing."""
    parts = table["Path"].str.strip().str.replace("\\", "/", regex=False).str.extract(_PATH)
    bad = parts["image"].isna().to_numpy()
    if bad.any():
        raise DataError(
            f"{file}: Path in {int(bad.sum())} rows, first in row {int(np.argmax(bad)) + 2}, is not of the form "
            "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg"
        )
    blank = pd.Series("", index=table.index)
    age = table.get("Age", blank).str.strip()
    return pd.DataFrame(
        {
            "image": parts["image"],
            "patient": parts["patient"],
            "study": parts["patient"] + "_" + parts["study"],
            "view": _views(parts["image"], table.get("Frontal/Lateral", blank), table.get("AP/PA", blank)),
            "sex": table.get("Sex", blank).str.strip().map(_SEXES).fillna(""),
            # The set holds adults of 18 to 90: 0 means that the age is not known.
            "age": age.mask(age.isin(["0", "0.0"]), ""),
            **{name: as_labels(table[name], str(file)) for name in labels},
        }
    )


def _views(image: pd.Series, side: pd.Series, projection: pd.Series) -> np.ndarray:
    """AP, PA or Lateral; Frontal where a frontal image is marked as neither AP nor PA (17 are marked LL or RL)."""
    side = side.str.strip()
    lateral = (side == "Lateral") | ((side == "") & image.str.contains("_lateral", regex=False))
    frontal = (side == "Frontal") | ((side == "") & image.str.contains("_frontal", regex=False))
    has_projection = frontal & projection.isin(["AP", "PA"])
    return np.select([lateral, has_projection, frontal], ["Lateral", projection, "Frontal"], "unknown")


def _official_test(source: Path, images: Path) -> tuple[pd.DataFrame | None, int]:
    """Rows of the official test set, where its labels are there, and how many studies have no image."""
    file = _first([folder / name for folder in (images, source) for name in _TEST_FILES])
    if file is None:
        return None, 0
    table = read_table(file, CHEXPERT)
    missing = 0
    if "Path" not in table:
        table, missing = _with_views(table, file, images)
    return rows(table, file, CHEXPERT).assign(split="test", source="chexpert_test"), missing


def _with_views(table: pd.DataFrame, file: Path, images: Path) -> tuple[pd.DataFrame, int]:
    """The rows of studies with their first view, found by its name and not by its place in a listing."""
    if "Study" not in table:
        raise DataError(f"{file}: neither Path nor Study among its columns: {', '.join(table.columns)}")
    views = sorted(p.relative_to(images).as_posix() for p in (images / "test").glob("patient*/study*/view1_*"))
    if not views:
        raise DataError(f"{images / 'test'}: no images for {file.name}: add them, or take {file.name} away")
    first_views = pd.DataFrame({"Path": views})
    first_views = first_views.join(first_views["Path"].str.rsplit("/", n=1).str[0].str.extract(_STUDY))
    studies = table.join(table["Study"].str.strip().str.extract(_STUDY))
    joined = studies.merge(first_views, on=["patient", "study"], how="left", validate="one_to_one")
    return joined[joined["Path"].notna()].reset_index(drop=True), int(joined["Path"].isna().sum())


def _patients(manifest: Path) -> pd.Series:
    file = manifest / FILE_NAME if manifest.is_dir() else manifest
    return read_table(file, ("patient",), "--exclude-manifest names a manifest.csv")["patient"]


def _first(files: Sequence[Path]) -> Path | None:
    return next((file for file in files if file.is_file()), None)
