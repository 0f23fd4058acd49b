"""Where things stand in a picture: pixels at known places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrcl.data.images.geometry import Fit, middle_crop
from cxrcl.inference.explaining import Box, HeatMap
from cxrcl.inference.heatmap_pictures import BAR, DPI, FRAME, HEAD, LINE, MARGIN, PANEL_INCHES, draw

WIDTH, HEIGHT, GREY = 200, 100, 120


def drawn(path: Path, cells: np.ndarray, fit: Fit, *boxes: Box) -> np.ndarray:
    """float [rows, columns, 3] of a grey image and one map."""
    film = np.full((HEIGHT, WIDTH), GREY, dtype=np.uint8)
    crop = middle_crop(fit, WIDTH, HEIGHT, 1.0)
    draw(path, film, crop, [HeatMap("a $ title", cells, "kind")], boxes, "name", ["a note"])
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(float)


def at(picture: np.ndarray, panel: int, x: float, y: float) -> np.ndarray:
    """The pixel at fractions of the image in a panel."""
    left, top = MARGIN + panel * (PANEL_INCHES + BAR), 1.5 * LINE + HEAD
    place = top + y * PANEL_INCHES * HEIGHT / WIDTH, left + x * PANEL_INCHES
    return picture[int(place[0] * DPI), int(place[1] * DPI)]


def corner() -> np.ndarray:
    cells = np.zeros((4, 4), dtype=np.float32)
    cells[3, 3] = 1
    return cells


@pytest.mark.parametrize(("fit", "bright"), [("squash", (0.9, 0.9)), ("crop", (0.7, 0.9)), ("pad", None)])
def test_a_map_lies_where_its_cells_are_on_the_image(
    fit: Fit, bright: tuple[float, float] | None, tmp_path: Path
) -> None:
    picture = drawn(tmp_path / "a.png", corner(), fit)
    places = [(x, y) for x in (0.3, 0.5, 0.7, 0.9) for y in (0.1, 0.5, 0.9)]
    for place in places:
        assert at(picture, 0, *place) == pytest.approx([GREY] * 3, abs=2)
        red, _, _ = at(picture, 1, *place)
        assert (red > GREY + 50) == (place == bright), place
    unseen = {place for place in places if at(picture, 1, *place).max() < GREY / 2}
    assert unseen == ({place for place in places if place[0] == 0.9} if fit == "crop" else set())


def test_boxes_are_framed_on_the_image(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "a.png", corner(), "squash", Box((0.25, 0.5, 0.75, 1.0), 1.0))
    frame = [int(FRAME[k : k + 2], 16) for k in (1, 3, 5)]

    def framed(x: float, y: float) -> bool:
        around = [at(picture, 0, x + dx, y + dy) for dx in (-0.005, 0, 0.005) for dy in (-0.01, 0, 0.01)]
        return min(np.abs(pixel - frame).max() for pixel in around) < 40

    assert all(framed(*place) for place in ((0.25, 0.75), (0.75, 0.75), (0.6, 0.5)))
    assert not any(framed(*place) for place in ((0.5, 0.75), (0.1, 0.75), (0.6, 0.25)))


@pytest.mark.parametrize("values", [(0.3, 0.3 + 1e-8), (-2e-9, -2e-9), (0.0, 0.0)])
def test_rounding_is_not_stretched_into_a_pattern(values: tuple[float, float], tmp_path: Path) -> None:
    cells = np.array([values, values], dtype=np.float64)
    picture = drawn(tmp_path / "a.png", cells, "squash")
    assert all(at(picture, 1, x, 0.5) == pytest.approx([GREY] * 3, abs=2) for x in (0.1, 0.9))


def test_a_bar_goes_from_the_smallest_to_the_largest_value(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "a.png", corner(), "squash")
    dark, middle, light = (at(picture, 1, 1 + 0.12 / PANEL_INCHES, y).sum() for y in (0.97, 0.5, 0.03))
    assert dark < 60 < middle < light and light > 500
