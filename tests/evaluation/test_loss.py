"""The loss on held-out data."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import FixedData, TinyImages, metrics_of, two_towers

from cxrcl.evaluation.loss import Loss
from cxrcl.objectives.classify import Classify
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.cxr_clip import CxrClip
from cxrcl.objectives.simclr import SimClr


@pytest.fixture
def films() -> FixedData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(11, 3, 16, 16, generator=generator)
    texts = ["" if k in (2, 5) else f"text {'abcdefghijk'[k]}" for k in range(11)]
    labels = torch.tensor([[float(k % 2)] for k in range(11)])
    part = (images, labels, texts, texts)
    return FixedData(("a",), {"valid": part, "test": tuple(value[:4] for value in part)})


def clip() -> Clip:
    return two_towers(Clip).eval()


def loss_of(model: Any, films: FixedData, split: str, positions: list[int]) -> float:
    (batch,) = films.batches(split, positions, len(positions), model.num_texts, model.num_views)
    return model(batch).loss.item()


def test_it_is_the_mean_over_whole_batches_of_images_that_have_a_text(films: FixedData, alone: Any) -> None:
    model = clip()
    # 0 1 3 4 | 6 7 8 9 | 10 is left over
    expected = [loss_of(model, films, "valid", rows) for rows in ([0, 1, 3, 4], [6, 7, 8, 9])]
    assert metrics_of(Loss(films, 4), model, alone)["total"] == pytest.approx(sum(expected) / 2, abs=1e-6)


def test_a_split_smaller_than_a_batch_is_one_batch(films: FixedData, alone: Any) -> None:
    model = clip()
    assert metrics_of(Loss(films, 64), model, alone)["total"] == pytest.approx(
        loss_of(model, films, "valid", [0, 1, 3, 4, 6, 7, 8, 9, 10]), abs=1e-6
    )


def test_splits_are_cut_into_batches_of_their_own(films: FixedData, alone: Any) -> None:
    model = clip()
    parts = [("valid", [0, 1, 3, 4, 6]), ("test", [0, 1, 3])]
    expected = [loss_of(model, films, split, rows) for split, rows in parts]
    found = metrics_of(Loss(films, 5, splits=("valid", "test")), model, alone)["total"]
    assert found == pytest.approx(sum(expected) / 2, abs=1e-6)


def test_objectives_that_read_no_text_see_all_images(films: FixedData, alone: Any) -> None:
    torch.manual_seed(0)
    model = Classify(TinyImages(), ("a",)).eval()
    found = metrics_of(Loss(films, 11), model, alone)["total"]
    assert found == pytest.approx(loss_of(model, films, "valid", list(range(11))), abs=1e-6)


def test_splits_without_images_are_refused_and_without_texts_give_nan(films: FixedData, alone: Any) -> None:
    films.splits["valid"] = (*films.splits["valid"][:2], [""] * 11, [""] * 11)
    assert math.isnan(metrics_of(Loss(films, 4), clip(), alone)["total"])
    films.splits["test"] = tuple(value[:0] for value in films.splits["test"])
    with pytest.raises(ValueError, match="the splits test have no image"):
        Loss(films, 4, splits=("test",))


@pytest.mark.parametrize("objective", [SimClr, CxrClip])
def test_objectives_over_two_views_see_two(
    films: FixedData, alone: Any, objective: type[SimClr] | type[CxrClip]
) -> None:
    model = two_towers(objective).eval()
    positions = [k for k in range(11) if model.num_texts == 0 or k not in (2, 5)][:8]
    found = [metrics_of(Loss(films, 8), model, alone)["total"] for _ in range(2)]
    assert found[0] == found[1] == pytest.approx(loss_of(model, films, "valid", positions), abs=1e-6)


@pytest.mark.parametrize("objective", [Clip, SimClr])
def test_a_split_of_one_sample_has_nothing_to_contrast(films: FixedData, alone: Any, objective: type[Clip]) -> None:
    films.splits["test"] = tuple(value[:1] for value in films.splits["test"])  # type: ignore[assignment]
    model = two_towers(objective).eval()
    assert math.isnan(metrics_of(Loss(films, 4, splits=("test",)), model, alone)["total"])
    # It has no part in the mean over splits either.
    found = metrics_of(Loss(films, 4, splits=("test", "valid")), model, alone)["total"]
    assert found == metrics_of(Loss(films, 4), model, alone)["total"]


def test_one_sample_is_enough_for_a_loss_of_samples(films: FixedData, alone: Any) -> None:
    films.splits["test"] = tuple(value[:1] for value in films.splits["test"])  # type: ignore[assignment]
    model = Classify(TinyImages(), ("a",)).eval()
    assert metrics_of(Loss(films, 4, splits=("test",)), model, alone)["total"] == pytest.approx(
        loss_of(model, films, "test", [0]), abs=1e-6
    )
