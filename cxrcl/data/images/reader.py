"""Reads images for samples: from files or a packed store, in full size or shrunk once to `read_px`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from cxrcl.data.images import store
from cxrcl.data.images.image_io import read_gray, read_hashed


@dataclass(frozen=True)
class ImageReader:
    """How images are read.

    Args:
        read_px: the shorter side that every image is shrunk to, never enlarged. None: images keep their size.
    """

    read_px: int | None = None

    def read(self, path: str | Path | BinaryIO, side_px: int | None = None) -> np.ndarray:
        """uint8 [H, W], bit for bit the same from a file and from the store that was packed of it.

        Args:
            path: see `image_io.read_gray`; or a place in a store, see `store.place`.
            side_px: the shorter side that is needed, used where there is no `read_px`: a large JPEG is decoded faster.

        Raises:
            ImageError: the image cannot be read.
        """
        place = store.split(str(path))
        if place is not None:
            return store.image(*place)
        return self.shrink(read_gray(path, self._decoded_side(side_px)))

    def read_hashed(self, path: str | Path | BinaryIO, side_px: int | None = None) -> tuple[np.ndarray, int]:
        """What `read` gives, and the hash of the image's pixels (see `pixel_hash`): one of the image, however read."""
        place = store.split(str(path))
        if place is not None:
            return store.image(*place), store.pixel_hash(*place)
        image, found = read_hashed(path, self._decoded_side(side_px))
        return self.shrink(image), found

    def _decoded_side(self, side_px: int | None) -> int | None:
        """The shorter side at which a file should be decoded at least.

        Twice `read_px`: a JPEG decoded at an eighth of its size has one pixel of each 8 x 8 block, and the area average
        of these needs more than one of them.
        """
        return side_px if self.read_px is None else 2 * self.read_px

    def shrink(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W] -> uint8 [h, w] with min(h, w) = `read_px`, by area averages; a smaller image as it is."""
        shorter = min(image.shape)
        if self.read_px is None or shorter <= self.read_px:
            return image
        height, width = (round(side * self.read_px / shorter) for side in image.shape)
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


FULL_SIZE = ImageReader()
