"""Every preset against the recipe it is named after: evaluation as a pipeline of torchvision, training in figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers import settings, write_manifest
from PIL import Image
from torchvision.transforms import v2 as tv
from torchvision.transforms.v2 import functional as tvf

from cxrcl.app.train import train
from cxrcl.commands.entry import config_folder
from cxrcl.commands.hydra import compose
from cxrcl.config.nodes import build
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.phantom.anatomy import Pose
from cxrcl.data.phantom.render import render
from cxrcl.data.phantom.study import patient_studies
from cxrcl.inference import predict
from cxrcl.types import Batch, ImageSpec

SIDE = 224
DRAWS = 500
PRESETS = sorted(file.stem for file in (config_folder() / "transform").glob("*.yaml"))


def preset(name: str, size: int = SIDE, **changes: Any) -> RadiographTransform:
    node = {**compose("train", [f"transform={name}"])["transform"], **changes}
    spec = ImageSpec(size, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return build(node, RadiographTransform, "transform", {"spec": spec})


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    study = next(patient_studies(seed=1, patient=2))
    return render(study, Pose.sample(np.random.default_rng(0), "PA", 0.4), 400)[0]


# ------------------------------------------------------------------------------------------ evaluation


def padded(image: Image.Image) -> Image.Image:
    square = Image.new("L", (max(image.size),) * 2)
    square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
    return square


def pipeline(*steps: Callable[[Image.Image], Image.Image]) -> Callable[[Image.Image], Image.Image]:
    return tv.Compose(steps)  # type: ignore[no-any-return]


BICUBIC = tv.InterpolationMode.BICUBIC
EVALUATION = {
    "cxr_clip": pipeline(tv.Resize(224), tv.CenterCrop(224)),
    "gloria": pipeline(padded, tv.Resize(256), tv.CenterCrop(224)),
    "convirt": pipeline(tv.Resize((224, 224))),
    "simclr": pipeline(tv.Resize((224, 224))),
    "moco": pipeline(tv.Resize(256), tv.CenterCrop(224)),
    "chexzero": pipeline(padded, tv.Resize(320, BICUBIC), tv.Resize(224, BICUBIC)),
    "plain": pipeline(padded, tv.Resize(224)),
    "radiograph": pipeline(padded, tv.Resize(224)),
}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("part", [np.s_[:], np.s_[:, 40:360], np.s_[80:, :]], ids=["square", "tall", "wide"])
def test_evaluation_is_the_pipeline_of_the_recipe(name: str, part: Any, image: np.ndarray) -> None:
    image = np.ascontiguousarray(image[part])
    found = preset(name).geometry(image, None).astype(float)
    expected = {each: np.asarray(EVALUATION[each](Image.fromarray(image)), float) for each in EVALUATION}
    # Two ways of resizing differ by the image's noise, along edges by more; other recipes by far more.
    assert np.abs(found - expected[name]).mean() < 1.5
    others = [np.abs(found - other).mean() for other in expected.values() if (other != expected[name]).mean() > 0.5]
    assert min(others, default=99) > 6


# -------------------------------------------------------------------------------------------- training


class Figures(NamedTuple):
    area: tuple[float, float]  # of the crop, relative to the image's, with all that enlarges
    aspect: float
    flipped: float = 0.0
    degrees: float = 0.0
    shift: float = 0.0
    clahe: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    jittered: float = 1.0
    blurred: float = 0.0
    sigma: tuple[float, float] = (0.0, 0.0)


WIDTH, HEIGHT = 200, 160  # of the image below
PADDED = WIDTH / HEIGHT  # the square around it is that much larger
INNER = HEIGHT / WIDTH  # the largest square in it
CROP = (224 / 256) ** 2
RECIPES = {
    "radiograph": Figures((0.7 * PADDED, PADDED), 1.1, degrees=10, brightness=0.1, contrast=0.2),
    "plain": Figures((PADDED, PADDED), 1),
    "chexzero": Figures((PADDED, PADDED), 1),
    "cxr_clip": Figures((0.8, 1.0), 4 / 3, clahe=0.5, brightness=0.1, contrast=0.2),
    "gloria": Figures((CROP * PADDED, CROP * PADDED), 1),
    "convirt": Figures(
        (0.6 / 1.05**2, 1 / 0.95**2), 4 / 3, 0.5, 20, 0.1, brightness=0.4, contrast=0.4, blurred=0.5, sigma=(0.1, 3)
    ),
    "simclr": Figures((CROP * INNER, CROP * INNER), 1, 0.5),
    "moco": Figures((0.8, 1), 4 / 3, 0.5, 15, brightness=0.1, contrast=0.1, jittered=0.2, blurred=1.0, sigma=(0.1, 1)),
}


def maps(transform: RadiographTransform) -> np.ndarray:
    """Where the pixels of the output come from, float [DRAWS, 2, 2], found on images whose values are coordinates."""
    x, y = (np.arange(length) * 255 / (length - 1) for length in (WIDTH, HEIGHT))
    images = (np.tile(x, (HEIGHT, 1)), np.tile(y[:, None], (1, WIDTH)))
    size = transform.spec.size
    middle = slice(size // 2 - size // 8, size // 2 + size // 8)  # never black
    across = np.arange(size)[middle]
    design = np.stack([*np.meshgrid(across, across), np.ones((len(across),) * 2)], axis=-1).reshape(-1, 3)
    found = []
    for k in range(DRAWS):
        squares = [transform.geometry(np.rint(f).astype(np.uint8), np.random.default_rng(k)) for f in images]
        values = np.stack([square[middle, middle].ravel() for square in squares], axis=1)
        found.append(np.linalg.lstsq(design, values, rcond=None)[0][:2].T)
    return np.stack(found) * np.array([[(WIDTH - 1) / 255], [(HEIGHT - 1) / 255]])


@pytest.mark.parametrize("name", PRESETS)
def test_crops_flips_and_angles_of_training_are_those_of_the_recipe(name: str) -> None:
    recipe, size = RECIPES[name], 96
    matrices = maps(preset(name, size, clahe_probability=0.0))
    flipped = np.linalg.det(matrices) < 0
    assert abs(flipped.mean() - recipe.flipped) < (0.07 if recipe.flipped else 1e-9)
    areas = np.abs(np.linalg.det(matrices)) * size**2 / (WIDTH * HEIGHT)
    slack = 0.02 * recipe.area[1]
    assert recipe.area[0] - slack < areas.min() and areas.max() < recipe.area[1] + slack
    if name != "convirt":  # where the extremes of crop and zoom have to meet
        assert areas.min() < recipe.area[0] + 3 * slack and areas.max() > recipe.area[1] - 3 * slack
    steps = np.linalg.norm(matrices, axis=2)  # image pixels for one of the output, in x and y
    made = preset(name)
    unit = WIDTH / HEIGHT if (made.train_fit or made.fit) == "squash" else 1.0
    bend = np.abs(np.log(steps[:, 0] / steps[:, 1] / unit))
    assert math.log(recipe.aspect) * 0.85 - 0.02 < bend.max() < math.log(recipe.aspect) + 0.03
    degrees = np.rad2deg(np.arctan(matrices[:, 0, 1] / matrices[:, 0, 0]))
    assert recipe.degrees * 0.95 - 1e-6 <= np.abs(degrees).max() < recipe.degrees + 0.7


@pytest.mark.parametrize("name", PRESETS)
def test_shifts_of_training_are_those_of_the_recipe(name: str) -> None:
    image = np.zeros((65, 65), np.uint8)
    image[32, 32] = 255
    still = {"scale": None, "eval_crop": 1.0, "rotate_deg": 0, "zoom": [1, 1], "flip_probability": 0.0}
    transform = preset(name, 65, **still, clahe_probability=0.0)
    squares = [transform.geometry(image, np.random.default_rng(k)) for k in range(DRAWS)]
    places = np.array([np.unravel_index(square.argmax(), square.shape) for square in squares])
    np.testing.assert_allclose(np.abs(places - 32).max(axis=0), RECIPES[name].shift * 65, atol=0.6)


@pytest.mark.parametrize("name", PRESETS)
def test_photometry_of_training_is_that_of_the_recipe(name: str) -> None:
    recipe, transform = RECIPES[name], preset(name)
    drawn = np.stack([transform.draw(np.random.default_rng(k)) for k in range(DRAWS)])
    _, brightness, contrast, sigma = drawn.T
    for factors, most in ((brightness, recipe.brightness), (contrast, recipe.contrast)):
        assert 0.9 * most <= np.abs(factors - 1).max() <= most + 1e-6
        if most > 0:
            assert abs((factors != 1).mean() - recipe.jittered) < 0.06
    assert abs((sigma > 0).mean() - recipe.blurred) < 0.06
    if recipe.blurred:
        np.testing.assert_allclose((sigma[sigma > 0].min(), sigma.max()), recipe.sigma, atol=0.05)
    assert (drawn[:, 0] != 1).any() == (name == "radiograph")  # no source changes gamma


@pytest.mark.parametrize("name", PRESETS)
def test_clahe_has_the_share_of_the_recipe(name: str, image: np.ndarray) -> None:
    small = np.ascontiguousarray(image[::4, ::4])
    one, other = preset(name, 64), preset(name, 64, clahe_probability=0.0)
    changed = [
        (one.geometry(small, np.random.default_rng(k)) != other.geometry(small, np.random.default_rng(k))).any()
        for k in range(DRAWS)
    ]
    assert abs(np.mean(changed) - RECIPES[name].clahe) < (0.07 if RECIPES[name].clahe else 1e-9)
    assert one.clahe_clip == (1.0, 4.0)


# ----------------------------------------------------------------------------------------------- running


@pytest.mark.parametrize("name", PRESETS)
def test_a_batch_goes_through_both_halves(name: str, image: np.ndarray) -> None:
    transform = preset(name, 64)
    streams = [np.random.default_rng(k) for k in range(4)]
    images = torch.from_numpy(np.stack([transform.geometry(image, rng) for rng in streams])).view(2, 2, 1, 64, 64)
    augment = torch.from_numpy(np.stack([transform.draw(rng) for rng in streams])).view(2, 2, 4)
    mean, std = transform.spec.mean[0], transform.spec.std[0]
    plain = (tvf.to_dtype(images, torch.float32, scale=True) - mean) / std
    nothing = torch.empty(0)
    for numbers in (augment, None):
        out = transform.finish(Batch(images, numbers, None, nothing, nothing)).images
        assert out is not None and out.shape == (2, 2, 3, 64, 64) and out.isfinite().all()
        assert -mean / std - 1e-5 <= out.min() and out.max() <= (1 - mean) / std + 1e-5
        changed = (out - plain).abs().max() > 0.01
        assert changed == (numbers is not None and bool((augment != torch.tensor([1.0, 1, 1, 0])).any()))


def test_chexzero_has_a_normalisation_of_its_own() -> None:
    spec = preset("chexzero").spec
    np.testing.assert_allclose(spec.mean, [101.48761 / 255] * 3, rtol=1e-6)
    np.testing.assert_allclose(spec.std, [83.43944 / 255] * 3, rtol=1e-6)
    assert all(preset(name).spec.mean[0] == 0.5 for name in PRESETS if name != "chexzero")


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_and_comes_back_with_the_checkpoint(name: str, tmp_path: Path) -> None:
    data = write_manifest(tmp_path / "set", studies=40, size=40)
    done = train(settings(data, tmp_path / "run", f"transform={name}", "trainer.max_steps=2"))
    assert done.finished and done.steps == 2
    restored = predict.load_model(done.folder / "checkpoints" / "last.pt", torch.device("cpu")).transform
    made = preset(name, restored.spec.size)
    if made.spec.mean[0] == 0.5:
        made.spec = restored.spec  # the encoder's
    assert vars(restored) == vars(made)
