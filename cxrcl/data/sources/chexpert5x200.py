"""CheXpert 5x200: 1,000 frontal images for zero-shot classification and retrieval, 200 for each of five findings.

Huang et al. 2021 (GLoRIA). Their list (1,000 images of 966 patients) was not released with CheXpert, and every paper
that had no access to it drew another one: results on different lists cannot be compared. The images are from CheXpert's
training set, so they are no test of a model that was trained on these patients.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cxrcl.data.labels import CHEXPERT, NO_FINDING
from cxrcl.data.sources import chexpert
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.errors import DataError

LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
_FILES = ("chexpert_5x200.csv", "chexpert5x200.csv", "chexpert-5x200.csv")


def read(source: Path, *, list_file: str = "", per_class: int = 200, seed: int = 0) -> Prepared:
    """CheXpert 5x200: GLoRIA's list where it is given, else one drawn from train.csv by a fixed rule.

    Args:
        source: the CheXpert download, see `chexpert`.
        list_file: GLoRIA's CSV (Path, Report Impression, five label columns), relative to source; by default a
            chexpert_5x200.csv in source, where there is one.
        per_class: images of each finding, when the list is drawn.
        seed: of the draw.
    """
    images = chexpert.image_folder(source)
    file = _list_file(source, images, list_file)
    if file is not None:
        table, notes = _published(file), [f"list: {file.name}, as given"]
    else:
        table, notes = _drawn(chexpert.official(source, images, "train"), per_class, seed)
    table = table.assign(split="test", source="chexpert5x200")
    notes += [
        f"exclude: these {len(table)} images are of {table['patient'].nunique()} patients; to train on CheXpert "
        "without them, prepare chexpert with --exclude-manifest THIS_FOLDER/manifest.csv: it leaves all of theirs out",
    ]
    return Prepared(table=table.reset_index(drop=True), labels=LABELS, images=images, notes=notes)


def _list_file(source: Path, images: Path, name: str) -> Path | None:
    names = (name,) if name else _FILES
    files = [folder / n for folder in (source, images) for n in names if (folder / n).is_file()]
    if name and not files:
        raise DataError(f"{source / name}: not found: --list-file is the path of GLoRIA's CSV, relative to --source")
    return files[0] if files else None


def _published(file: Path) -> pd.DataFrame:
    """The rows of GLoRIA's list."""
    listed = read_table(file, ("Path", *LABELS))
    table = chexpert.rows(listed, file, LABELS)
    if "Report Impression" in listed:
        table["impression"] = listed["Report Impression"].str.strip()
    wrong = (table[list(LABELS)] == "1").sum(axis=1) != 1
    if wrong.any():
        row = int(np.argmax(wrong.to_numpy())) + 2
        raise DataError(
            f"{file}: {int(wrong.sum())} rows, first row {row}, do not have exactly one of {', '.join(LABELS)} set to 1"
        )
    return table


def _drawn(train: pd.DataFrame, per_class: int, seed: int) -> tuple[pd.DataFrame, list[str]]:
    """Draw `per_class` images of each finding: one image a patient as long as there are enough.

    The rarest finding comes first, since it has the least choice. Rows are sorted by path before they are shuffled, so
    that the order of train.csv has no influence.
    """
    train = train.sort_values("image", ignore_index=True)
    train = train.iloc[np.random.Generator(np.random.Philox(seed)).permutation(len(train))]
    train = train[train["view"].isin(["AP", "PA", "Frontal"])]
    # No Finding follows from the others. Blank counts as absent: 0 alone would leave hardly an image.
    findings = [name for name in CHEXPERT if name != NO_FINDING]
    only_one = (train[findings].isin(["0", ""])).sum(axis=1) == len(findings) - 1
    pools = {name: train[only_one & (train[name] == "1")] for name in LABELS}
    scarce = {name: len(pool) for name, pool in pools.items() if len(pool) < per_class}
    if scarce:
        counts = ", ".join(f"{name} {count}" for name, count in scarce.items())
        raise DataError(f"train.csv has fewer than --per-class {per_class} images with one finding only: {counts}")
    used: set[str] = set()
    chosen = {}
    for name in sorted(LABELS, key=lambda label: pools[label]["patient"].nunique()):
        pool = pools[name]
        fresh = ~pool["patient"].isin(used) & ~pool["patient"].duplicated()
        # A stable sort puts images of patients that have one already last: they are for when patients run out.
        chosen[name] = pool.iloc[np.argsort(~fresh.to_numpy(), kind="stable")[:per_class]]
        used |= set(chosen[name]["patient"])
    table = pd.concat([chosen[name] for name in LABELS])
    table[list(LABELS)] = table[list(LABELS)].replace("", "0")
    counts = ", ".join(f"{name} {len(pools[name])}" for name in LABELS)
    return table[[c for c in table if c not in CHEXPERT or c in LABELS]], [
        f"list: drawn from train.csv (seed {seed}): frontal, one of the five findings 1 and the other twelve 0 or "
        f"blank, {per_class} a finding, one image a patient where possible; images to choose from: {counts}",
        "this is not GLoRIA's list: figures on it do not compare with published ones",
    ]
