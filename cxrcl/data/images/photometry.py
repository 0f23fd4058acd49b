"""Changes of brightness, contrast, gamma and sharpness: one setting for each image of a batch, on any device.

Each is the float form of the function of torchvision.transforms.v2.functional named beside it. Hue, saturation and
conversion to grey, which recipes for photographs add, change nothing on a grey image: they have no counterpart.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# All take images float32 [B, V, 1, S, S] in [0, 1] and one number for each, float32 [B, V]; they return images of the
# same shape, and change those given in place where they can.


def gamma(images: Tensor, exponents: Tensor) -> Tensor:
    """adjust_gamma: image ** exponent. Images float32 [B, V, 1, S, S], exponents float32 [B, V]."""
    return images.pow_(_each(exponents))


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """adjust_brightness: image * factor, cut to [0, 1]. Images float32 [B, V, 1, S, S], factors float32 [B, V]."""
    return images.mul_(_each(factors)).clamp_(0, 1)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """adjust_contrast: distances from the mean times factor, cut to [0, 1]. Images [B, V, 1, S, S], factors [B, V]."""
    mean = images.mean(dim=(-2, -1), keepdim=True)
    return images.mul_(_each(factors)).add_(mean * (1 - _each(factors))).clamp_(0, 1)


def blur(images: Tensor, sigmas: Tensor, largest_sigma: float) -> Tensor:
    """gaussian_blur with standard deviations in pixels, 0 for none.

    Args:
        images: float32 [B, V, 1, S, S].
        sigmas: float32 [B, V].
        largest_sigma: of all that may come; the kernel of every image reaches four times as far.
    """
    radius = min(math.ceil(4 * largest_sigma), images.shape[-1] - 1)
    taps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (taps / sigmas.flatten().clamp_min(1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(-1, keepdim=True))[:, None, None]
    flat = images.flatten(0, 2)[None]  # images as channels, each with a kernel of its own
    count = flat.shape[1]
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="reflect"), kernel, groups=count)
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="reflect"), kernel.transpose(-1, -2), groups=count)
    return flat[0].view_as(images)


def _each(numbers: Tensor) -> Tensor:
    """[B, V] -> [B, V, 1, 1, 1], one number for each image."""
    return numbers[..., None, None, None]
