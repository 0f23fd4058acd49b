"""Images that cannot be read are found before an evaluation, which leaves them out.

Training does not search for them: another sample stands in (see `cxrcl.data.dataset.TrainSet`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxrcl.data.images.pixels import MIN_SIDE_PX, ImageError
from cxrcl.data.images.reader import FULL_SIZE, ImageReader
from cxrcl.data.loader import BatchReader
from cxrcl.data.manifest import Manifest
from cxrcl.errors import DataError

Reasons = dict[int, str]  # position in the manifest -> why the image cannot be read
_IMAGES_PER_BATCH = 64


class _Faults:
    """What is wrong with each image."""

    def __init__(self, paths: np.ndarray, reader: ImageReader) -> None:
        self.paths, self.reader = paths, reader

    def __getitem__(self, key: tuple[int, int]) -> Reasons:
        _, position = key
        try:
            self.reader.read(self.paths[position], MIN_SIDE_PX)
        except ImageError as error:
            return {position: str(error)}
        return {}


def _merged(parts: Sequence[Reasons]) -> Reasons:
    return {position: reason for part in parts for position, reason in part.items()}


def find_unreadable(
    manifest: Manifest, positions: Sequence[int], batch_reader: BatchReader, reader: ImageReader = FULL_SIZE
) -> Reasons:
    """Decode the images at these positions of the manifest once, in the workers of `batch_reader`.

    Returns:
        Position in the manifest -> why the image cannot be read.
    """
    starts = range(0, len(positions), _IMAGES_PER_BATCH)
    keys = [[(0, int(position)) for position in positions[start : start + _IMAGES_PER_BATCH]] for start in starts]
    collate: Any = _merged  # no batch is made
    parts: Any = batch_reader.batches(_Faults(manifest.rows["path"].to_numpy(dtype=str), reader), keys, collate)
    return _merged(list(parts))


def leave_out(manifest: Manifest, unreadable: Mapping[int, str]) -> Manifest:
    """The manifest without the images at these positions.

    Raises:
        DataError: nothing is left of a split.
    """
    keep = np.ones(len(manifest), dtype=bool)
    keep[list(unreadable)] = False
    left = manifest.take(keep)
    emptied = sorted({*manifest.rows["split"]} - {*left.rows["split"]})
    if emptied:
        reason = next(iter(unreadable.values()))
        raise DataError(
            f"no image of the split {', '.join(emptied)} can be read (the first: {reason}): is the root of the "
            "manifest the folder that its paths are relative to?",
            argument="root",
        )
    return left


def named(manifest: Manifest, unreadable: Mapping[int, str], most: int = 10) -> str:
    """The first of these images by their rows of the CSV: 'row 7: empty file; row 9: ...; ...'."""
    lines = manifest.rows["line"]
    shown = [f"row {lines.iloc[k]}: {unreadable[k]}" for k in sorted(unreadable)[:most]]
    return "; ".join([*shown, *(["..."] if len(unreadable) > most else [])])
