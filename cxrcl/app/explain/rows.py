"""The images that readings are measured on: those that are scored now, and others that choices of data would add."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxrcl.app.explain.stored import Images
from cxrcl.data.manifest import Manifest
from cxrcl.data.splits import Splits

SPLITS = ("train", "valid", "test")


def all_images(
    splits: Splits, whole: Manifest, scored: Sequence[str], limit: int
) -> tuple[Splits, Images, dict[str, str]]:
    """The splits of those images, the same as a table, and what was left out -> why.

    The images that the current settings score are always there; the rest of their splits and whole other splits, as
    long as there are not more than `limit`.

    Args:
        splits: as the current settings choose images.
        whole: all rows of the data, whatever their view.
    """
    now = set(zip(splits.manifest.rows["part"], splits.manifest.rows["image"], strict=True))
    left_in = np.array([row in now for row in zip(whole.rows["part"], whole.rows["image"], strict=True)])
    in_split = {name: (whole.rows["split"] == name).to_numpy() for name in SPLITS}
    of_scored = np.any([in_split[name] for name in scored], axis=0)
    taken, left_out = left_in & of_scored, {}
    more = {"images that data.views and data.filter leave out": of_scored}
    more |= {f"split: {name}": in_split[name] for name in ("valid", "test", "train") if name not in scored}
    for name, rows in more.items():
        together = int((taken | rows).sum())
        if together <= limit:
            taken = taken | rows
        else:
            left_out[name] = f"{together:,} images would be encoded in each pass; images={together} tries it"
    chosen = whole.take(taken)
    places = np.concatenate([np.flatnonzero((chosen.rows["split"] == name).to_numpy()) for name in SPLITS])
    table = pd.DataFrame(chosen.rows.iloc[places]).reset_index(drop=True)
    images = Images(table, left_in[taken][places], chosen.labels, chosen.stated[places])
    return splits.of(chosen), images, left_out
