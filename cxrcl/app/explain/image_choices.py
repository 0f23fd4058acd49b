"""Choices of how images become the model's input, and of which weights read them: each needs its own pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from cxrcl.config.nodes import Packages, locate, parameters
from cxrcl.data.images.other_ways import RESIZES, WINDOWS, OtherWay, Resize, Window, normalised_by
from cxrcl.evaluation.choices.choice import NOW, Choice, Stage, Variant
from cxrcl.models.base import Encoder
from cxrcl.types import ImageSpec

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
CHEXZERO = ((101.48761 / 255,) * 3, (83.43944 / 255,) * 3)  # Tiu et al. 2022, zero_shot.py
CONSTANTS = {
    "ImageNet's": IMAGENET,
    "CLIP's": CLIP,
    "CheXzero's": CHEXZERO,
    "0.5 and 0.5": ((0.5,) * 3, (0.5,) * 3),
    "0.5 and 0.25": ((0.5,) * 3, (0.25,) * 3),
    "none (images in 0 .. 1)": ((0.0,) * 3, (1.0,) * 3),
    "none (images in 0 .. 255)": ((0.0,) * 3, (1 / 255,) * 3),
}
FITS = {"pad": "the longer side, black borders", "crop": "the middle of the shorter side", "squash": "both sides"}
SHARES = (1.0, 0.875)


@dataclass(frozen=True)
class ImageWay:
    """How images are read.

    Attributes:
        transform: from an image to the model's input.
        pooled: name of what is embedded: the encoder's pooled features, or a mean or maximum of its local ones.
        settings: of the image encoder's node, laid over those of the checkpoint.
    """

    transform: OtherWay
    pooled: str = "pooled"
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Models:
    """Which checkpoints are read, and which of their weights.

    Attributes:
        numbers: of the checkpoints, in the order in which they were named.
        of_figures: of several, the mean of their figures is taken; else that of their probabilities.
        averaged: the moving average of the weights, where there is one.
    """

    numbers: tuple[int, ...] = (0,)
    of_figures: bool = False
    averaged: bool = True


def _transformed(name: str, remedy: str, **changed: Any) -> Variant:
    return Variant(name, lambda way: replace(way, transform=replace(way.transform, **changed)), remedy)


def _constants(name: str, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Variant:
    shown = ", ".join(f"({', '.join(f'{value:.4g}' for value in part)})" for part in (mean, std))
    return Variant(
        name,
        lambda way: replace(way, transform=normalised_by(way.transform, mean, std)),
        f"Normalize({shown}) of images in 0 .. 1",
    )


def normalisation_choice(spec: ImageSpec) -> Choice:
    """What is subtracted from grey values, and what they are divided by."""
    others = [
        _constants(name, mean, std) for name, (mean, std) in CONSTANTS.items() if (mean, std) != (spec.mean, spec.std)
    ]
    if (spec.mean[::-1], spec.std[::-1]) != (spec.mean, spec.std):
        others.append(_constants("channels in reverse (BGR)", spec.mean[::-1], spec.std[::-1]))
    others.append(_transformed("each image's own", "(image - image.mean()) / image.std()", standardise=True))
    return Choice("normalisation", Stage.IMAGES, NOW, tuple(others))


def fit_choice(transform: OtherWay) -> Choice:
    """How an image that is not square becomes square, and how much of the middle is seen."""
    others = []
    for fit, words in FITS.items():
        for share in SHARES:
            if (fit, share) != (transform.fit, transform.eval_crop):
                size = transform.spec.size
                then = "" if share == 1 else f", resized to {round(size / share)} and cut to the middle {size}"
                name, remedy = f"{fit}{then}", f"square from {words}; transform.fit={fit} transform.eval_crop={share}"
                others.append(_transformed(name, remedy, fit=fit, eval_crop=share))
    return Choice("fit", Stage.IMAGES, NOW, tuple(others))


def _resized(name: str, resize: Resize) -> Variant:
    return _transformed(name, f"resize with {name}", resize=resize)


def _windowed(name: str, window: Window) -> Variant:
    def step(way: ImageWay) -> ImageWay:
        return replace(way, transform=replace(way.transform, windows=(*way.transform.windows, window)))

    return Variant(name, step, f"8-bit grey values: {name}")


def photometry_choices() -> list[Choice]:
    """Interpolation and windows."""
    resizes = tuple(_resized(name, resize) for name, resize in RESIZES.items())
    windows = tuple(_windowed(name, window) for name, window in WINDOWS.items())
    return [
        Choice("interpolation", Stage.IMAGES, NOW, resizes),
        Choice("window", Stage.IMAGES, NOW, windows),
    ]


def setting_variants(node: Mapping[str, Any], setting: str, base: type[Encoder], packages: Packages) -> list[Any]:
    """Other values of a setting of an encoder whose type lists them, such as the `pooling` of some; none else."""
    if setting not in node:
        return []
    allowed = get_args(parameters(locate(node, base, "", packages))[setting].annotation)
    return [value for value in allowed if value != node[setting]]


def _pooled_as(value: Any) -> Callable[[ImageWay], ImageWay]:
    return lambda way: replace(way, settings={**way.settings, "pooling": value})


def _pooled(name: str) -> Callable[[ImageWay], ImageWay]:
    return lambda way: replace(way, pooled=name)


def _number(number: int) -> Callable[[Models], Models]:
    return lambda models: replace(models, numbers=(number,))


def pooling_choice(pooled: Sequence[str], settings: Sequence[Any]) -> Choice | None:
    """How local features become one vector.

    Args:
        pooled: what can be made of the features of a pass, beside the encoder's own pooling.
        settings: other values of the encoder's setting `pooling`.
    """
    others = [
        Variant(
            f"{value}",
            _pooled_as(value),
            f"image_encoder.pooling={value} in the training",
        )
        for value in settings
    ]
    others += [Variant(name, _pooled(name), f"features: {name} in place of the pooled ones") for name in pooled]
    return Choice("image pooling", Stage.IMAGES, NOW, tuple(others)) if others else None


def weight_choices(files: Sequence[str], has_average: bool) -> list[Choice]:
    """Which weights: the moving average or those that were trained, and which of several checkpoints.

    Args:
        files: names of the checkpoints, the current one first.
        has_average: whether the current one holds a moving average beside the trained weights.
    """
    found = []
    if has_average:
        raw = Variant("as trained", lambda models: replace(models, averaged=False), "trainer.ema_decay=null")
        found.append(Choice("weights", Stage.WEIGHTS, Variant("moving average", lambda models: models), (raw,)))
    every = tuple(range(len(files)))
    if len(files) > 1:
        others = [Variant(name, _number(k), f"checkpoint={name}") for k, name in enumerate(files) if k]
        others.append(
            Variant(
                "ensemble of all", lambda models: replace(models, numbers=every), "'checkpoint=[...]' ensemble=true"
            )
        )
        others.append(
            Variant(
                "mean figure of all",
                lambda models: replace(models, numbers=every, of_figures=True),
                "the mean of the figures of the checkpoints",
            )
        )
        found.append(Choice("checkpoint", Stage.WEIGHTS, Variant(files[0], lambda models: models), tuple(others)))
    return found
