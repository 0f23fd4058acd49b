"""Where maps and chosen patches lie on an image."""

from __future__ import annotations

import numpy as np
import pytest

from cxrcl.data.images.geometry import middle_crop
from cxrcl.inference.explaining import Explanation, HeatMap, boxes, peak


def cells(rows: int, columns: int, *bright: tuple[int, int]) -> np.ndarray:
    """Zeros with ever smaller values at these places, the first the largest."""
    values = np.zeros((rows, columns), dtype=np.float32)
    for k, place in enumerate(bright):
        values[place] = 10 - k
    return values


def test_the_peak_is_the_centre_of_the_largest_cell() -> None:
    crop = middle_crop("squash", 80, 60, 1.0)
    assert peak(cells(3, 4, (2, 0)), crop, 80, 60) == pytest.approx((1 / 8, 5 / 6))


def test_the_peak_lies_on_the_image_and_not_in_the_black_border() -> None:
    crop = middle_crop("pad", 100, 50, 1.0)  # the film is the middle half of the square's height
    assert peak(cells(4, 4, (0, 3), (1, 2)), crop, 100, 50) == pytest.approx((5 / 8, 0.25))
    strip = middle_crop("pad", 100, 10, 1.0)  # between the centres of the two rows
    assert peak(cells(2, 2, (1, 0)), strip, 100, 10) == pytest.approx((0.25, 1.0))


def test_patches_are_boxes_on_the_image_cut_at_its_border() -> None:
    crop = middle_crop("pad", 100, 50, 1.0)
    scores = cells(4, 4, (1, 2), (0, 0), (3, 3))
    found = boxes(Explanation([HeatMap("", scores, "")], [6, 0, 15]), crop, 100, 50)
    assert [(box.corners, box.score) for box in found] == [(pytest.approx((0.5, 0, 0.75, 0.5)), 10)]
    half = boxes(Explanation([HeatMap("", cells(1, 1, (0, 0)), "")], [0]), crop, 100, 50)
    assert half[0].corners == pytest.approx((0, 0, 1, 1))
