"""What is given to a model: lists of images and texts, and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from api_models import CLASSIFY, HEART, Make
from helpers import near
from PIL import Image

import cxrcl
from cxrcl import api
from cxrcl.errors import ConfigError, DataError


def test_neither_batch_size_nor_order_changes_a_row(trained: Path, model: api.Model, films: list[Path]) -> None:
    texts = ["no effusion", "", "the heart is enlarged. there is an effusion on the left side.", "clips"]
    for size in (1, 2):
        other = cxrcl.load(trained, device="cpu", batch_size=size)
        for name in ("embed_images", "encode_images", "zero_shot"):
            rows = getattr(model, name)(films)
            assert near(getattr(other, name)(films[::-1])[::-1], rows), name
            assert np.abs(rows[0] - rows[1]).max() > 1e-5, name
        assert near(other.embed_texts(texts[::-1])[::-1], model.embed_texts(texts))


def test_batches_are_no_larger_than_asked(trained: Path, films: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    two = cxrcl.load(trained, device="cpu", batch_size=2)
    seen: list[int] = []
    encoder = two._loaded.objective.image_encoder
    encoder.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    two.embed_images(films)
    assert seen == [2, 2, 1]


def test_empty_lists_give_no_rows_of_the_right_width(model: api.Model, make: Make) -> None:
    assert model.embed_images([]).shape == model.embed_texts([]).shape == (0, 256)
    assert model.zero_shot([]).shape == (0, 3) and model.zero_shot([], HEART).shape == (0, 1)
    assert model.encode_images([]).shape == (0, model.encode_images([np.zeros((20, 20))]).shape[1])
    empty = cxrcl.load(make(CLASSIFY), device="cpu").classify([])
    assert empty.shape == (0, 3) and empty.dtype == np.float32


def test_films_in_memory_are_read_as_files_are(model: api.Model, films: list[Path], tmp_path: Path) -> None:
    eight = np.asarray(Image.open(films[0]))
    sixteen = (eight.astype(np.uint16) + 7) * 200
    Image.fromarray(sixteen).save(tmp_path / "sixteen.png")
    turned = Image.open(films[0])
    turned.getexif()[274] = 6  # to be shown turned by 90 degrees
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    for memory, file in (
        (eight, films[0]),
        (np.flip(np.flip(eight).copy()), films[0]),  # strides below zero
        (Image.open(films[0]), films[0]),
        (sixteen, tmp_path / "sixteen.png"),
        (sixteen / 1e5, tmp_path / "sixteen.png"),
        (Image.open(tmp_path / "sixteen.png"), tmp_path / "sixteen.png"),
        (Image.open(tmp_path / "turned.png"), tmp_path / "turned.png"),
    ):
        assert near(model.embed_images([memory]), model.embed_images([str(file)]))
    assert not near(model.embed_images([tmp_path / "turned.png"]), model.embed_images([films[0]]), 1e-4)


@pytest.mark.parametrize(
    ("film", "said"),
    [
        ("absent.png", "^absent.png: file not found"),
        (np.zeros((20, 20, 3)), r"^images\[1\]: .*found float64 \[20, 20, 3\]"),
        (np.zeros((8, 20)), r"^images\[1\]: 20 x 8 px: a side is below 16 px"),
        (np.full((20, 20), np.nan), r"^images\[1\]: no finite pixel"),
        (Image.fromarray(np.full((20, 20), np.nan, dtype=np.float32)), r"^images\[1\]: no finite pixel"),
        (torch.zeros(20, 20), r"^images\[1\]: .*found Tensor"),
    ],
)
def test_a_film_that_cannot_be_read_is_named_or_skipped(
    model: api.Model, films: list[Path], film: Any, said: str
) -> None:
    given = [films[0], film, films[1]]
    with pytest.raises(DataError, match=said):
        model.embed_images(given)
    for name in ("embed_images", "encode_images", "zero_shot"):
        rows = getattr(model, name)(given, skip_bad=True)
        assert np.isnan(rows[1]).all() and near(rows[[0, 2]], getattr(model, name)(films[:2]))
        assert np.isnan(getattr(model, name)([film], skip_bad=True)).all()


def test_a_truncated_image_of_pillow_is_named(model: api.Model, films: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(films[0].read_bytes()[:400])
    with pytest.raises(DataError, match=r"^images\[0\]: damaged image"):
        model.embed_images([Image.open(tmp_path / "cut.png")])


def test_a_single_thing_is_no_list(model: api.Model, films: list[Path]) -> None:
    for one in (str(films[0]), films[0], np.zeros((20, 20)), Image.open(films[0])):
        with pytest.raises(DataError, match=r"images: expected a list, found one .*: write \[image\]"):
            model.embed_images(one)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"texts: expected a list, found one str: write \[text\]"):
        model.embed_texts("no effusion")
    with pytest.raises(DataError, match=r"texts\[1\]: expected a string, found nan"):
        model.embed_texts(["no effusion", float("nan")])  # type: ignore[list-item]


def test_long_texts_are_cut(model: api.Model) -> None:
    long = "the heart is enlarged " * 100
    assert near(model.embed_texts([long]), model.embed_texts([long + "no effusion"]))
    assert not near(model.embed_texts(["the heart is enlarged"]), model.embed_texts(["no effusion"]), 1e-4)


# --------------------------------------------------------------------------------------------------------------- labels


def test_names_stand_for_the_shipped_sentences_then_those_of_training(
    make: Make, model: api.Model, films: list[Path]
) -> None:
    other = cxrcl.load(make(prompt_sentences={**HEART, "Edema": {"pos": ["x"], "neg": ["y"]}}), device="cpu")
    every = model.zero_shot(films)
    assert near(other.zero_shot(films), every)
    for names, columns in ((["Edema", "No Finding"], [2, 0]), (["No Finding", "Edema"], [0, 2])):
        assert near(other.zero_shot(films, names), every[:, columns])
    assert near(other.zero_shot(films, ["Big heart"]), model.zero_shot(films, HEART))


def test_changed_sentences_change_the_result(model: api.Model, films: list[Path]) -> None:
    own = {"Big heart": {"pos": ["the heart is enlarged."], "neg": ["the heart is normal."]}}
    first = model.zero_shot(films, own)
    own["Big heart"]["pos"], own["Big heart"]["neg"] = own["Big heart"]["neg"], own["Big heart"]["pos"]
    assert near(model.zero_shot(films, own), 1 - first)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["Cardiomegally"], "no sentences for 'Cardiomegally' .did you mean `Cardiomegaly`"),
        (["Edema", "Edema"], "Edema is named twice"),
        ([], "expected one or more"),
        ({}, "expected one or more"),
        ("Edema", "expected a list"),
        ({"Edema": {"pos": ["edema."]}}, "'Edema' needs sentences on both sides"),
        ({"Edema": {"pos": ["edema."], "neg": "no edema."}}, "needs sentences on both sides"),
        ({"Edema": {"pos": ["edema."], "neg": [" "]}}, "needs sentences on both sides"),
        ({"Edema": ["edema.", "no edema."]}, "needs sentences on both sides"),
    ],
    ids=str,
)
def test_labels_without_sentences_are_errors(model: api.Model, films: list[Path], labels: Any, said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=f"labels: .*{said}|labels: {said}"):
        model.zero_shot(films, labels)
