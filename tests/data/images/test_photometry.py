"""The batched functions of the device half against torchvision, one image at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from cxrcl.data.images import photometry

IMAGES = torch.rand(3, 2, 1, 24, 24, generator=torch.Generator().manual_seed(0))
FACTORS = torch.tensor([[0.5, 0.9], [1.0, 1.1], [1.4, 2.0]])


def one_by_one(change: Callable[[Tensor, float], Tensor], numbers: Tensor) -> Tensor:
    return torch.stack([torch.stack([change(IMAGES[b, v], float(numbers[b, v])) for v in range(2)]) for b in range(3)])


@pytest.mark.parametrize(
    ("batched", "reference"),
    [
        (photometry.gamma, tvf.adjust_gamma),
        (photometry.brightness, tvf.adjust_brightness),
        (photometry.contrast, tvf.adjust_contrast),
    ],
)
def test_each_function_is_that_of_torchvision(
    batched: Callable[[Tensor, Tensor], Tensor], reference: Callable[[Tensor, float], Tensor]
) -> None:
    found, expected = batched(IMAGES.clone(), FACTORS), one_by_one(reference, FACTORS)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert found.min() >= 0 and found.max() <= 1
    torch.testing.assert_close(batched(IMAGES.clone(), torch.ones(3, 2)), IMAGES)


def test_blur_is_that_of_torchvision() -> None:
    def reference(image: Tensor, sigma: float) -> Tensor:
        return tvf.gaussian_blur(image, [17, 17], [sigma, sigma])  # 8 on each side is 4 times 2

    torch.testing.assert_close(
        photometry.blur(IMAGES.clone(), FACTORS, 2.0), one_by_one(reference, FACTORS), atol=1e-5, rtol=0
    )


def test_no_blur_changes_nothing_beside_images_that_are_blurred() -> None:
    sigmas = FACTORS.clone()
    sigmas[1, 0] = 0
    found = photometry.blur(IMAGES.clone(), sigmas, 2.0)
    torch.testing.assert_close(found[1, 0], IMAGES[1, 0])
    assert (found[0, 0] - IMAGES[0, 0]).abs().max() > 0.01


def test_a_blur_wider_than_the_image_is_cut() -> None:
    assert photometry.blur(IMAGES[..., :6, :6].clone(), FACTORS * 3, 6.0).isfinite().all()
