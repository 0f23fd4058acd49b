"""From the model's square back to the image."""

from __future__ import annotations

import numpy as np
import pytest

from cxrcl.data.images.geometry import Crop, Fit, middle_crop, place_on_image, read_out, to_image
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.types import ImageSpec

SHAPES = [(200, 200), (160, 240), (300, 120), (37, 64)]  # height, width


@pytest.mark.parametrize("share", [1.0, 0.8])
@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_bright_square_comes_back_to_its_place(shape: tuple[int, int], fit: Fit, share: float) -> None:
    height, width = shape
    image = np.zeros(shape, dtype=np.uint8)
    bright = slice(height // 3, height * 6 // 10), slice(width // 2, width * 5 // 8)
    image[bright] = 255
    crop = middle_crop(fit, width, height, share)
    back = to_image(read_out(image, crop, 96).astype(np.float32) / 255, crop, width, height)
    assert back.shape == shape and back.dtype == np.float32
    found, truth = np.nan_to_num(back) > 0.5, image > 0
    assert (found & truth).sum() / (found | truth).sum() > 0.75
    rows, columns = np.nonzero(found)
    for places, part in ((rows, bright[0]), (columns, bright[1])):
        assert abs(places.mean() - (part.start + part.stop - 1) / 2) < 0.01 * max(shape)
    assert np.nanmax(np.abs(back - image / 255)[~truth & ~found]) <= 0.5


def test_only_what_the_model_saw_has_a_value() -> None:
    ones = np.ones((3, 3), dtype=np.float32)
    seen = {
        fit: ~np.isnan(to_image(ones, middle_crop(fit, 100, 60, share), 100, 60))
        for fit, share in (("pad", 1.0), ("squash", 1.0), ("crop", 1.0))
    }
    assert seen["pad"].all() and seen["squash"].all()
    assert seen["crop"][:, 20:80].all() and not seen["crop"][:, :20].any() and not seen["crop"][:, 80:].any()
    middle = ~np.isnan(to_image(ones, middle_crop("squash", 100, 60, 0.5), 100, 60))
    assert middle[15:45, 25:75].all() and middle.sum() == 30 * 50


def test_a_cell_keeps_its_value_at_its_centre() -> None:
    cells = np.arange(12, dtype=np.float32).reshape(3, 4)
    image = to_image(cells, middle_crop("squash", 40, 30, 1.0), 40, 30)
    for row in range(3):
        for column in range(4):
            assert image[10 * row + 4 : 10 * row + 6, 10 * column + 4 : 10 * column + 6].mean() == pytest.approx(
                cells[row, column], abs=0.3
            )
    assert image.max() <= 11 and image.min() >= 0


def test_a_fine_map_is_averaged_and_not_sampled() -> None:
    board = np.indices((512, 512)).sum(axis=0) % 2
    assert np.abs(to_image(board.astype(np.float32), middle_crop("pad", 32, 32, 1.0), 32, 32) - 0.5).max() < 0.05


def test_places_of_the_square_are_pixels_of_the_image() -> None:
    crop = Crop((50.0, 30.0), (100.0, 100.0))  # pad of 100 x 60
    assert place_on_image(crop, (0.5, 0.5)) == (50, 30)
    assert place_on_image(crop, (0.0, 0.0)) == (0, -20) and place_on_image(crop, (1.0, 0.7)) == pytest.approx((100, 50))


def test_the_crop_of_evaluation_is_what_geometry_reads() -> None:
    spec = ImageSpec(32, (0.5,) * 3, (0.25,) * 3)
    image = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    for transform in (RadiographTransform(spec, fit="crop", eval_crop=0.9), RadiographTransform(spec)):
        expected = read_out(image, transform.evaluation_crop(70, 50), 32)
        assert np.array_equal(transform.geometry(image, None), expected)
