"""A hash of an image's pixels, by which it is found again under any name.

It belongs to the image as decoded in full size from its source, before anything is shrunk, cropped or augmented, and is
exact: integer arithmetic alone, so that it is the same on every machine and with every version of the libraries.
"""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

SIDE_PX = 64
NOT_READ = 0  # no hash yet
NONE = -1  # an image without a hash: of one grey, or from a store that was packed before there were any


def pixel_hash(image: np.ndarray) -> int:
    """64 bits as a signed integer, neither 0 nor -1; -1 for an image of one grey: such images are all alike.

    The hash is BLAKE2b of 64 x 64 bytes. Each is the mean, rounded down, of the pixels in one cell of an even grid of
    64 x 64 over the image: rows i H // 64 to (i + 1) H // 64, or one row where that is empty; columns likewise.

    Args:
        image: uint8 [H, W], the whole image at full size.
    """
    sums = cv2.integral(np.ascontiguousarray(image))  # int32 [H + 1, W + 1]; may wrap, and differences do not mind
    (top, bottom), (left, right) = (_cells(side) for side in image.shape)
    bands = sums[bottom] - sums[top]
    small = (bands[:, right] - bands[:, left]) // ((bottom - top)[:, None] * (right - left))
    if small.min() == small.max():
        return NONE
    digest = hashlib.blake2b(small.astype(np.uint8), digest_size=8).digest()
    found = int.from_bytes(digest, "little", signed=True)
    return found if found not in (NOT_READ, NONE) else 1


def _cells(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the cells along a side begin, and where they end, int32 [64] each."""
    edges = (np.arange(SIDE_PX + 1) * side // SIDE_PX).astype(np.int32)
    return edges[:-1], np.maximum(edges[1:], edges[:-1] + 1)
