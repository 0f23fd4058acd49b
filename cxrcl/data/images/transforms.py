"""From an image of any size to the model's input, in two halves.

Host half, in the loader's workers, on one uint8 channel: crop, affine map, CLAHE (`geometry`). Device half,
batched: photometry (`photometry`), normalisation and the step from one channel to three. The random numbers
of the device half are drawn on the host, so that a sample is a function of (seed, epoch, row, view) alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from cxrcl.data.images import photometry
from cxrcl.data.images.geometry import Crop, Fit, TrainFit, equalise, middle_crop, random_crop, read_out
from cxrcl.types import Batch, ImageSpec, NotNegative, Part, Positive, Share

Range = tuple[float, float]


@dataclass(eq=False)
class RadiographTransform:
    """Augmentation for training, plain fitting for evaluation.

    Evaluation: the image becomes a square by `fit`, of which the middle is taken. Training, in this order: random crop,
    flip, rotation with zoom and translation (one interpolation with the crop), CLAHE, gamma, brightness, contrast,
    blur. Each view draws its own random numbers. The defaults are those of `configs/transform/radiograph.yaml`.

    Args:
        spec: the image encoder's size and normalisation.
        fit: how an image that is not square becomes square: `pad` (black borders, whole image), `crop` (centre) or
            `squash` (aspect not kept).
        eval_crop: the share of the square's side that evaluation sees: 0.875 is "resize to 256, middle 224".
        scale: range of the area of the random crop, relative to the square; a crop that would leave it is drawn again.
            None: training takes evaluation's crop.
        aspect: width over height of the random crop lies between 1 / this and this.
        train_fit: `fit` for the random crop; None: the same. With `crop` it lies anywhere on the image, not only in the
            middle square. `image`: areas are relative to the image, aspects those of its pixels, which is
            torchvision's RandomResizedCrop (`film` is an older name of this).
        flip_probability: of exchanging left and right. An image that is flipped shows the heart on the other side, and
            its report is wrong wherever it says left or right: 0 unless a recipe is followed.
        rotate_deg: rotation is uniform in +- this angle.
        zoom: range of a further enlargement; below 1 the surroundings of the crop come into view.
        translate: shift in x and y, uniform in +- this fraction of the model's square.
        clahe_probability, clahe_clip: of CLAHE, and the range of its clip limit.
        gamma: exponent is exp(uniform in +- this).
        brightness: factor is uniform in 1 +- this.
        contrast: distances from the image's mean are multiplied by a factor uniform in 1 +- this.
        jitter_probability: of the three together.
        blur_probability, blur_px: of a Gaussian blur, and the range of its standard deviation in pixels of the model's
            square.
        mean, std: normalisation of images in [0, 1], in place of the encoder's.
    """

    spec: ImageSpec
    fit: Fit = "pad"
    eval_crop: Part = 1.0
    scale: Range | None = (0.7, 1.0)
    aspect: Annotated[float, Field(ge=1)] = 1.1
    train_fit: TrainFit | Literal["film"] | None = None
    flip_probability: Share = 0.0
    rotate_deg: NotNegative = 10.0
    zoom: Range = (1.0, 1.0)
    translate: NotNegative = 0.0
    clahe_probability: Share = 0.0
    clahe_clip: Range = (1.0, 4.0)
    gamma: NotNegative = 0.2
    brightness: Share = 0.1
    contrast: Share = 0.2
    jitter_probability: Share = 1.0
    blur_probability: Share = 0.0
    blur_px: Range = (0.1, 1.0)
    mean: float | None = None
    std: Positive | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < self.scale[0] <= min(1.0, self.scale[1]):
            raise ValueError(f"scale={list(self.scale)}: expected two areas, the smaller first, above 0 and at most 1")
        for name in ("zoom", "clahe_clip", "blur_px"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}=[{low}, {high}]: expected the smaller first, both above 0")
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"mean={self.mean}, std={self.std}: expected both or neither (images are in [0, 1])")
        if self.mean is not None and self.std is not None:
            self.spec = replace(self.spec, mean=(self.mean,) * 3, std=(self.std,) * 3)

    @property
    def augments(self) -> bool:
        """Whether training changes images in other ways than evaluation does."""
        jitter = self.jitter_probability > 0 and max(self.gamma, self.brightness, self.contrast) > 0
        chances = (self.flip_probability, self.clahe_probability, self.blur_probability)
        moved = max(self.rotate_deg, self.translate, *chances) > 0 or tuple(self.zoom) != (1.0, 1.0)
        return self.scale is not None or moved or jitter

    # ------------------------------------------------------------------------------------------ host half
    def needed_side_px(self, augmented: bool = True) -> int:
        """The shorter side at which an image should be decoded, so that the smallest crop is not enlarged."""
        smallest = self.eval_crop
        if augmented and self.scale is not None:
            smallest = math.sqrt(self.scale[0] / self.aspect)
        return round(self.spec.size * (max(1.0, self.zoom[1]) if augmented else 1.0) / smallest)

    def geometry(self, image: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """The host half: uint8 [H, W] -> uint8 [S, S]; without `rng` the image is only fitted."""
        size = self.spec.size
        height, width = image.shape
        if rng is None:
            return read_out(image, self.evaluation_crop(width, height), size)
        if self.scale is None:
            crop = self.evaluation_crop(width, height)
        else:
            fit = "image" if self.train_fit == "film" else self.train_fit or self.fit
            crop = random_crop(fit, width, height, self.scale, self.aspect, rng)
        square = read_out(
            image,
            crop,
            size,
            degrees=rng.uniform(-self.rotate_deg, self.rotate_deg),
            zoom=rng.uniform(*self.zoom),
            shift=(rng.uniform(-self.translate, self.translate), rng.uniform(-self.translate, self.translate)),
            flip=rng.random() < self.flip_probability,
        )
        if rng.random() < self.clahe_probability:
            square = equalise(square, rng.uniform(*self.clahe_clip))
        return square

    def evaluation_crop(self, width: int, height: int) -> Crop:
        """The rectangle of an image that becomes the square in evaluation."""
        return middle_crop(self.fit, width, height, self.eval_crop)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The numbers of the device half, float32 [4]: gamma's exponent, factors of brightness and contrast, blur."""
        numbers = [
            math.exp(rng.uniform(-self.gamma, self.gamma)),
            1 + rng.uniform(-self.brightness, self.brightness),
            1 + rng.uniform(-self.contrast, self.contrast),
        ]
        if rng.random() >= self.jitter_probability:
            numbers = [1.0, 1.0, 1.0]
        blurred = rng.random() < self.blur_probability
        return np.array([*numbers, rng.uniform(*self.blur_px) if blurred else 0.0], dtype=np.float32)

    # ---------------------------------------------------------------------------------------- device half

    def finish(self, batch: Batch) -> Batch:
        """The device half: uint8 [B, V, 1, S, S] -> normalised float32 [B, V, 3, S, S], a view where possible."""
        assert batch.images is not None
        images = batch.images.to(torch.float32).div_(255)
        if batch.augment is not None:
            exponents, bright, contrasts, sigmas = batch.augment.unbind(-1)
            # The settings decide what is left out, and not the numbers: to read these would wait for the device.
            jittered = self.jitter_probability > 0
            if jittered and self.gamma > 0:
                images = photometry.gamma(images, exponents)
            if jittered and self.brightness > 0:
                images = photometry.brightness(images, bright)
            if jittered and self.contrast > 0:
                images = photometry.contrast(images, contrasts)
            if self.blur_probability > 0:
                images = photometry.blur(images, sigmas, self.blur_px[1])
        mean, std = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (self.spec.mean, self.spec.std))
        if len(set(self.spec.mean)) == len(set(self.spec.std)) == 1:
            images = images.sub_(mean[0]).div_(std[0]).expand(-1, -1, 3, -1, -1)
        else:
            images = (images - mean).div_(std)
        batch.images, batch.augment = images, None
        return batch
