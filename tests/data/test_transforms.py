"""Geometry and photometry against plain formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cxrcl.data.transforms import RadiographTransform
from cxrcl.types import Batch, ImageSpec

SIDE = 32
SPEC = ImageSpec(SIDE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
STILL: dict[str, Any] = {
    "scale": (1.0, 1.0),
    "aspect": 1.0,
    "rotate_deg": 0.0,
    "translate": 0.0,
    "contrast": 0.0,
    "brightness": 0.0,
    "gamma": 0.0,
    "blur_px": 0.0,
}
NOISE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


def make(spec: ImageSpec = SPEC, **settings: Any) -> RadiographTransform:
    return RadiographTransform(spec, **{**STILL, **settings})


class Chosen:
    """In place of a random generator: each draw lies at a chosen fraction of its range, in the order of drawing."""

    def __init__(self, area: float = 0.5, aspect: float = 0.5, angle: float = 0.5, x: float = 0.5, y: float = 0.5):
        self.fractions = [area, aspect, angle, (x, y)]

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        return low + (high - low) * np.asarray(self.fractions.pop(0))


def dot(x: int, y: int, side: int = 65) -> np.ndarray:
    film = np.zeros((side, side), np.uint8)
    film[y - 1 : y + 2, x - 1 : x + 2] = 255
    return film


def centre(image: np.ndarray) -> np.ndarray:
    """(x, y) of the bright spot, relative to the middle of the image."""
    y, x = np.indices(image.shape)
    weights = image / image.sum(dtype=float)
    return np.array([(x * weights).sum(), (y * weights).sum()]) - (np.array(image.shape)[::-1] - 1) / 2


def bilinear(film: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values at the pixel coordinates `y` x `x`, black outside."""
    padded = np.pad(film.astype(float), 1)
    x, y = x + 1, y + 1
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = x - x0, y - y0
    top = padded[y0][:, x0] * (1 - fx) + padded[y0][:, x0 + 1] * fx
    low = padded[y0 + 1][:, x0] * (1 - fx) + padded[y0 + 1][:, x0 + 1] * fx
    return top * (1 - fy)[:, None] + low * fy[:, None]


# ---------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
@pytest.mark.parametrize("random", [False, True])
def test_a_square_film_of_the_right_size_is_unchanged(fit: Any, random: bool) -> None:
    rng = np.random.default_rng(0) if random else None
    np.testing.assert_array_equal(make(fit=fit).geometry(NOISE, rng), NOISE)


def test_pad_shows_the_whole_film_between_black_borders() -> None:
    film = NOISE[:, :16]
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[:, 8:24] = film
    np.testing.assert_array_equal(make(fit="pad").geometry(film, None), expected)
    np.testing.assert_array_equal(make(fit="pad").geometry(film.T, None), expected.T)


def test_crop_shows_the_middle() -> None:
    film = np.random.default_rng(1).integers(0, 256, (SIDE, 48), dtype=np.uint8)
    np.testing.assert_array_equal(make(fit="crop").geometry(film, None), film[:, 8:40])
    np.testing.assert_array_equal(make(fit="crop").geometry(film.T, None), film.T[8:40])


@pytest.mark.parametrize("shape", [(48, 40), (40, 60), (20, 50)])
def test_squash_stretches_each_side(shape: tuple[int, int]) -> None:
    film = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    height, width = shape
    places = [(np.arange(SIDE) + 0.5) * length / SIDE - 0.5 for length in (width, height)]
    found = make(fit="squash").geometry(film, None)
    assert np.abs(found - bilinear(film, *places)).max() < 6  # OpenCV interpolates in steps of 1/32 pixel


def test_a_large_film_is_averaged_and_not_sampled() -> None:
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 200
    found = make().geometry(stripes, None)
    assert np.abs(found.astype(int) - 100).max() <= 12


def test_a_large_film_keeps_its_place() -> None:
    film = np.zeros((320, 320), np.uint8)
    film[80:100, 200:220] = 255
    expected = (np.array([210, 90]) - 160) / 10
    np.testing.assert_allclose(centre(make().geometry(film, None)), expected, atol=0.1)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_scale_is_the_area_of_the_crop(fraction: float) -> None:
    spec = ImageSpec(65, SPEC.mean, SPEC.std)
    area = (0.64, 1.44)[int(fraction)]
    found = make(spec, scale=(0.64, 1.44)).geometry(dot(42, 37), Chosen(area=fraction))  # type: ignore[arg-type]
    np.testing.assert_allclose(centre(found), np.array([10, 5]) / np.sqrt(area), atol=0.15)


def test_aspect_stretches_one_side_and_shrinks_the_other() -> None:
    spec = ImageSpec(65, SPEC.mean, SPEC.std)
    found = make(spec, aspect=1.5).geometry(dot(42, 42), Chosen(aspect=1.0))  # type: ignore[arg-type]
    np.testing.assert_allclose(centre(found), [10 / np.sqrt(1.5), 10 * np.sqrt(1.5)], atol=0.15)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_rotation_turns_by_the_angle(fraction: float) -> None:
    spec = ImageSpec(65, SPEC.mean, SPEC.std)
    found = make(spec, rotate_deg=30).geometry(dot(44, 32), Chosen(angle=fraction))  # type: ignore[arg-type]
    angle = np.deg2rad(30) * (1 - 2 * fraction)
    np.testing.assert_allclose(centre(found), [12 * np.cos(angle), 12 * np.sin(angle)], atol=0.15)


def test_a_right_angle_is_exact() -> None:
    found = make(rotate_deg=90).geometry(NOISE, Chosen(angle=1.0))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, np.rot90(NOISE))


def test_translate_moves_by_a_fraction_of_the_side() -> None:
    found = make(translate=0.25).geometry(NOISE, Chosen(x=1.0, y=0.25))  # type: ignore[arg-type]
    expected = np.zeros_like(NOISE)
    expected[4:, :24] = NOISE[:28, 8:]
    np.testing.assert_array_equal(found, expected)


def test_a_crop_moves_within_the_film_only() -> None:
    white = np.full((SIDE, SIDE), 255, np.uint8)
    half = make(scale=(0.25, 0.25))
    for corner in ((0.0, 0.0), (1.0, 1.0), (0.0, 1.0)):
        inside = half.geometry(white, Chosen(x=corner[0], y=corner[1]))[1:-1, 1:-1]  # type: ignore[arg-type]
        assert inside.min() == 255


@pytest.mark.parametrize("setting", [{"scale": (0.5, 1.0)}, {"aspect": 1.3}, {"rotate_deg": 10}, {"translate": 0.1}])
def test_each_geometric_setting_depends_on_the_random_numbers_alone(setting: dict[str, Any]) -> None:
    transform = make(**setting)
    first, again, other = (transform.geometry(NOISE, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != NOISE).any()
    assert first.dtype == np.uint8 and first.shape == (SIDE, SIDE)
    np.testing.assert_array_equal(transform.geometry(NOISE, None), NOISE)


def test_the_needed_side_leaves_room_for_the_smallest_crop() -> None:
    assert make().needed_side_px() == SIDE
    assert make(scale=(0.25, 1.0)).needed_side_px() == 2 * SIDE
    assert make(scale=(1.0, 2.0)).needed_side_px() == SIDE


# -------------------------------------------------------------------------------------------- photometry


def finished(transform: RadiographTransform, augment: list[float] | None) -> np.ndarray:
    images = torch.from_numpy(NOISE)[None, None, None].repeat(2, 3, 1, 1, 1)
    numbers = None if augment is None else torch.tensor(augment).expand(2, 3, 4)
    batch = transform.finish(Batch(images, numbers, None, torch.empty(0), torch.empty(0)))
    assert batch.images is not None and batch.augment is None
    assert batch.images.shape == (2, 3, 3, SIDE, SIDE) and batch.images.dtype == torch.float32
    return batch.images[1, 2].numpy()


def normalised(values: np.ndarray) -> np.ndarray:
    return np.repeat((np.clip(values, 0, 1)[None] - 0.5) / 0.25, 3, axis=0)


UNIT = NOISE / 255.0


@pytest.mark.parametrize(
    ("setting", "augment", "expected"),
    [
        ({"contrast": 0.5}, [0.4, 0, 0, 0], (UNIT - 0.5) * 1.4 + 0.5),
        ({"contrast": 0.5}, [-0.4, 0, 0, 0], (UNIT - 0.5) * 0.6 + 0.5),
        ({"brightness": 0.5}, [0, 0.3, 0, 0], UNIT + 0.3),
        ({"brightness": 0.5}, [0, -0.3, 0, 0], UNIT - 0.3),
        ({"gamma": 0.5}, [0, 0, 0.4, 0], UNIT ** np.exp(0.4)),
        ({"gamma": 0.5}, [0, 0, -0.4, 0], np.maximum(UNIT, 1e-6) ** np.exp(-0.4)),
        ({}, [0, 0, 0, 0], UNIT),
    ],
)
def test_photometry_is_the_plain_formula(setting: dict[str, Any], augment: list[float], expected: np.ndarray) -> None:
    np.testing.assert_allclose(finished(make(**setting), augment), normalised(expected), atol=2e-5)


def test_blur_is_a_gaussian() -> None:
    sigma, radius = 0.8, 3
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    padded = np.pad(UNIT, radius, mode="edge")
    rows = sum(taps[k] * padded[:, k : k + SIDE] for k in range(2 * radius + 1))
    expected = sum(taps[k] * rows[k : k + SIDE] for k in range(2 * radius + 1))
    np.testing.assert_allclose(finished(make(blur_px=1.0), [0, 0, 0, sigma]), normalised(expected), atol=2e-5)
    np.testing.assert_allclose(finished(make(blur_px=1.0), [0, 0, 0, 0]), normalised(UNIT), atol=2e-5)


@pytest.mark.parametrize(
    "spec", [ImageSpec(SIDE, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), ImageSpec(SIDE, *[(0.4,) * 3] * 2)]
)
def test_finish_normalises_each_channel(spec: ImageSpec) -> None:
    mean, std = (np.array(values)[:, None, None] for values in (spec.mean, spec.std))
    np.testing.assert_allclose(finished(make(spec), None), (UNIT - mean) / std, rtol=1e-5, atol=1e-6)


def test_the_numbers_of_the_device_half_lie_in_their_ranges() -> None:
    transform = make(contrast=0.1, brightness=0.2, gamma=0.3, blur_px=0.4)
    drawn = np.stack([transform.draw(np.random.default_rng(k)) for k in range(200)])
    assert drawn.dtype == np.float32 and drawn.shape == (200, 4)
    assert (np.abs(drawn) <= np.float32([0.1, 0.2, 0.3, 0.4])).all() and (drawn[:, 3] >= 0).all()
    assert (drawn[:, :3] < 0).any() and (drawn[:, :3] > 0).any()
    assert (make().draw(np.random.default_rng(0)) == 0).all()


@pytest.mark.parametrize(
    "setting",
    [
        {"scale": (0.0, 1.0)},
        {"scale": (0.9, 0.5)},
        {"aspect": 0.9},
        {"rotate_deg": -1.0},
        {"translate": -0.1},
        {"contrast": -0.1},
        {"brightness": -0.1},
        {"gamma": -0.1},
        {"blur_px": -0.1},
    ],
    ids=str,
)
def test_ranges_that_make_no_sense_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        make(**setting)
