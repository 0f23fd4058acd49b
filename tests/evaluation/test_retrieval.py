"""Retrieval ranks, recall and chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import FixedData
from torch import Tensor

from cxrcl.evaluation.retrieval import Retrieval, ranks


def by_loop(queries: Tensor, gallery: Tensor, wanted: list[int], offered: list[int]) -> list[int]:
    """Rank of the best relevant item; an irrelevant one that is as similar, or not a number, comes before."""
    found = []
    for k in range(len(queries)):
        similarity = [float(queries[k] @ gallery[j]) for j in range(len(gallery))]
        relevant = [s for s, item in zip(similarity, offered, strict=True) if item == wanted[k]]
        best = float("nan") if any(s != s for s in relevant) else max(relevant)
        others = [s for s, item in zip(similarity, offered, strict=True) if item != wanted[k]]
        found.append(1 + sum(not s < best for s in others))
    return found


@pytest.mark.parametrize("chunk", [3, 1024])
@pytest.mark.parametrize("integers", [False, True])
def test_ranks_equal_a_loop_with_ties_and_several_relevant_items(chunk: int, integers: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    # Small integers multiply exactly, so ties are many and exact.
    draw = (
        (lambda n: torch.randint(-2, 3, (n, 4), generator=generator).float())
        if integers
        else (lambda n: torch.randn(n, 4, generator=generator))
    )
    queries, gallery = draw(20), draw(15)
    wanted, offered = [k % 6 for k in range(20)], [k % 6 for k in range(15)]
    found = ranks(queries, gallery, (torch.tensor(wanted), torch.tensor(offered)), chunk)
    assert found.tolist() == by_loop(queries, gallery, wanted, offered)


def test_a_collapsed_model_is_ranked_last_and_not_first() -> None:
    same = torch.ones(5, 3)
    each = torch.arange(5)
    assert ranks(same, same, (each, each)).tolist() == [5] * 5


def test_similarities_that_are_not_numbers_are_ranked_last() -> None:
    each = torch.arange(4)
    gallery = torch.eye(4)
    queries = torch.eye(4)
    queries[1] = torch.nan
    assert ranks(queries, gallery, (each, each)).tolist() == [1, 4, 1, 1]
    gallery[2] = torch.nan
    assert ranks(torch.eye(4), gallery, (each, each)).tolist() == [2, 2, 4, 2]


def test_figures_are_those_of_the_ranks_over_distinct_texts(known: Any, data: Any, alone: Any) -> None:
    evaluator = Retrieval(data, splits=("valid", "test"), at=(1, 2))
    texts = ["the heart is large", "no edema at all", "clear lungs", "edema"]
    assert evaluator.texts == texts
    films = torch.cat([data.splits["valid"][0], data.splits["test"][0]])
    rows, text_of = [0, 2, 3, 4, 5], [0, 1, 0, 2, 3]  # films 1 and 6 have no text, 0 and 3 the same one
    images = torch.stack([films[k].flatten() / films[k].norm() for k in rows])
    embedded = torch.stack([known.text(text) for text in texts])
    forth = np.array(by_loop(images, embedded, text_of, [0, 1, 2, 3]))
    back = np.array(by_loop(embedded, images, [0, 1, 2, 3], text_of))
    figures = evaluator.run(known, alone)
    for way, found in (("image_to_text", forth), ("text_to_image", back)):
        for k in (1, 2):
            assert figures[f"{way}/r{k}"] == pytest.approx((found <= k).mean())
        assert figures[f"{way}/mean_rank"] == pytest.approx(found.mean())
    assert (figures["image_to_text/gallery"], figures["text_to_image/gallery"]) == (4, 5)


def test_chance_is_the_recall_of_random_orders() -> None:
    texts = ["a"] * 4 + ["b"] * 2 + ["c"]
    data = FixedData((), {"valid": (torch.zeros(7, 3, 4, 4), torch.zeros(7, 0), texts, texts)})
    evaluator = Retrieval(data, at=(1, 3, 10))
    rng = np.random.default_rng(0)
    orders = np.argsort(rng.random((40_000, 7)), axis=1)
    owner = np.array([0, 0, 0, 0, 1, 1, 2])[orders]
    for k in (1, 3, 10):
        back = np.mean([(owner[:, :k] == text).any(axis=1).mean() for text in range(3)])
        assert evaluator._chance("text_to_image", k) == pytest.approx(back, abs=0.006)
        assert evaluator._chance("image_to_text", k) == pytest.approx(min(1, k / 3))


def test_data_without_two_texts_are_refused(data: Any) -> None:
    data.splits["valid"] = (*data.splits["valid"][:2], ["same", "same", "", ""], ["p"] * 4)
    with pytest.raises(ValueError, match="retrieval needs texts: the splits valid have 1"):
        Retrieval(data)
