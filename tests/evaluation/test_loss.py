"""The loss on held-out data."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from helpers import FixedData, TinyImages, TinyTexts

from cxrcl.evaluation.loss import Loss
from cxrcl.models.heads import Linear
from cxrcl.objectives.classify import Classify
from cxrcl.objectives.clip import Clip


@pytest.fixture
def films() -> FixedData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(11, 3, 16, 16, generator=generator)
    texts = ["" if k in (2, 5) else f"text {'abcdefghijk'[k]}" for k in range(11)]
    labels = torch.tensor([[float(k % 2)] for k in range(11)])
    part = (images, labels, texts, texts)
    return FixedData(("a",), {"valid": part, "test": tuple(value[:4] for value in part)})


def clip() -> Clip:
    torch.manual_seed(0)
    head = partial(Linear, out_dim=6)
    return Clip(TinyImages(), TinyTexts(width=12), head, head).eval()


def loss_of(model: Any, films: FixedData, split: str, positions: list[int]) -> float:
    (batch,) = films.batches(split, positions, len(positions), texts=model.num_texts > 0)
    return model(batch).loss.item()


def test_it_is_the_mean_over_whole_batches_of_images_that_have_a_text(films: FixedData, alone: Any) -> None:
    model = clip()
    # 0 1 3 4 | 6 7 8 9 | 10 is left over
    expected = [loss_of(model, films, "valid", rows) for rows in ([0, 1, 3, 4], [6, 7, 8, 9])]
    assert Loss(films, 4).run(model, alone)["total"] == pytest.approx(sum(expected) / 2, abs=1e-6)


def test_a_split_smaller_than_a_batch_is_one_batch(films: FixedData, alone: Any) -> None:
    model = clip()
    assert Loss(films, 64).run(model, alone)["total"] == pytest.approx(
        loss_of(model, films, "valid", [0, 1, 3, 4, 6, 7, 8, 9, 10]), abs=1e-6
    )


def test_splits_are_cut_into_batches_of_their_own(films: FixedData, alone: Any) -> None:
    model = clip()
    parts = [("valid", [0, 1, 3, 4, 6]), ("test", [0, 1, 3])]
    expected = [loss_of(model, films, split, rows) for split, rows in parts]
    found = Loss(films, 5, splits=("valid", "test")).run(model, alone)["total"]
    assert found == pytest.approx(sum(expected) / 2, abs=1e-6)


def test_objectives_that_read_no_text_see_all_images(films: FixedData, alone: Any) -> None:
    torch.manual_seed(0)
    model = Classify(TinyImages(), ("a",)).eval()
    found = Loss(films, 11).run(model, alone)["total"]
    assert found == pytest.approx(loss_of(model, films, "valid", list(range(11))), abs=1e-6)


def test_splits_without_images_are_refused_and_without_texts_give_nan(films: FixedData, alone: Any) -> None:
    films.splits["valid"] = (*films.splits["valid"][:2], [""] * 11, [""] * 11)
    assert math.isnan(Loss(films, 4).run(clip(), alone)["total"])
    films.splits["test"] = tuple(value[:0] for value in films.splits["test"])
    with pytest.raises(ValueError, match="the splits test have no image"):
        Loss(films, 4, splits=("test",))
