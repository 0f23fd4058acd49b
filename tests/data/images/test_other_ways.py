"""Other ways to make the model's input, against plain arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cxrcl.data.images import other_ways
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.types import Batch, ImageSpec

IMAGE = np.random.default_rng(0).integers(20, 200, (40, 32), dtype=np.uint8)
PLAIN = RadiographTransform(ImageSpec(16, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))


def test_nothing_changed_is_the_transform_itself() -> None:
    same = other_ways.other_way(PLAIN)
    np.testing.assert_array_equal(same.geometry(IMAGE, None), PLAIN.geometry(IMAGE, None))
    grey = other_ways.other_way(replace(PLAIN, mean=0.5, std=0.25))
    assert grey.spec.mean == (0.5,) * 3 and grey.mean is None  # so that it can be normalised by other constants


def test_windows_come_before_the_square() -> None:
    way = replace(other_ways.other_way(PLAIN), windows=(other_ways.inverted,))
    np.testing.assert_array_equal(way.geometry(IMAGE, None), PLAIN.geometry(255 - IMAGE, None))
    stretched = other_ways.stretched(IMAGE)
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert other_ways.between(IMAGE, 10, 90).max() == 255 and (other_ways.between(IMAGE, 10, 90) == 255).mean() > 0.05


@pytest.mark.parametrize("name", other_ways.RESIZES)
@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
def test_every_resize_makes_the_square_of_the_fit(name: str, fit: str) -> None:
    way = replace(other_ways.other_way(replace(PLAIN, fit=fit)), resize=other_ways.RESIZES[name])
    made = way.geometry(IMAGE, None)
    cut = {"pad": np.pad(IMAGE, ((0, 0), (4, 4))), "crop": IMAGE[4:36], "squash": IMAGE}[fit]
    np.testing.assert_array_equal(made, other_ways.RESIZES[name](cut, 16))
    assert made.shape == (16, 16)


def test_pillow_is_pillow() -> None:
    made = other_ways.RESIZES["Pillow, bicubic"](IMAGE, 16)
    np.testing.assert_array_equal(made, Image.fromarray(IMAGE).resize((16, 16), Image.Resampling.BICUBIC))


def test_each_image_by_its_own_mean_and_deviation() -> None:
    way = replace(other_ways.other_way(PLAIN), standardise=True)
    batch = Batch(torch.from_numpy(IMAGE)[None, None, None], None, None, torch.zeros(1, 1), torch.zeros(1))
    images = way.finish(batch).images
    assert images is not None and images.shape == (1, 1, 3, 40, 32)
    grey = IMAGE.astype(np.float64)
    np.testing.assert_allclose(images[0, 0, 0].numpy(), (grey - grey.mean()) / grey.std(), rtol=1e-4, atol=1e-5)
