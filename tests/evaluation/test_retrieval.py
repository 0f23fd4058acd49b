"""Retrieval ranks, recall and chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import FixedData, metrics_of
from known_model import Known
from torch import Tensor

from cxrcl.evaluation.retrieval import Retrieval, precision_at, ranks


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


@pytest.mark.parametrize("elements", [1, 40, 1024])
@pytest.mark.parametrize("integers", [False, True])
def test_ranks_equal_a_loop_with_ties_and_several_relevant_items(elements: int, integers: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    # Small integers multiply exactly, so ties are many and exact.
    draw = (
        (lambda n: torch.randint(-2, 3, (n, 4), generator=generator).float())
        if integers
        else (lambda n: torch.randn(n, 4, generator=generator))
    )
    queries, gallery = draw(20), draw(15)
    wanted, offered = [k % 6 for k in range(20)], [k % 6 for k in range(15)]
    found = ranks(queries, gallery, (torch.tensor(wanted), torch.tensor(offered)), elements)
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


def precision_by_loop(queries: Tensor, gallery: Tensor, match: Tensor, k: int) -> list[float]:
    """The first k in falling similarity, irrelevant items first among equals."""
    found = []
    for row, relevant in zip((queries @ gallery.T).tolist(), match.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda j: (-row[j], relevant[j]))
        found.append(sum(relevant[j] for j in order[:k]) / k)
    return found


@pytest.mark.parametrize("elements", [1, 1024])
@pytest.mark.parametrize("k", [1, 4, 15])
def test_precision_equals_a_loop_with_ties(elements: int, k: int) -> None:
    generator = torch.Generator().manual_seed(3)
    queries, gallery = (torch.randint(-2, 3, (n, 4), generator=generator).float() for n in (20, 15))
    match = torch.rand(20, 15, generator=generator) < 0.4
    found = precision_at(queries, gallery, lambda rows: match[rows], k, elements)
    assert found.tolist() == pytest.approx(precision_by_loop(queries, gallery, match, k))


def test_items_that_are_not_numbers_have_no_precision() -> None:
    gallery = torch.eye(4)
    gallery[0] = torch.nan
    found = precision_at(torch.eye(4), gallery, lambda rows: torch.eye(4, dtype=torch.bool)[rows], 2)
    assert found.tolist() == [0, 0.5, 0.5, 0.5]


def test_precision_by_class_over_images_of_one_class(known: Any, data: Any, alone: Any) -> None:
    both = ("valid", "test")
    figures = metrics_of(Retrieval(data, both, classes=["Cardiomegaly", "Edema"], precision_at=(1, 2, 9)), known, alone)
    # Of the images with a text 0 has Cardiomegaly, and 4 Edema; 2 has both, 3 and 5: see the labels.
    films = torch.cat([data.splits[split][0] for split in both]).flatten(1)
    labels = torch.cat([data.splits[split][1] for split in both])[:, 1:] == 1
    texts = [text for split in both for text in data.splits[split][2]]
    rows = [k for k in range(7) if texts[k] and labels[k].sum() == 1]
    gallery = list(dict.fromkeys(texts[k] for k in rows))
    of_text = torch.stack([torch.stack([labels[k] for k in rows if texts[k] == t]).any(dim=0) for t in gallery])
    images = torch.nn.functional.normalize(films[rows], dim=1)
    embedded = torch.stack([known.text(text) for text in gallery])
    match = (labels[rows][:, None] & of_text[None]).any(dim=2)
    assert figures["image_to_text/class_queries"] == len(rows) >= 3
    forth, back = (precision_by_loop(*given, 2) for given in ((images, embedded, match), (embedded, images, match.T)))
    assert figures["image_to_text/p2"] == pytest.approx(sum(forth) / len(forth))
    assert figures["text_to_image/p2"] == pytest.approx(sum(back) / len(back))
    assert figures["image_to_text/chance_p"] == pytest.approx(match.float().mean())
    assert "image_to_text/p9" not in figures
    assert "image_to_text/p2" not in metrics_of(Retrieval(data, both), known, alone)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ["Edema", "Mass"]}, "classes: no label Mass"),
        ({"classes": ["Edema"]}, "expected 2 classes or more"),
        ({"at": [0]}, "each k above 0"),
    ],
)
def test_wrong_settings_are_refused(data: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Retrieval(data, **settings)


def test_metrics_are_those_of_the_ranks_over_distinct_texts(known: Any, data: Any, alone: Any) -> None:
    evaluator = Retrieval(data, splits=("valid", "test"), at=(1, 2))
    texts = ["the heart is large", "no edema at all", "clear lungs", "edema"]
    assert evaluator.texts == texts
    films = torch.cat([data.splits["valid"][0], data.splits["test"][0]])
    rows, text_of = [0, 2, 3, 4, 5], [0, 1, 0, 2, 3]  # films 1 and 6 have no text, 0 and 3 the same one
    images = torch.stack([films[k].flatten() / films[k].norm() for k in rows])
    embedded = torch.stack([known.text(text) for text in texts])
    forth = np.array(by_loop(images, embedded, text_of, [0, 1, 2, 3]))
    back = np.array(by_loop(embedded, images, [0, 1, 2, 3], text_of))
    figures = metrics_of(evaluator, known, alone)
    for way, found in (("image_to_text", forth), ("text_to_image", back)):
        for k in (1, 2):
            assert figures[f"{way}/r{k}"] == pytest.approx((found <= k).mean())
        assert figures[f"{way}/mean_rank"] == pytest.approx(found.mean())
        assert figures[f"{way}/median_rank"] == np.median(found)
    assert len(back) % 2 == 0 and len(set(sorted(back)[1:3])) == 2  # a median between two ranks
    assert (figures["image_to_text/gallery"], figures["text_to_image/gallery"]) == (4, 5)


def test_intervals_draw_patients_and_know_how_many_queries_there_are(alone: Any) -> None:
    generator = torch.Generator().manual_seed(4)
    known, count = Known(), 40
    texts = [f"text {k // 2}" for k in range(count)]  # two images each, of two patients
    labels = torch.eye(2)[torch.arange(count) % 2]
    images = torch.stack([known.text(text) for text in texts]) + 0.2 * torch.randn(count, 48, generator=generator)
    ids = [f"p{k // 4}" for k in range(count)]

    def metrics(patients: list[str], **settings: Any) -> dict[str, float]:
        data = FixedData(("A", "B"), {"valid": (images.view(count, 3, 4, 4), labels, texts, patients)})
        return metrics_of(Retrieval(data, classes=("A", "B"), precision_at=(5,), **settings), known, alone)

    plain, found = metrics(ids), metrics(ids, resamples=200)
    assert (plain["image_to_text/queries"], plain["text_to_image/queries"]) == (count, count / 2)
    for way in ("image_to_text", "text_to_image"):
        for name in ("r1", "r5", "r10", "median_rank", "mean_rank", "p5"):
            assert found[f"{way}/{name}_low"] <= plain[f"{way}/{name}"] <= found[f"{way}/{name}_high"]
            assert f"{way}/{name}_low" not in plain
    assert {key: value for key, value in found.items() if not key.endswith(("_low", "_high"))} == plain
    # Four images of a patient tell less than images of as many patients.
    each = metrics([f"p{k}" for k in range(count)], resamples=200)
    wide, narrow = (m["image_to_text/r1_high"] - m["image_to_text/r1_low"] for m in (found, each))
    assert wide > narrow > 0


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
