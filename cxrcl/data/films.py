"""Films as samples see them: out of a file or a packed store, as large as they are or shrunk once to `read_px`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from cxrcl.data import store
from cxrcl.data.image_io import read_gray


@dataclass(frozen=True)
class Films:
    """How films are read.

    Args:
        read_px: the shorter side that every film is shrunk to, never enlarged. None leaves films as large as they are.
    """

    read_px: int | None = None

    def read(self, path: str | Path | BinaryIO, side_px: int | None = None) -> np.ndarray:
        """uint8 [H, W], bit for bit the same from a file and from the store that was packed of it.

        Args:
            path: see `cxrcl.data.image_io.read_gray`; or a place in a store, see `cxrcl.data.store.place`.
            side_px: where there is no `read_px`, the shorter side that is needed: a large JPEG is decoded faster.

        Raises:
            ImageError: the film cannot be read.
        """
        place = store.split(str(path))
        if place is not None:
            return store.film(*place)
        if self.read_px is None:
            return read_gray(path, side_px)
        # Twice that: a JPEG at an eighth of its size is what is left of 8 x 8 blocks, and little is averaged after it.
        return self.shrink(read_gray(path, 2 * self.read_px))

    def shrink(self, film: np.ndarray) -> np.ndarray:
        """uint8 [H, W] -> uint8 [h, w] with min(h, w) = `read_px`, by area averages; a smaller film as it is."""
        shorter = min(film.shape)
        if self.read_px is None or shorter <= self.read_px:
            return film
        height, width = (round(side * self.read_px / shorter) for side in film.shape)
        return cv2.resize(film, (width, height), interpolation=cv2.INTER_AREA)


FULL_SIZE = Films()
