"""From a film of any size to the model's input, in two halves.

Host half, in the loader's workers: geometry on one uint8 channel (fit to a square, crop, affine), a single
interpolation. Device half, batched: photometry, normalisation and the step from one channel to three. The random
numbers of the device half are drawn on the host, so that a sample is a function of (seed, epoch, row, view) alone.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cxrcl.types import Batch, ImageSpec

# Hue and saturation do nothing to a grey film; horizontal flips move the heart to the other side: neither is offered.


class RadiographTransform:
    """Augmentation for training, plain fitting for evaluation.

    Args:
        spec: the image encoder's size and normalisation.
        fit: how a film that is not square becomes square: `pad` (black borders, whole film), `crop` (centre) or
            `squash` (aspect not kept).
        scale: range of the area of the random crop, relative to the fitted square; above 1 zooms out.
        aspect: the random crop's sides differ by up to this factor.
        rotate_deg: rotation is uniform in +- this angle.
        translate: the crop's centre moves by up to this fraction of the side, on top of what the crop leaves free.
        contrast, brightness: multiplied by / shifted by uniform +- this (images in [0, 1]).
        gamma: exponent is exp(uniform +- this).
        blur_px: standard deviation of a Gaussian blur is uniform in [0, this].
    """

    def __init__(
        self,
        spec: ImageSpec,
        fit: Literal["pad", "crop", "squash"] = "pad",
        scale: tuple[float, float] = (0.7, 1.0),
        aspect: float = 1.1,
        rotate_deg: float = 10.0,
        translate: float = 0.0,
        contrast: float = 0.2,
        brightness: float = 0.1,
        gamma: float = 0.2,
        blur_px: float = 0.0,
    ) -> None:
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale={list(scale)}: expected two areas, the smaller first, both above 0")
        if aspect < 1:
            raise ValueError(f"aspect={aspect}: expected 1 or more")
        if rotate_deg < 0 or translate < 0:
            raise ValueError("rotate_deg and translate are ranges: expected 0 or more")
        self.spec = spec
        self.fit = fit
        self.scale = scale
        self.aspect = aspect
        self.rotate_deg = rotate_deg
        self.translate = translate
        self.ranges = np.array([contrast, brightness, gamma, blur_px], dtype=np.float32)
        if (self.ranges < 0).any():
            raise ValueError("contrast, brightness, gamma and blur_px are ranges: expected 0 or more")

    # ------------------------------------------------------------------------------------------ host half

    def needed_side_px(self) -> int:
        """The shorter side at which a film should be decoded: room for the smallest crop."""
        return round(self.spec.size / min(1.0, float(np.sqrt(self.scale[0] / self.aspect))))

    def geometry(self, film: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """uint8 [H, W] -> uint8 [S, S]; without `rng` the film is only fitted."""
        size = self.spec.size
        height, width = film.shape
        # Source pixels for each side of the output square: what `fit` means.
        side = {"pad": max(height, width), "crop": min(height, width), "squash": 0}[self.fit]
        step_x, step_y = ((side or width) / size, (side or height) / size)
        matrix = np.array([[step_x, 0.0], [0.0, step_y]])
        centre = np.array([width / 2, height / 2])
        if rng is not None:
            area = rng.uniform(*self.scale)
            aspect = np.exp(rng.uniform(-1, 1) * np.log(self.aspect))
            crop = np.sqrt([area * aspect, area / aspect])
            angle = np.deg2rad(rng.uniform(-self.rotate_deg, self.rotate_deg))
            free = np.maximum(0.0, 1 - crop) / 2 + self.translate
            shift = rng.uniform(-1, 1, size=2) * free * size
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            centre = centre + matrix @ shift
            matrix = matrix @ turn @ np.diag(crop)
        # Down-scaling by more than 2 aliases under bilinear interpolation: shrink by area first.
        shrink = min(step_x, step_y)
        if shrink > 2:
            factor = 1.5 / shrink
            film = cv2.resize(film, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)
            rescale = np.array([film.shape[1] / width, film.shape[0] / height])
            matrix, centre = rescale[:, None] * matrix, rescale * centre
        # Pixel centres lie at +0.5: output pixel o shows the film at matrix (o + 0.5 - S/2) + centre - 0.5.
        origin = centre - 0.5 + matrix @ np.full(2, 0.5 - size / 2)
        warp = np.column_stack([matrix, origin])
        return cv2.warpAffine(film, warp, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Random numbers of the device half, float32 [P]."""
        numbers = rng.uniform(-1, 1, size=len(self.ranges)).astype(np.float32)
        numbers[3] = abs(numbers[3])  # a blur has one side only
        return numbers * self.ranges

    # ---------------------------------------------------------------------------------------- device half

    def finish(self, batch: Batch) -> Batch:
        """uint8 [B, V, 1, S, S] -> normalised float32 [B, V, 3, S, S] (a broadcast view where that is possible)."""
        assert batch.images is not None
        images = batch.images.to(torch.float32) / 255
        if batch.augment is not None:
            images = self._photometry(images, batch.augment)
        mean, std = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (self.spec.mean, self.spec.std))
        if len(set(self.spec.mean)) == len(set(self.spec.std)) == 1:
            images = ((images - mean[0]) / std[0]).expand(-1, -1, 3, -1, -1)
        else:
            images = (images - mean) / std
        batch.images, batch.augment = images, None
        return batch

    def _photometry(self, images: Tensor, augment: Tensor) -> Tensor:
        contrast, brightness, gamma, blur = (n[..., None, None, None] for n in augment.unbind(-1))
        if self.ranges[2] > 0:
            images = images.clamp_min(1e-6) ** gamma.exp()
        images = (images - 0.5) * (1 + contrast) + 0.5 + brightness
        if self.ranges[3] > 0:
            images = _blur(images, blur.flatten(), float(self.ranges[3]))
        return images.clamp(0, 1)


def _blur(images: Tensor, sigma: Tensor, largest_sigma: float) -> Tensor:
    """Separable Gaussian blur, one standard deviation (pixels) for each image of [B, V, 1, S, S]."""
    radius = max(1, int(3 * largest_sigma))
    taps = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (taps / sigma.clamp_min(1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(-1, keepdim=True))[:, None, None]
    flat = images.flatten(0, 2)[None]
    count = flat.shape[1]
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="replicate"), kernel, groups=count)
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="replicate"), kernel.transpose(-1, -2), groups=count)
    return flat[0].view_as(images)
