"""Words among regions, against slow loops and published numbers."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from helpers import assert_same, golden
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cxrcl.objectives import local_similarity
from cxrcl.objectives.local_similarity import attention_maps, merge_words, pair_scores, word_counts

SCALES = {"attention_scale": 4.0, "word_scale": 5.0, "aggregation": "sum"}
COUNTS = {"ragged": [4, 1, 9, 2, 7, 4, 9, 3, 1], "one word": [1] * 9, "all full": [9] * 9}


def by_triple_loop(
    regions: Tensor,
    words: Tensor,
    counts: Tensor,
    attention_scale: float = 4.0,
    word_scale: float = 5.0,
    aggregation: str = "sum",
) -> Tensor:
    """The formula, one image, caption and word at a time, with contexts."""
    rows = []
    for image in regions:
        row = []
        for caption, count in zip(words, counts.tolist(), strict=True):
            scores = image @ caption[:count].T
            by_word = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
            terms = []
            for t in range(count):
                attention = torch.exp(attention_scale * by_word[:, t])
                context = (attention / attention.sum()) @ image
                cosine = (caption[t] @ context) / (caption[t].norm() * context.norm())
                terms.append(torch.exp(word_scale * cosine))
            row.append(torch.log(sum(terms) / (count if aggregation == "mean" else 1)))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def some(images: int = 6, places: int = 10, captions: int = 9, longest: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    make = {"generator": generator, "dtype": torch.float64}
    regions, words = torch.randn(images, places, 5, **make), torch.randn(captions, longest, 5, **make)
    return regions.requires_grad_(), words.requires_grad_()


# ------------------------------------------------------------------------------------------------ scores


@pytest.mark.parametrize("aggregation", ["sum", "mean"])
def test_golden_values_gradients_and_attention(aggregation: str) -> None:
    given, values = golden(f"gloria_local_{aggregation}")
    meta = json.loads(str(values["meta"]))
    regions = given["image_regions"].flatten(2).transpose(1, 2)
    words, counts = given["word_embeddings"].transpose(1, 2), given["word_counts"]
    scores = meta["temp3"] * pair_scores(
        regions, words, counts, attention_scale=meta["temp1"], word_scale=meta["temp2"], aggregation=meta["agg"]
    )
    own = torch.arange(len(scores))
    to_text, to_image = F.cross_entropy(scores, own), F.cross_entropy(scores.T, own)
    assert abs(to_text.item() - values["out_loss_image_to_text"]) < 1e-5
    assert abs(to_image.item() - values["out_loss_text_to_image"]) < 1e-5
    (to_text + to_image).backward()
    for name in ("image_regions", "word_embeddings"):
        assert np.abs(given[name].grad.numpy() - values[f"grad_{name}"]).max() < 1e-5
    found = attention_maps(regions, words, counts, meta["temp1"])[0, : counts[0]].detach().numpy()
    assert np.abs(found.reshape(-1, 5, 4) - values["out_attention_of_first_pair"]).max() < 1e-6


@pytest.mark.parametrize("tile", [local_similarity.TILE_CPU, (1, 1), (6, 9), (4, 2)])
@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
def test_values_and_gradients_equal_a_triple_loop(
    counts: list[int], low_memory: bool, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_similarity, "TILE_CPU", tile)
    regions, words = some()
    settings = {"attention_scale": 3.0, "word_scale": 2.5, "aggregation": "mean" if low_memory else "sum"}
    fast = pair_scores(regions, words, torch.tensor(counts), low_memory=low_memory, **settings)
    slow = by_triple_loop(regions, words, torch.tensor(counts), **settings)
    assert fast.shape == (6, 9)
    assert_same(fast.flatten(), slow.flatten(), (regions, words), within=1e-10)


def test_low_memory_changes_what_is_kept_and_nothing_else() -> None:
    regions, words = some()
    counts = torch.tensor(COUNTS["ragged"])
    kept, found = [], []
    for low_memory in (False, True):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
            found.append(pair_scores(regions, words, counts, low_memory=low_memory, **SCALES))
        kept.append(sum(sizes))
    inputs = regions.numel() + words.numel() + counts.numel()
    assert kept[1] == inputs < kept[0] / 2
    assert_same(found[0].flatten(), found[1].flatten(), (regions, words), within=1e-10)


def test_without_gradient_no_slope_is_made_and_values_are_the_same() -> None:
    regions, words = some()
    counts = torch.tensor(COUNTS["ragged"])
    with torch.no_grad(), mock.patch.object(local_similarity, "_slopes", side_effect=AssertionError):
        found = pair_scores(regions, words, counts, **SCALES)
    assert found.grad_fn is None
    assert torch.equal(found, pair_scores(regions, words, counts, **SCALES))


@pytest.mark.parametrize("fill", [1e4, -1e4, torch.nan])
@pytest.mark.parametrize("width", [9, 14])
def test_padding_has_no_influence(fill: float, width: int) -> None:
    regions, words = some()
    counts = torch.tensor(COUNTS["ragged"])
    padding = torch.arange(width) >= counts[:, None]
    padded = F.pad(words.detach(), (0, 0, 0, width - 9)).masked_fill(padding[..., None], fill).requires_grad_()
    one, other = (pair_scores(regions, part, counts, **SCALES) for part in (words, padded))
    assert torch.equal(one, other)
    weights = torch.randn(6, 9, dtype=torch.float64)
    grads = [torch.autograd.grad((x * weights).sum(), (regions, y)) for x, y in ((one, words), (other, padded))]
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.equal(grads[0][1], grads[1][1][:, :9])
    assert not grads[1][1][padding].any()


def test_order_of_images_captions_regions_and_words_does_not_matter() -> None:
    regions, words = some()
    counts = torch.tensor(COUNTS["ragged"])
    base = pair_scores(regions, words, counts, **SCALES)
    images, captions, places = (torch.randperm(n, generator=torch.Generator().manual_seed(n)) for n in (6, 9, 10))
    moved = pair_scores(regions[images][:, places], words[captions], counts[captions], **SCALES)
    assert (moved - base[images][:, captions]).abs().max() < 1e-12
    # Words among themselves, but not across a caption's end.
    turned = torch.stack([torch.cat([w[:n].flip(0), w[n:]]) for w, n in zip(words, counts.tolist(), strict=True)])
    assert (pair_scores(regions, turned, counts, **SCALES) - base).abs().max() < 1e-12
    assert (pair_scores(regions, words.flip(1), counts, **SCALES) - base).abs().max() > 1e-2


@pytest.mark.parametrize("change", [{"attention_scale": 2.0}, {"word_scale": 2.0}, {"aggregation": "mean"}])
def test_settings_change_the_scores(change: dict[str, Any]) -> None:
    regions, words = some()
    counts = torch.tensor([2, *COUNTS["ragged"][1:]])
    one, other = (pair_scores(regions, words, counts, **{**SCALES, **given}) for given in ({}, change))
    assert (one - other).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("zero", ["regions", "a word", "words", "mean of regions"])
def test_zeros_and_regions_that_cancel_have_finite_scores_and_gradients(zero: str, dtype: torch.dtype) -> None:
    regions, words = (part.detach().to(dtype) for part in some())
    counts = torch.tensor(COUNTS["all full"])
    if zero == "regions":
        regions[2] = 0
    elif zero == "mean of regions":
        counts = torch.tensor(COUNTS["one word"])  # whose attention is the same everywhere
        regions -= regions.mean(dim=1, keepdim=True)
    else:
        words[3, : 1 if zero == "a word" else 9] = 0
    regions.requires_grad_(), words.requires_grad_()
    scores = pair_scores(regions, words, counts, **SCALES)
    grads = torch.autograd.grad(scores.sum(), (regions, words))
    assert all(part.abs().max() < 1e3 for part in grads)
    none = {"regions": scores[2], "words": scores[:, 3], "mean of regions": scores}.get(zero, scores[:0])
    assert (none - counts.log()[0]).abs().sum() < 1e-5, "every cosine is 0"
    assert (scores - counts.log()[0]).abs().max() <= 5 + 1e-5, "every cosine lies within 1"


def test_inputs_need_not_be_contiguous() -> None:
    regions, words = some()
    counts = torch.tensor(COUNTS["ragged"])
    strided = [part.transpose(1, 2).contiguous().transpose(1, 2) for part in (regions, words)]
    one, other = pair_scores(regions, words, counts, **SCALES), pair_scores(*strided, counts, **SCALES)
    assert_same(one.flatten(), other.flatten(), (regions, words), within=1e-12)


# --------------------------------------------------------------------------------------------- attention


def test_attention_sums_to_one_over_regions_and_is_zero_behind_the_last_word() -> None:
    regions, words = some(images=9)
    counts = torch.tensor(COUNTS["ragged"])
    maps = attention_maps(regions, words, counts, 4.0)
    assert maps.shape == (9, 9, 10)
    real = torch.arange(9) < counts[:, None]
    assert (maps.sum(dim=2) - real.double()).abs().max() < 1e-12
    assert (maps - attention_maps(regions, words, counts, 8.0)).abs().max() > 1e-2


# ------------------------------------------------------------------------------------------------- words

WORDS = torch.tensor(
    [
        [-1, 0, 1, 1, 2, 2, 2, -1],  # full length
        [-1, 0, 0, 0, -1, -1, -1, -1],
        [-1, -1, -1, -1, -1, -1, -1, -1],  # no word at all
        [-1, 0, 1, 2, 3, 4, 5, 6],  # cut off: no closing piece
        [-1, 0, -1, 1, 2, -1, 3, -1],  # pieces between words that belong to none
    ]
)


def test_merged_words_equal_a_loop() -> None:
    pieces = torch.randn(5, 8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    expected = torch.zeros(5, 8, 3, dtype=torch.float64)
    for k in range(5):
        expected[k, 0] = pieces[k, 0]
        for place in range(1, 8):
            if WORDS[k, place] >= 0:
                expected[k, WORDS[k, place] + 1] = expected[k, WORDS[k, place] + 1] + pieces[k, place]
    merged, counts = merge_words(pieces, WORDS)
    assert counts.tolist() == [4, 2, 1, 8, 5] == word_counts(WORDS).tolist()
    assert counts.dtype == torch.int64
    weights = torch.arange(120.0, dtype=torch.float64)
    assert_same([merged.flatten() @ weights], [expected.flatten() @ weights], (pieces,), within=1e-9)
    assert (merged - expected).abs().max() < 1e-12


def test_padding_of_pieces_does_not_change_words() -> None:
    pieces = torch.randn(5, 8, 3)
    wide, longer = F.pad(pieces, (0, 0, 0, 4), value=9.0), F.pad(WORDS, (0, 4), value=-1)
    merged, _ = merge_words(wide, longer)
    assert torch.equal(merged[:, :8], merge_words(pieces, WORDS)[0])
    assert not merged[:, 8:].any()


class NoSync(TorchDispatchMode):
    """Refuses what makes a host wait for its device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "equal"), name
        indexed = name in ("index", "index_put", "index_put_") and args[1]
        assert not any(part is not None and part.dtype == torch.bool for part in indexed or ()), "index by bool"
        return func(*args, **(kwargs or {}))


def test_merging_words_never_waits_for_the_device() -> None:
    pieces = torch.randn(5, 8, 3, requires_grad=True)
    with NoSync():
        merge_words(pieces, WORDS)[0].sum().backward()
        for syncs in (lambda: pieces.sum().item(), lambda: pieces[WORDS > 0], lambda: bool(pieces.sum() > 0)):
            with pytest.raises(AssertionError):
                syncs()
