"""Which part of an image the square shows, against torchvision and plain formulas."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as tvf

from cxrcl.data.images.geometry import Crop, equalise, middle_crop, random_crop, read_out

SIDE = 32
NOISE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
WHOLE = Crop((SIDE / 2, SIDE / 2), (SIDE, SIDE))
SMOOTH = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (96, 96), dtype=np.uint8), (0, 0), 2)


def fitted(image: np.ndarray, fit: Any, share: float = 1.0, size: int = SIDE) -> np.ndarray:
    return read_out(image, middle_crop(fit, image.shape[1], image.shape[0], share), size)


def turned(image: np.ndarray = NOISE, **settings: Any) -> np.ndarray:
    size = len(image)
    return read_out(image, Crop((size / 2, size / 2), (size, size)), size, **settings)


# ----------------------------------------------------------------------------------------------- fitting


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
def test_a_square_image_of_the_right_size_is_unchanged(fit: Any) -> None:
    np.testing.assert_array_equal(fitted(NOISE, fit), NOISE)


def test_pad_shows_the_whole_image_between_black_borders() -> None:
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[:, 8:24] = NOISE[:, :16]
    np.testing.assert_array_equal(fitted(NOISE[:, :16], "pad"), expected)
    np.testing.assert_array_equal(fitted(NOISE[:, :16].T, "pad"), expected.T)


def test_crop_shows_the_middle() -> None:
    image = np.random.default_rng(1).integers(0, 256, (SIDE, 48), dtype=np.uint8)
    np.testing.assert_array_equal(fitted(image, "crop"), image[:, 8:40])
    np.testing.assert_array_equal(fitted(image.T, "crop"), image.T[8:40])


@pytest.mark.parametrize("shape", [(48, 40), (40, 60), (20, 50)])
def test_squash_stretches_each_side(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    expected = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    assert np.abs(fitted(image, "squash").astype(int) - expected).max() < 6  # warpAffine goes in steps of 1/32 pixel


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
def test_a_share_shows_the_middle_of_the_square(fit: Any) -> None:
    image = np.random.default_rng(2).integers(0, 256, (64, 48), dtype=np.uint8)
    np.testing.assert_array_equal(fitted(image, fit, 0.5, 16), fitted(image, fit, 1.0, 32)[8:24, 8:24])


def test_a_large_image_is_averaged_and_not_sampled() -> None:
    stripes = np.zeros((256, 64), np.uint8)  # fine in one direction only
    stripes[::2] = 200
    assert np.abs(fitted(stripes, "squash").astype(int) - 100).max() <= 12
    assert np.abs(fitted(stripes.T, "squash").astype(int) - 100).max() <= 12


@pytest.mark.parametrize(("height", "width"), [(256, SIDE), (256, 2 * SIDE)])
def test_no_line_is_lost_where_an_image_shrinks_along_one_side_only(height: int, width: int) -> None:
    lines = np.zeros((height, width), np.uint8)
    lines[::8] = 240  # one row in eight, as many as the square has: none of them where its pixels lie
    assert fitted(lines, "squash").mean() == pytest.approx(30, abs=3)
    assert fitted(lines.T, "squash").mean() == pytest.approx(30, abs=3)
    narrow = Crop((width / 2, height / 2), (SIDE, height))
    assert read_out(lines, narrow, SIDE).mean() == pytest.approx(30, abs=3)


def test_a_large_image_keeps_its_place() -> None:
    image = cv2.resize(SMOOTH, (480, 480), interpolation=cv2.INTER_CUBIC)
    expected = cv2.resize(image, (48, 48), interpolation=cv2.INTER_AREA)
    assert np.abs(fitted(image, "pad", size=48).astype(int) - expected).mean() < 1.5


def test_the_rim_is_mixed_with_black_only_where_black_is_shown() -> None:
    white = np.full((20, 20), 255, np.uint8)
    assert fitted(white, "squash").min() == 255
    assert turned(white, degrees=10).min() == 0


# ----------------------------------------------------------------------------------------- random crops


@pytest.mark.parametrize("scale", [(0.8, 1.1), (0.3, 0.6)])
def test_crops_of_the_image_are_distributed_as_those_of_torchvision(scale: tuple[float, float]) -> None:
    height, width, count = 400, 320, 4000
    rng = np.random.default_rng(0)
    crops = [random_crop("image", width, height, scale, 4 / 3, rng) for _ in range(count)]
    found = np.array([(*crop.centre, *crop.sides) for crop in crops])
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    boxes = [RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(count)]
    top, left, tall, wide = np.array(boxes).T
    expected = np.stack([left + wide / 2, top + tall / 2, wide, tall], axis=1)
    for share in (0.02, 0.25, 0.5, 0.75, 0.98):
        difference = np.quantile(found, share, axis=0) - np.quantile(expected, share, axis=0)
        np.testing.assert_allclose(difference, 0, atol=4)  # of 320 pixels; both are random


@pytest.mark.parametrize(("height", "width"), [(100, 300), (300, 100), (200, 200)])
def test_where_no_crop_fits_the_largest_in_the_middle_is_taken(height: int, width: int) -> None:
    crop = random_crop("image", width, height, (1.0, 1.4), 4 / 3, Largest())  # type: ignore[arg-type]
    image = torch.empty(1, height, width)
    top, left, tall, wide = RandomResizedCrop.get_params(image, [5.0, 5.0], [3 / 4, 4 / 3])
    np.testing.assert_allclose(crop.sides, (wide, tall), atol=0.5)
    np.testing.assert_allclose(crop.centre, (left + wide / 2, top + tall / 2), atol=0.5)


class Largest:
    """In place of a random generator."""

    def uniform(self, low: float, high: float) -> float:
        return high


@pytest.mark.parametrize(
    ("fit", "unit", "room"),
    [("pad", (90, 90), (90, 90)), ("crop", (60, 60), (90, 60)), ("squash", (90, 60), (90, 60))],
)
def test_crops_are_measured_by_the_fitted_square_and_stay_inside(fit: Any, unit: Any, room: Any) -> None:
    rng = np.random.default_rng(0)
    crops = [random_crop(fit, 90, 60, (0.49, 0.64), 1.2, rng) for _ in range(500)]
    centres, sides = np.array([c.centre for c in crops]), np.array([c.sides for c in crops])
    areas, stretches = sides.prod(axis=1) / np.prod(unit), sides[:, 0] / sides[:, 1] / (unit[0] / unit[1])
    np.testing.assert_allclose((areas.min(), areas.max()), (0.49, 0.64), atol=0.01)
    np.testing.assert_allclose((stretches.min(), stretches.max()), (1 / 1.2, 1.2), atol=0.01)
    corner = np.array([45, 30]) - np.array(room) / 2
    reach = np.array([(centres - sides / 2).min(axis=0) - corner, corner + room - (centres + sides / 2).max(axis=0)])
    assert (reach > -1e-6).all() and (reach < 1.5).all()  # up to the border, not beyond it


# ------------------------------------------------------------------------------------------- affine maps


def test_right_angles_flips_and_shifts_are_exact() -> None:
    np.testing.assert_array_equal(turned(degrees=90), np.rot90(NOISE, -1))
    np.testing.assert_array_equal(turned(flip=True), NOISE[:, ::-1])
    moved = np.zeros_like(NOISE)
    moved[4:, :24] = NOISE[:28, 8:]
    np.testing.assert_array_equal(turned(shift=(-0.25, 0.125)), moved)
    np.testing.assert_array_equal(turned(flip=True, degrees=90), np.rot90(NOISE[:, ::-1], -1))


@pytest.mark.parametrize(("degrees", "zoom"), [(17, 1.0), (-9, 0.8), (5, 1.3)])
def test_the_affine_map_is_that_of_torchvision(degrees: float, zoom: float) -> None:
    found = turned(SMOOTH, degrees=degrees, zoom=zoom, shift=(6 / 96, -3 / 96))
    image = torch.from_numpy(SMOOTH)[None].float()
    expected = tvf.affine(image, degrees, [6, -3], zoom, [0.0, 0.0], InterpolationMode.BILINEAR)[0].numpy()
    assert np.abs(found - expected)[20:-20, 20:-20].mean() < 0.6


def test_a_crop_and_an_affine_map_are_one_interpolation_of_the_image() -> None:
    image = np.full((64, 64), 100, np.uint8)
    corner = read_out(image, Crop((32, 32), (20, 20)), SIDE, degrees=45, zoom=0.8)
    assert corner.min() == 100  # what turns into view is image, where there is image


def test_equalise_is_that_of_opencv() -> None:
    image = cv2.resize(SMOOTH, (224, 224), interpolation=cv2.INTER_LINEAR)
    expected = cv2.createCLAHE(3.0, (8, 8)).apply(image)
    np.testing.assert_array_equal(equalise(image, 3.0), expected)
    assert equalise(image, 1.0).std() < expected.std()


@pytest.mark.parametrize(("height", "width"), [(17, 3000), (3000, 17)])
def test_a_very_long_and_narrow_image_is_a_line_at_most(height: int, width: int) -> None:
    seen = fitted(np.full((height, width), 200, np.uint8), "pad") > 0
    assert seen.shape == (SIDE, SIDE)
    assert min(seen.any(axis=1).sum(), seen.any(axis=0).sum()) <= 1
