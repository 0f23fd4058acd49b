"""The transform as a whole: which random numbers it draws, in which order its parts act, what it refuses."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tvf

from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.types import Batch, ImageSpec

SIDE = 32
SPEC = ImageSpec(SIDE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
STILL: dict[str, Any] = {"scale": None, "rotate_deg": 0.0, "contrast": 0.0, "brightness": 0.0, "gamma": 0.0}
NOISE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
WIDE = np.random.default_rng(1).integers(0, 256, (40, 80), dtype=np.uint8)


def make(spec: ImageSpec = SPEC, **settings: Any) -> RadiographTransform:
    return RadiographTransform(spec, **{**STILL, **settings})


def draws(transform: RadiographTransform, count: int = 300) -> np.ndarray:
    """Numbers of the device half [count, 4]."""
    return np.stack([transform.draw(np.random.default_rng(k)) for k in range(count)])


# -------------------------------------------------------------------------------------------- host half


@pytest.mark.parametrize(
    "setting",
    [
        {"scale": (0.5, 1.0)},
        {"scale": (0.8, 0.8)},
        {"rotate_deg": 10.0},
        {"zoom": (0.8, 1.2)},
        {"translate": 0.1},
        {"flip_probability": 0.5},
        {"clahe_probability": 0.5},
    ],
    ids=str,
)
def test_each_setting_of_the_host_half_depends_on_the_random_numbers_alone(setting: dict[str, Any]) -> None:
    transform = make(**setting)
    images = [transform.geometry(NOISE, np.random.default_rng(seed)) for seed in range(8)]
    np.testing.assert_array_equal(images[3], transform.geometry(NOISE, np.random.default_rng(3)))
    assert len({image.tobytes() for image in images}) > 1
    assert images[0].dtype == np.uint8 and images[0].shape == (SIDE, SIDE)
    np.testing.assert_array_equal(transform.geometry(NOISE, None), NOISE)


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
def test_without_a_random_crop_training_shows_what_evaluation_shows(fit: Any) -> None:
    transform = make(fit=fit, eval_crop=0.75)
    fitted = transform.geometry(WIDE, None)
    np.testing.assert_array_equal(transform.geometry(WIDE, np.random.default_rng(0)), fitted)
    assert (fitted != make(fit=fit).geometry(WIDE, None)).any()


def test_translate_reaches_as_far_as_it_says_and_no_farther() -> None:
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[15:17, 15:17] = 255
    moved = [make(translate=0.25).geometry(image, np.random.default_rng(k)).astype(float) for k in range(300)]
    places = np.array([[(s.sum(axis=axis) @ np.arange(SIDE)) / s.sum() for axis in (0, 1)] for s in moved])
    np.testing.assert_allclose(places.min(axis=0), 15.5 - 0.25 * SIDE, atol=0.15)
    np.testing.assert_allclose(places.max(axis=0), 15.5 + 0.25 * SIDE, atol=0.15)


def test_aspect_and_train_fit_change_the_random_crop() -> None:
    def crops(**settings: Any) -> bytes:
        return make(scale=(0.5, 0.5), **settings).geometry(WIDE, np.random.default_rng(0)).tobytes()

    settings: list[dict[str, Any]] = [{"aspect": 1.0}, {"aspect": 1.4}]
    settings += [{"aspect": 1.0, "train_fit": fit} for fit in ("crop", "squash", "image")]
    assert len({crops(**each) for each in settings}) == len(settings)
    assert crops(aspect=1.0) == crops(aspect=1.0, train_fit="pad")
    assert crops(aspect=1.0, train_fit="film") == crops(aspect=1.0, train_fit="image")  # as checkpoints name it


def test_clahe_is_applied_last_with_a_limit_from_its_range() -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8), (0, 0), 4)
    spec = ImageSpec(200, SPEC.mean, SPEC.std)
    rotated = {"rotate_deg": 20.0}
    plain = make(spec, **rotated).geometry(image, np.random.default_rng(1))
    found = make(spec, **rotated, clahe_probability=1.0, clahe_clip=(2.0, 2.0)).geometry(
        image, np.random.default_rng(1)
    )
    np.testing.assert_array_equal(found, cv2.createCLAHE(2.0, (8, 8)).apply(plain))
    other = make(spec, **rotated, clahe_probability=1.0, clahe_clip=(8.0, 9.0)).geometry(
        image, np.random.default_rng(1)
    )
    assert other.std() > found.std()


def test_the_needed_side_leaves_room_for_the_smallest_crop() -> None:
    assert make().needed_side_px() == SIDE
    assert make(scale=(0.25, 1.0), aspect=1.0).needed_side_px() == 2 * SIDE
    assert make(scale=(0.25, 1.0), aspect=4.0).needed_side_px() == 4 * SIDE
    assert make(zoom=(0.5, 1.5)).needed_side_px() == 1.5 * SIDE
    half = make(scale=(1.0, 1.0), aspect=1.0, eval_crop=0.5, zoom=(0.5, 1.5))
    assert half.needed_side_px() == 1.5 * SIDE and half.needed_side_px(augmented=False) == 2 * SIDE


# ------------------------------------------------------------------------------------------ device half


def test_the_numbers_of_the_device_half_lie_in_their_ranges() -> None:
    transform = make(gamma=0.3, brightness=0.2, contrast=0.1, blur_probability=1.0, blur_px=(0.5, 2.0))
    drawn = draws(transform)
    assert drawn.dtype == np.float32 and drawn.shape == (300, 4)
    low, high = (np.exp(-0.3), 0.8, 0.9, 0.5), (np.exp(0.3), 1.2, 1.1, 2.0)
    np.testing.assert_allclose(drawn.min(axis=0), low, atol=0.02)
    np.testing.assert_allclose(drawn.max(axis=0), high, atol=0.02)
    assert (drawn.min(axis=0) >= np.float32(low)).all() and (drawn.max(axis=0) <= np.float32(high)).all()
    assert (draws(make(), 5) == np.float32([1, 1, 1, 0])).all()


def test_jitter_and_blur_are_applied_with_their_probabilities() -> None:
    transform = make(gamma=0.3, brightness=0.2, contrast=0.1, jitter_probability=0.3, blur_probability=0.6)
    changed = draws(transform) != np.float32([1, 1, 1, 0])
    assert (changed[:, :3].all(axis=1) == changed[:, :3].any(axis=1)).all()  # all three or none
    assert abs(changed[:, 0].mean() - 0.3) < 0.06 and abs(changed[:, 3].mean() - 0.6) < 0.06
    assert abs((changed[:, 0] & changed[:, 3]).mean() - 0.18) < 0.05  # independent


def finished(transform: RadiographTransform, augment: list[float] | None) -> np.ndarray:
    images = torch.from_numpy(NOISE)[None, None, None].repeat(2, 3, 1, 1, 1)
    numbers = None if augment is None else torch.tensor(augment).expand(2, 3, 4)
    batch = transform.finish(Batch(images, numbers, None, torch.empty(0), torch.empty(0)))
    assert batch.images is not None and batch.augment is None
    assert batch.images.shape == (2, 3, 3, SIDE, SIDE) and batch.images.dtype == torch.float32
    return batch.images[1, 2].numpy()


def test_the_device_half_is_gamma_brightness_contrast_blur_in_this_order() -> None:
    settings = {"gamma": 0.5, "brightness": 0.5, "contrast": 0.5, "blur_probability": 1.0, "blur_px": (0.1, 2.0)}
    image = tvf.adjust_gamma(torch.from_numpy(NOISE / 255.0)[None].float(), 1.3)
    image = tvf.adjust_contrast(tvf.adjust_brightness(image, 1.4), 0.7)
    expected = (tvf.gaussian_blur(image, [17, 17], [1.1, 1.1]) - 0.5) / 0.25
    found = finished(make(**settings), [1.3, 1.4, 0.7, 1.1])
    np.testing.assert_allclose(found, expected.expand(3, -1, -1), atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "place"),
    [({"gamma": 0.1}, 0), ({"brightness": 0.1}, 1), ({"contrast": 0.1}, 2), ({"blur_probability": 0.5}, 3)],
    ids=str,
)
def test_a_part_of_the_device_half_is_left_out_where_its_setting_is_zero(setting: dict[str, Any], place: int) -> None:
    plain = finished(make(), None)
    np.testing.assert_array_equal(finished(make(), [1.5, 1.5, 1.5, 1.0]), plain)
    alone = [1.0, 1.0, 1.0, 0.0]
    np.testing.assert_allclose(finished(make(**setting), alone), plain, atol=1e-5)
    alone[place] = 0.7
    assert np.abs(finished(make(**setting), alone) - plain).max() > 0.1
    if place < 3:
        np.testing.assert_array_equal(finished(make(**setting, jitter_probability=0.0), alone), plain)


@pytest.mark.parametrize(
    "spec", [ImageSpec(SIDE, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), ImageSpec(SIDE, *[(0.4,) * 3] * 2)]
)
def test_finish_normalises_each_channel(spec: ImageSpec) -> None:
    mean, std = (np.array(values)[:, None, None] for values in (spec.mean, spec.std))
    np.testing.assert_allclose(finished(make(spec), None), (NOISE / 255.0 - mean) / std, rtol=1e-5, atol=1e-6)
    own = (NOISE / 255.0 - 0.6) / 0.3
    np.testing.assert_allclose(finished(make(spec, mean=0.6, std=0.3), None), [own] * 3, rtol=1e-5, atol=1e-6)


def test_a_normalisation_of_its_own_is_part_of_the_spec() -> None:
    assert make(mean=0.6, std=0.3).spec == ImageSpec(SIDE, (0.6,) * 3, (0.3,) * 3)
    assert make().spec is SPEC


# ----------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "setting",
    [
        {"scale": (0.0, 1.0)},
        {"scale": (0.9, 0.5)},
        {"scale": (1.1, 1.2)},
        {"zoom": (1.1, 0.9)},
        {"clahe_clip": (0.0, 4.0)},
        {"blur_px": (0.0, 1.0)},
        {"mean": 0.5},
        {"std": 0.5},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(setting))}=.*expected"):
        make(**setting)
