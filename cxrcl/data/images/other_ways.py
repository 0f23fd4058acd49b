"""How other code makes the model's input of an image: windows, fits, interpolations and normalisations of its own.

Not used in training. `cxrcl explain` tries them one by one on images that this package's own transform has scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import torch
from PIL import Image

from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.types import Batch

Window = Callable[[np.ndarray], np.ndarray]  # uint8 [H, W] -> uint8 [H, W]
Resize = Callable[[np.ndarray, int], np.ndarray]  # uint8 [H, W] and a side -> uint8 [side, side]


@dataclass(eq=False)
class OtherWay(RadiographTransform):
    """A transform some of whose steps are done as other code does them; only for evaluation.

    Args:
        windows: what happens to the grey values of the image before anything else, in this order.
        resize: makes the square of the rectangle that `fit` and `eval_crop` give; None: as `RadiographTransform`.
        standardise: an image is normalised by its own mean and standard deviation, in place of the constants.
    """

    windows: tuple[Window, ...] = ()
    resize: Resize | None = None
    standardise: bool = False

    def geometry(self, image: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """uint8 [H, W] -> uint8 [S, S]."""
        for window in self.windows:
            image = window(image)
        if self.resize is None:
            return super().geometry(image, None)
        height, width = image.shape
        crop = self.evaluation_crop(width, height)
        (left, top), (right, bottom) = (
            [round(c + sign * side / 2) for c, side in zip(crop.centre, crop.sides)] for sign in (-1, 1)
        )
        cut = image[max(top, 0) : bottom, max(left, 0) : right]
        beyond = (max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0))
        return self.resize(np.pad(cut, beyond), self.spec.size)

    def finish(self, batch: Batch) -> Batch:
        """uint8 [B, V, 1, S, S] -> normalised float32 [B, V, 3, S, S]."""
        if not self.standardise:
            return super().finish(batch)
        assert batch.images is not None
        images = batch.images.to(torch.float32)
        std, mean = torch.std_mean(images, dim=(-2, -1), keepdim=True, correction=0)
        batch.images = ((images - mean) / std.clamp_min(1e-6)).expand(-1, -1, 3, -1, -1)
        return batch


def other_way(transform: RadiographTransform) -> OtherWay:
    """The same transform, some of whose steps may now be changed by `dataclasses.replace`.

    The normalisation that it uses becomes that of its `spec`.
    """
    settings = {name: value for name, value in vars(transform).items() if name not in ("mean", "std")}
    return OtherWay(**settings)


def normalised_by(way: OtherWay, mean: tuple[float, float, float], std: tuple[float, float, float]) -> OtherWay:
    """With other constants, of images in [0, 1]."""
    return replace(way, spec=replace(way.spec, mean=mean, std=std))


# ------------------------------------------------------------------------------------------------------- grey values


def stretched(image: np.ndarray) -> np.ndarray:
    """From the smallest to the largest value of the image."""
    return between(image, 0, 100)


def between(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """From one percentile of the image to another; beyond them it is black or white."""
    first, last = np.percentile(image, (low, high))
    scaled = (image.astype(np.float32) - first) / max(last - first, 1.0) * 255
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def inverted(image: np.ndarray) -> np.ndarray:
    """Black for white: MONOCHROME1 read as it is stored."""
    return 255 - image


def equalised(image: np.ndarray) -> np.ndarray:
    """Histogram equalisation of the whole image, as MIMIC-CXR-JPG has been through."""
    return cv2.equalizeHist(image)


# ---------------------------------------------------------------------------------------------------- interpolations


def pillow(image: np.ndarray, side: int, method: Image.Resampling) -> np.ndarray:
    """Pillow's resize, which averages when it shrinks (but for NEAREST); torchvision's of a Pillow image."""
    return np.asarray(Image.fromarray(image).resize((side, side), method))


def opencv(image: np.ndarray, side: int, method: int) -> np.ndarray:
    """OpenCV's resize, which does not average when it shrinks; torchvision's of a tensor with antialias=False."""
    return cv2.resize(image, (side, side), interpolation=method)


def first_to(image: np.ndarray, side: int, middle: int) -> np.ndarray:
    """Shrunk to another size first, as data that were stored small."""
    return pillow(pillow(image, middle, Image.Resampling.BILINEAR), side, Image.Resampling.BILINEAR)


RESIZES: dict[str, Resize] = {
    "Pillow, bilinear": partial(pillow, method=Image.Resampling.BILINEAR),
    "Pillow, bicubic": partial(pillow, method=Image.Resampling.BICUBIC),
    "Pillow, Lanczos": partial(pillow, method=Image.Resampling.LANCZOS),
    "nearest": partial(pillow, method=Image.Resampling.NEAREST),
    "OpenCV, linear without averaging": partial(opencv, method=cv2.INTER_LINEAR),
    "OpenCV, area": partial(opencv, method=cv2.INTER_AREA),
}
WINDOWS: dict[str, Window] = {
    "smallest to largest value": stretched,
    "percentiles 1 to 99": partial(between, low=1, high=99),
    "inverted": inverted,
    "histogram equalised": equalised,
}
