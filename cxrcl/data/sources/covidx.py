"""COVIDx CXR: images of several collections with COVID-19, other pneumonia or neither.

Wang et al. 2020 (COVID-Net). Each line of a list reads `patient filename class [source]`. Releases A (and those before
7) have the classes normal, pneumonia and COVID-19; releases B have positive and negative.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxrcl.data.labels import NO_FINDING
from cxrcl.data.sources.base import Prepared
from cxrcl.data.sources.download import NO_IMAGE, drop, locate
from cxrcl.data.sources.draw import Draw
from cxrcl.errors import DataError

COVID = "COVID-19"
# COVID-19 is a pneumonia too: the class of the others has a name of its own, so that 0 is right for COVID-19.
OTHER_PNEUMONIA = "Non-COVID Pneumonia"
_CLASSES = {
    "positive": {COVID: "1"},
    "negative": {COVID: "0"},
    "normal": {NO_FINDING: "1", OTHER_PNEUMONIA: "0", COVID: "0"},
    "pneumonia": {NO_FINDING: "0", OTHER_PNEUMONIA: "1", COVID: "0"},
    "COVID-19": {NO_FINDING: "0", OTHER_PNEUMONIA: "0", COVID: "1"},
}
_TWO_CLASSES = {"positive", "negative"}
_LINE = r"^(?P<patient>\S+)\s+(?P<name>.+?\.(?i:png|jpe?g))\s+(?P<class>\S+)(?:\s+(?P<collection>\S+))?$"


def read(source: Path, *, version: str = "", images: str = "", draw: Draw = Draw(test_fraction=None)) -> Prepared:
    """COVIDx: COVID-19, other pneumonia, neither; no reports.

    Args:
        source: the folder with train.txt, test.txt (and val.txt where the release has one), train/ and test/.
        version: what follows `train` and `test` in the names of the lists, such as _COVIDx9A for train_COVIDx9A.txt.
        images: folder that holds train/ and test/, inside the source folder; the source folder itself when not given.
    """
    dropped: dict[str, int] = {}
    parts = [_listed(source, version, source / images, split) for split in ("train", "valid", "test")]
    table = pd.concat([part for part in parts if part is not None], ignore_index=True)
    two = set(table["class"]) <= _TWO_CLASSES
    if not two and set(table["class"]) & _TWO_CLASSES:
        raise DataError(f"{source}: lists of two and of three classes: give the lists of one release (--version)")
    labels = (COVID,) if two else (NO_FINDING, OTHER_PNEUMONIA, COVID)

    table = drop(table, table.duplicated(), "lines that stand twice", dropped)
    ambiguous = table[["split", "name"]].duplicated(keep=False)
    table = drop(table, ambiguous, "images with two patients or classes", dropped)
    for split in ("valid", "train"):  # what the published lists share is left in test
        later = {"valid": ("test",), "train": ("test", "valid")}[split]
        shared = (table["split"] == split) & table["patient"].isin(table["patient"][table["split"].isin(later)])
        table = drop(table, shared, f"images of {split} whose patient is in {' or '.join(later)} too", dropped)
    table = drop(table, table["image"] == "", NO_IMAGE, dropped)
    table = table.reset_index(drop=True)
    table["split"], note = draw.splits(table["patient"], table["split"])
    for label in labels:
        table[label] = table["class"].map({name: values.get(label, "") for name, values in _CLASSES.items()})
    notes = [
        f"{note} Patients that the published lists have in two splits stay in test.",
        "Patients are told apart by collection and id. Each image is a study of its own.",
        "Classes: " + ("positive, negative." if two else f"normal, pneumonia (here {OTHER_PNEUMONIA}), COVID-19."),
        "The classes come from different hospitals: a model can tell them apart by the collection alone.",
    ]
    return Prepared(table.drop(columns=["name", "class"]), labels, source / images, dropped, notes)


def _listed(source: Path, version: str, images: Path, split: str) -> pd.DataFrame | None:
    """A list's images; None where a release has no list for valid."""
    stem = {"train": "train", "valid": "val", "test": "test"}[split]
    file = source / f"{stem}{version}.txt"
    if not file.is_file():
        if split == "valid":
            return None
        others = ", ".join(path.name for path in sorted(source.glob(f"{stem}*.txt"))) or "none"
        raise DataError(
            f"{file}: not found; lists there: {others}: name the release with --version (such as _COVIDx9A)"
        )
    lines = pd.Series(file.read_text(encoding="utf-8-sig").splitlines(), dtype=str).str.strip()
    parts = lines[lines != ""].str.extract(_LINE)
    wrong = ~parts["class"].isin(_CLASSES)
    if wrong.any():
        raise DataError(
            f"{file}: line {parts.index[wrong][0] + 1}: {lines[wrong.index[wrong][0]]!r}: expected `patient filename "
            f"class source` with a class of {', '.join(_CLASSES)}"
        )
    parts = parts.fillna("")
    # The same stem stands for different images here (000004.jpg, 000004.png).
    places = locate(parts["name"], images / stem, by="name")
    return pd.DataFrame(
        {
            "image": (stem + "/" + places).where(places != "", ""),
            # Ids are counted anew in each collection.
            "patient": (parts["collection"] + "-" + parts["patient"]).str.removeprefix("-"),
            "study": (parts["collection"] + "-" + stem + "-" + parts["name"]).str.removeprefix("-"),
            "view": "unknown",
            "split": split,
            "source": "covidx",
            "name": parts["name"],
            "class": parts["class"],
        }
    )
