"""Ranges of settings stand in the annotations of the constructors, and a config outside of them is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cxrcl.config.nodes import bind
from cxrcl.errors import ConfigError

RESAMPLES = ([-1, 0.5], [0, 1])
# Class -> its settings with the nearest values that are refused, and the nearest that are taken.
RANGES: dict[str, dict[str, tuple[list[Any], list[Any]]]] = {
    "objectives.classify.Classify": {
        "focal_gamma": ([-0.1, math.nan], [0, 2]),
        "init_std": ([0, -1, math.nan], [0.01, None]),
    },
    "objectives.convirt.ConVirt": {
        "tau": ([0, -1, math.nan, math.inf], [0.001]),
        "lambda_": ([-0.01, 1.01, math.nan], [0, 1]),
    },
    "objectives.cxr_clip.CxrClip": {"label_smoothing": ([-0.1, 1], [0, 0.99])},
    "objectives.gloria.Gloria": {
        "attention_scale": ([0], [0.1]),
        "word_scale": ([math.inf], [0.1]),
        "scale": ([math.nan], [0.1]),
        "local_weight": ([-1], [0]),
        "global_weight": ([math.nan], [0]),
    },
    "objectives.moco.Moco": {
        "momentum": ([-0.1, 1.1], [0, 1]),
        "temperature": ([0], [0.01]),
        "queue_size": ([0, -1], [1]),
    },
    "objectives.simclr.SimClr": {"temperature": ([0, -1, math.nan], [0.01])},
    "objectives.combined.Sum": {"weights": ([{"clip": -1}, {"clip": math.nan}], [{"clip": 0}])},
    "data.images.transforms.RadiographTransform": {
        "eval_crop": ([0, 1.1], [0.01, 1]),
        "aspect": ([0.9], [1]),
        "rotate_deg": ([-1], [0, 90]),
        "translate": ([-0.1], [0]),
        "gamma": ([-0.1], [0]),
        "std": ([0], [0.1, None]),
        **{
            name: ([-0.1, 1.1], [0, 1])
            for name in ("brightness", "contrast", "flip_probability", "clahe_probability", "jitter_probability")
        },
        "blur_probability": ([-0.1, 1.1], [0, 1]),
    },
    **{
        f"data.sources.{name}": {"weight": ([0, -1, math.inf], [0.1, None]), "fraction": ([0, 1.1], [0.1, 1, None])}
        for name in ("base.Source", "phantom.Phantom")
    },
    "data.text.prompts.PromptSampler": {"num_negatives": ([-1, 0.5], [0])},
    **{
        f"evaluation.{name}": {"resamples": RESAMPLES}
        for name in (
            *("classification.Classification", "retrieval.Retrieval", "view_only.ViewOnly", "zero_shot.ZeroShot"),
            *("zero_shot_classes.ZeroShotClasses", "negation.evaluator.Negation"),
        )
    },
    "evaluation.linear_probe.LinearProbe": {"penalties": ([[], [1, 0]], [[0.1]]), "resamples": RESAMPLES},
    "evaluation.pixel_ridge.PixelRidge": {"penalties": ([[], [1, -1]], [[0.1]]), "resamples": RESAMPLES},
    "evaluation.representation.Representation": {
        "dimensions": ([[4], [1]], [[2], [2, 3]]),
        "max_samples_per_class": ([0], [1]),
    },
    "models.patch_selection.TopKPatches": {"num_patches": ([0], [1, None]), "hidden_dim": ([0], [1])},
    "models.vit.ConvStemViT": {
        **{name: ([0], [1]) for name in ("size", "width", "depth", "heads")},
        "mlp_ratio": ([0], [0.5]),
        "dropout": ([-0.1, 1.5], [0, 1]),
    },
}
EVERY = [(cls, name, *values) for cls, settings in RANGES.items() for name, values in settings.items()]


@pytest.mark.parametrize(
    ("cls", "name", "refused", "taken"), EVERY, ids=[f"{e[0].split('.')[-1]}-{e[1]}" for e in EVERY]
)
def test_the_bounds_of_a_setting(cls: str, name: str, refused: list[Any], taken: list[Any]) -> None:
    def bound(value: Any) -> None:
        # Evaluators take their data and prompts from the application.
        bind({"_target_": f"cxrcl.{cls}", name: value}, object, "here", {"data": None, "prompts": None}, partial=True)

    for value in refused:
        with pytest.raises(ConfigError, match=rf"^here\.{name}.*(should|finite)"):
            bound(value)
    for value in taken:
        bound(value)
