"""The place of the model's square on an image, and the one interpolation that makes the square.

Two steps: a rectangle of the image (the middle, or a random crop) becomes the square; the square is turned, enlarged,
moved or flipped about its middle. Both are one affine map: pixels are interpolated once, and what a turn brings in from
beyond the rectangle is the image as far as it reaches, and black beyond it.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import cv2
import numpy as np

Fit = Literal["pad", "crop", "squash"]
TrainFit = Literal["pad", "crop", "squash", "image"]
Pair = tuple[float, float]  # (x, y)

TRIES = 10  # draws of a random crop until one lies inside, as in torchvision


class Crop(NamedTuple):
    """The rectangle of an image that becomes the square, in pixels of the image."""

    centre: Pair
    sides: Pair


def frame(fit: TrainFit, width: int, height: int) -> tuple[Pair, Pair]:
    """The sides of a crop of area 1 and aspect 1, and those of the central rectangle that holds all crops.

    Args:
        fit: `pad`: the square around the image, for both. `crop`: the largest square in the image; crops lie anywhere
            on the image. `squash`: the whole image, its aspect ignored. `image`: areas are relative to the
            image, aspects are those of its pixels.
    """
    whole = (float(width), float(height))
    if fit == "squash":
        return whole, whole
    side = {"pad": max(whole), "crop": min(whole), "image": math.sqrt(width * height)}[fit]
    return (side, side), ((side, side) if fit == "pad" else whole)


def middle_crop(fit: Fit, width: int, height: int, share: float) -> Crop:
    """The crop in the middle of the image whose sides are `share` of those of the fitted square."""
    unit, _ = frame(fit, width, height)
    return Crop((width / 2, height / 2), (unit[0] * share, unit[1] * share))


def random_crop(fit: TrainFit, width: int, height: int, scale: Pair, aspect: float, rng: np.random.Generator) -> Crop:
    """A rectangle by the rule of torchvision's RandomResizedCrop, but for its rounding to pixels.

    The area is uniform in `scale`, width over height log-uniform in [1 / `aspect`, `aspect`]. A rectangle that does
    not fit in is drawn again; after ten of them it is the largest one in the middle that `aspect` allows.
    """
    unit, room = frame(fit, width, height)
    bend = math.log(aspect)
    for _ in range(TRIES):
        area, stretch = rng.uniform(*scale), math.exp(rng.uniform(-bend, bend))
        sides = (unit[0] * math.sqrt(area * stretch), unit[1] * math.sqrt(area / stretch))
        free = (room[0] - sides[0], room[1] - sides[1])
        if min(free) > -1e-6:
            break
    else:
        across, down = room[0] / unit[0], room[1] / unit[1]
        stretch = min(max(across / down, 1 / aspect), aspect)
        sides = (unit[0] * min(across, down * stretch), unit[1] * min(down, across / stretch))
        free = (0.0, 0.0)
    x, y = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5)
    return Crop((width / 2 + x * free[0], height / 2 + y * free[1]), sides)


def read_out(
    image: np.ndarray,
    crop: Crop,
    size: int,
    degrees: float = 0.0,
    zoom: float = 1.0,
    shift: Pair = (0.0, 0.0),
    flip: bool = False,
) -> np.ndarray:
    """uint8 [H, W] -> uint8 [`size`, `size`].

    Args:
        degrees: the square is turned clockwise by this angle about its middle,
        zoom: enlarged by this factor,
        shift: then moved by these fractions of its side, to the right and down.
        flip: left and right of the crop change places (before all that).
    """
    height, width = image.shape
    # Image pixels for each pixel of the square.
    step_x, step_y = crop.sides[0] / size / zoom, crop.sides[1] / size / zoom
    centre_x, centre_y = crop.centre
    # Bilinear interpolation looks at neighbours only: beyond a step of 2 it would miss pixels. Shrink by area first.
    if step_x > 2 or step_y > 2:
        # A pixel is left of an image that is very long and narrow.
        shrunk = tuple(max(1, round(n * min(1, 1.5 / step))) for n, step in ((width, step_x), (height, step_y)))
        image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
        step_x, centre_x = step_x * shrunk[0] / width, centre_x * shrunk[0] / width
        step_y, centre_y = step_y * shrunk[1] / height, centre_y * shrunk[1] / height
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    side = -1.0 if flip else 1.0
    warp = np.array([[side * step_x * cos, side * step_x * sin, 0.0], [-step_y * sin, step_y * cos, 0.0]])
    # Pixel centres lie at +0.5: pixel o shows the image at warp (o + 0.5 - size / 2 - shift) + centre - 0.5.
    middle = np.array([0.5 - size / 2 - shift[0] * size, 0.5 - size / 2 - shift[1] * size])
    warp[:, 2] = warp[:, :2] @ middle + (centre_x - 0.5, centre_y - 0.5)
    return cv2.warpAffine(
        image, warp, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=_beyond(warp, image, size)
    )


def _beyond(warp: np.ndarray, image: np.ndarray, size: int) -> int:
    """OpenCV's rule for pixels beyond the image: black, but not for a square inside, whose rim would be mixed with it.

    Args:
        warp: float64 [2, 3], pixels of the square -> pixels of the image.
        image: uint8 [H, W].
    """
    last = size - 1
    corners = warp @ np.array([[0, last, 0, last], [0, 0, last, last], [1, 1, 1, 1]])
    limits = np.array([[image.shape[1]], [image.shape[0]]]) - 0.5 + 1e-6
    inside = bool((corners > -0.5 - 1e-6).all() and (corners < limits).all())
    return cv2.BORDER_REPLICATE if inside else cv2.BORDER_CONSTANT


def place_on_image(crop: Crop, place: Pair) -> Pair:
    """A place in the square, as fractions of its side -> (x, y) in pixels of the image, which may lie beyond it."""
    x, y = (c + (p - 0.5) * side for c, p, side in zip(crop.centre, place, crop.sides))
    return x, y


def to_image(values: np.ndarray, crop: Crop, width: int, height: int) -> np.ndarray:
    """Values of the square, such as a heat-map, back on the image: the inverse of `read_out` without its options.

    Args:
        values: float [h, w], one for each cell of a grid over the square; bilinear between the cells' centres.
        crop: the rectangle of the image that became the square.
        width, height: of the image.

    Returns:
        float32 [`height`, `width`], nan where the crop left the image out: the model saw nothing there.
    """
    rows, columns = values.shape
    step_x, step_y = columns / crop.sides[0], rows / crop.sides[1]  # cells for each pixel of the image
    x = (np.arange(width) + 0.5 - crop.centre[0]) * step_x + columns / 2
    y = (np.arange(height) + 0.5 - crop.centre[1]) * step_y + rows / 2
    # Shrinking averages first, for the same reason as in `read_out`.
    grid_size = max(1, round(columns / max(1, step_x))), max(1, round(rows / max(1, step_y)))
    grid: np.ndarray = values.astype(np.float32)
    if grid_size != (columns, rows):
        grid = cv2.resize(grid, grid_size, interpolation=cv2.INTER_AREA)
    across = np.broadcast_to((x * grid_size[0] / columns - 0.5).astype(np.float32), (height, width))
    down = np.broadcast_to((y * grid_size[1] / rows - 0.5).astype(np.float32)[:, None], (height, width))
    placed = cv2.remap(grid, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    placed[:, (x < 0) | (x > columns)] = np.nan
    placed[(y < 0) | (y > rows)] = np.nan
    return placed


def equalise(image: np.ndarray, clip_limit: float) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994) on 8 x 8 tiles; uint8 [H, W] -> the same."""
    return cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(8, 8)).apply(image)
