"""The common form of all images: one grey channel, uint8 [H, W], within limits of size."""

from __future__ import annotations

import math

import numpy as np

MIN_SIDE_PX = 16
MAX_PIXELS = 150_000_000


class ImageError(ValueError):
    """A file that cannot be read as a radiograph. The message never holds the file's name (it may name a person)."""


def check_size(width: int, height: int, frames: int = 1) -> None:
    """Refuse an image by its size, before its pixels are decoded: a small file may claim to be a large image.

    Raises:
        ImageError: a side below 16 px, or more than 150 million pixels in all frames.
    """
    if width * height * frames > MAX_PIXELS:
        several = f" x {frames} frames" if frames > 1 else ""
        raise ImageError(f"{width} x {height} px{several} is more than {MAX_PIXELS:,} pixels")
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(f"{width} x {height} px: a side is below {MIN_SIDE_PX} px")


def to_uint8(values: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """Numbers [H, W] -> uint8 [H, W], linearly, without clipping.

    Args:
        limits: what becomes 0 and 255; numbers beyond them widen them. None: the smallest and the largest number.

    Numbers that are not finite become 0; so does an image of one value where no limits are given.
    """
    finite = np.isfinite(values) if values.dtype.kind == "f" else None
    if finite is not None and not finite.all():
        if not finite.any():
            raise ImageError("no finite pixel")
        values = np.where(finite, values, values[finite].min())
    low, high = float(values.min()), float(values.max())
    if limits is not None:
        low, high = min(low, limits[0]), max(high, limits[1])
    if math.isinf(high - low):  # the difference of two float64 overflows; a fourth of them does not
        return to_uint8(values / 4)
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    # float32 holds 16-bit numbers exactly, and not the difference of large 32-bit ones.
    exact: np.ndarray = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    scaled = np.rint((exact - low) / (high - low) * 255).astype(np.uint8)
    if finite is not None and limits is not None:
        scaled[~finite] = 0
    return scaled


def luminance(colours: np.ndarray) -> np.ndarray:
    """Numbers [H, W, 3 (red, green, blue)] -> float32 [H, W], by the weights of ITU-R BT.601 as Pillow's `L`."""
    return colours.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
