"""Films that cannot be read, found before an evaluation: it leaves them out, or their split has no figures.

In training nothing is searched: another sample stands in (see `cxrcl.data.dataset.TrainSet`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxrcl.data.films import FULL_SIZE, Films
from cxrcl.data.loader import Feed
from cxrcl.data.manifest import Manifest
from cxrcl.data.pixels import MIN_SIDE_PX, ImageError
from cxrcl.errors import DataError

Reasons = dict[int, str]  # position in the manifest -> why the film cannot be read
_FILMS_A_BATCH = 64


class _Reading:
    """What is wrong with each film."""

    def __init__(self, paths: np.ndarray, films: Films) -> None:
        self.paths, self.films = paths, films

    def __getitem__(self, key: tuple[int, int]) -> Reasons:
        _, position = key
        try:
            self.films.read(self.paths[position], MIN_SIDE_PX)
        except ImageError as error:
            return {position: str(error)}
        return {}


def _merged(parts: Sequence[Reasons]) -> Reasons:
    return {position: reason for part in parts for position, reason in part.items()}


def find_unreadable(manifest: Manifest, positions: Sequence[int], feed: Feed, films: Films = FULL_SIZE) -> Reasons:
    """Decodes the films at these positions of the manifest, in the feed's workers: as long as reading them once."""
    starts = range(0, len(positions), _FILMS_A_BATCH)
    keys = [[(0, int(position)) for position in positions[start : start + _FILMS_A_BATCH]] for start in starts]
    collate: Any = _merged  # no batch is made
    parts: Any = feed.batches(_Reading(manifest.rows["path"].to_numpy(dtype=str), films), keys, collate)
    return _merged(list(parts))


def leave_out(manifest: Manifest, unreadable: Mapping[int, str]) -> Manifest:
    """The manifest without these rows.

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
            f"no image of the split {', '.join(emptied)} can be read (the first: {reason}): look at data.root"
        )
    return left


def named(manifest: Manifest, unreadable: Mapping[int, str], most: int = 10) -> str:
    """'row 7: empty file; row 9: ...; ...', rows of the CSV."""
    lines = manifest.rows["line"]
    shown = [f"row {lines.iloc[k]}: {unreadable[k]}" for k in sorted(unreadable)[:most]]
    return "; ".join([*shown, *(["..."] if len(unreadable) > most else [])])
