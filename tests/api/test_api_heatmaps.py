"""Heat-maps of a model, on the pixels of the films that it was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from api_models import CLASSIFY, Make
from checkpoints import plain_checkpoint
from helpers import near
from PIL import Image

import cxrcl
from cxrcl import api
from cxrcl.errors import ConfigError, DataError


def test_heat_maps_lie_on_the_films(model: api.Model, films: list[Path]) -> None:
    given = [films[0], np.asarray(Image.open(films[1])), Image.open(films[3])]
    maps = model.heatmap(given, label="Edema")
    assert [found.shape for found in maps] == [(40, 32), (40, 32), (32, 32)]
    assert all(found.dtype == np.float32 and np.isfinite(found).all() and found.max() > 0 for found in maps)
    alone = model.heatmap(given[:1], label="Edema")[0]
    assert near(alone, maps[0], 1e-5)
    assert not near(alone, model.heatmap(given[:1], label="Cardiomegaly")[0])
    assert not near(alone, model.heatmap(given[:1], phrase="edema")[0])


def test_a_map_of_an_exact_kind_has_the_score_as_its_mean(make: Make, films: list[Path]) -> None:
    encoder = {"_target_": "helpers.TinyImages", "size": 16}
    nodes = {**plain_checkpoint(make())["config"]["model"], "image_encoder": encoder, "objective": CLASSIFY}
    found = cxrcl.load(make(CLASSIFY, model=nodes), device="cpu", allow_packages=["helpers"])
    square = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    (map_,) = found.heatmap([square], label="Edema")
    logit = np.log(1 / (1 / found.classify([square])[0, 2] - 1))
    assert map_.mean() == pytest.approx(logit, rel=1e-4)


def test_what_the_model_does_not_see_is_nan(make: Make, films: list[Path]) -> None:
    transform = {**plain_checkpoint(make())["config"]["transform"], "fit": "crop"}
    (map_,) = cxrcl.load(make(transform=transform), device="cpu").heatmap(films[:1], label="Edema")
    assert np.isnan(map_[:4]).all() and np.isnan(map_[36:]).all() and np.isfinite(map_[4:36]).all()


def test_heat_maps_say_what_is_wrong(make: Make, model: api.Model, films: list[Path]) -> None:
    for arguments, said in (
        ({}, "expected a label or a phrase"),
        ({"label": "Edema", "phrase": "edema"}, "expected a label or a phrase"),
        ({"label": "Edma"}, "did you mean `Edema`"),
        ({"phrase": "..."}, "expected words"),
    ):
        with pytest.raises(ConfigError, match=said):
            model.heatmap(films, **arguments)
    with pytest.raises(DataError, match=r"absent\.png: file not found"):
        model.heatmap(["absent.png"], label="Edema")
    classifier = cxrcl.load(make(CLASSIFY), device="cpu")
    with pytest.raises(ConfigError, match="no label 'Edma'"):
        classifier.heatmap(films, label="Edma")
    with pytest.raises(ConfigError, match="not what Classify can do"):
        classifier.heatmap(films, phrase="edema")
