"""Images that cannot be read are found before an evaluation, which leaves them out.

Training does not search for them: another sample stands in (see `cxrcl.data.dataset.TrainSet`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain

import numpy as np

from cxrcl.data.images.pixels import MIN_SIDE_PX, ImageError
from cxrcl.data.images.reader import FULL_SIZE, ImageReader
from cxrcl.data.loader import BatchReader
from cxrcl.data.manifest import Manifest
from cxrcl.errors import DataError

Reasons = dict[int, str]  # position in the manifest -> why the image cannot be read
_IMAGES_PER_BATCH = 64


def _fault(reader: ImageReader, path: str) -> str | None:
    try:
        reader.read(path, MIN_SIDE_PX)
    except ImageError as error:
        return str(error)
    return None


def find_unreadable(
    manifest: Manifest, positions: Sequence[int], batch_reader: BatchReader, reader: ImageReader = FULL_SIZE
) -> Reasons:
    """Decode the images at these positions of the manifest once, in the workers of `batch_reader`.

    Returns:
        Position in the manifest -> why the image cannot be read.
    """
    paths = manifest.paths[np.asarray(positions, dtype=int)]
    faults = chain.from_iterable(batch_reader.each(partial(_fault, reader), paths, _IMAGES_PER_BATCH))
    return {int(k): fault for k, fault in zip(positions, faults, strict=True) if fault is not None}


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
