"""A part of the training patients: what is learnt from 1 % or 10 % of the data."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd

from cxrcl.data.manifest import Manifest


def keep_fractions(manifest: Manifest, fractions: Mapping[str, float], seed: int) -> Manifest:
    """The manifest with a fraction of each source's training patients, and all rows of valid and test.

    Patients are ranked by a hash of (seed, id), and the first ceil(fraction * n) stay: 1 % of them are among the 10 %,
    whatever else is in the manifest.

    Args:
        manifest: rows of all splits.
        fractions: source (`part`) -> fraction, above 0 and at most 1; sources without one stay whole.
        seed: of the ranking: another seed keeps other patients.
    """
    keep = np.ones(len(manifest), dtype=bool)
    training = manifest.rows["split"].to_numpy() == "train"
    for part, fraction in fractions.items():
        rows = np.flatnonzero(training & (manifest.rows["part"].to_numpy() == part))
        # A patient has the same place alone and in a mixture, where ids begin with the name of the source.
        ids = manifest.rows["patient"].iloc[rows].str.removeprefix(f"{part}/")
        ranked = sorted(set(ids), key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).digest())
        count = math.ceil(Fraction(str(fraction)) * len(ranked))  # 0.07 * 100 is more than 7 in binary numbers
        keep[rows] = ids.isin(ranked[:count])
    return manifest if keep.all() else manifest.take(keep)


def write_index(file: Path, training: Manifest, data: Manifest, splits: Sequence[str]) -> None:
    """Write a CSV (image, split) of the images that a run trains on and of those that choose its checkpoint.

    Both stand in the order of their manifests, `training` first.
    """
    evaluated = data.rows[data.rows["split"].isin([split for split in splits if split != "train"])]
    pd.concat([training.rows, evaluated])[["image", "split"]].to_csv(file, index=False)
