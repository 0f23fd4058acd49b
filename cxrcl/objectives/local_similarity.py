"""How well the words of a caption match the regions of an image (GLoRIA, Huang et al. 2021, equations 2 to 5).

Every image of a batch meets every caption, and the plain form makes a context vector for each image and word. Here it
is never made: with the Gram matrix G = C Cᵀ of an image's regions C and the attention a of a word w,

    cos(w, Cᵀ a) = a . (C w) / (|w| sqrt(aᵀ G a)).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Aggregation = Literal["sum", "mean"]

# Images and captions that meet at a time: a CPU wants them in its cache, an accelerator few launches.
TILE_CPU, TILE_ACCELERATOR = (4, 4), (16, 16)


def word_counts(words: Tensor) -> Tensor:
    """Number of words of each text, and one more for its first token.

    Args:
        words: int64 [B, L], the word that a token is part of, counted from 0; -1: none.

    Returns:
        int64 [B].
    """
    return words.amax(dim=1) + 2


def merge_words(tokens: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the token features of each word.

    Args:
        tokens: float [B, L, D]; the first is that of the special token that opens a text ([CLS]).
        words: int64 [B, L], the word that a token is part of, counted from 0; -1 on special tokens and padding.

    Returns:
        float [B, L, D] with the first token in slot 0 and word w in slot w + 1, zero behind the last word: what closes
        a text ([SEP]) and padding are left out. And `word_counts` int64 [B], the number of slots that are filled.
    """
    size, length, _ = tokens.shape
    first = torch.arange(0, size * length, length, device=words.device)
    # One row more than there are slots takes what is left out, so that no shape depends on the data.
    slots = (first[:, None] + words + 1).masked_fill(words < 0, size * length)
    slots[:, 0] = first
    merged = tokens.new_zeros(size * length + 1, tokens.shape[2])
    merged = merged.index_add(0, slots.flatten(), tokens.flatten(0, 1))
    return merged[:-1].view_as(tokens), word_counts(words)


def attention_maps(regions: Tensor, words: Tensor, counts: Tensor, attention_scale: float) -> Tensor:
    """Where in its own image each word of a caption lies: the attention of `pair_scores`.

    Args:
        regions, words, counts, attention_scale: float [B, N, D], float [B, W, D], int64 [B] and a number, as in
            `pair_scores`, with as many captions as images.

    Returns:
        float [B, W, N]: each of a caption's words has a sum of one over regions; zero behind the last word.
    """
    padding = torch.arange(words.shape[1], device=words.device) >= counts.to(words.device)[:, None]
    scores = regions @ words.transpose(1, 2)
    _, attention = _attend(scores[:, :, None], padding[:, None, None], attention_scale)
    return attention[:, :, 0].transpose(1, 2).masked_fill(padding[:, :, None], 0)


def pair_scores(
    regions: Tensor,
    words: Tensor,
    counts: Tensor,
    *,
    attention_scale: float,
    word_scale: float,
    aggregation: Aggregation,
    low_memory: bool = False,
) -> Tensor:
    """The local similarity of every image and every caption, as the paper's published code trains it.

    For regions c_r and words w_t of a caption,

        p_rt = softmax over t of c_r . w_t,    a_rt = softmax over r of attention_scale p_rt,
        score = log sum over t of exp(word_scale cos(w_t, sum over r of a_rt c_r)).

    The cosine of a vector of zeros is 0, and gives no gradient.

    Args:
        regions: float [I, N, D], fp32 or float64.
        words: float [C, W, D]; what lies behind a caption's count has no influence.
        counts: int64 [C] on the CPU, each from 1 to W: the first `counts[k]` words of caption k are compared.
        attention_scale: temperature that multiplies before the softmax over regions (4 in the paper).
        word_scale: temperature that multiplies the cosines of words (5 in the paper).
        aggregation: `sum` over words, or `mean` over a caption's words.
        low_memory: make the attention again in the backward pass instead of keeping it. What is kept otherwise are
            two numbers for each region of each image and each word of each caption.

    Returns:
        float [I, C].
    """
    keeps = torch.is_grad_enabled() and not low_memory
    scores = _PairScores.apply(regions, words, counts, attention_scale, word_scale, keeps)
    if aggregation == "mean":
        scores = scores - counts.to(scores, non_blocking=True).log()
    return scores


@torch.no_grad()
def best_word_cosines(regions: Tensor, words: Tensor, counts: Tensor, attention_scale: float) -> Tensor:
    """The cosine of each caption's best matched word and its context, which the published code infers with.

    Args:
        regions, words, counts, attention_scale: float [I, N, D], float [C, W, D], int64 [C] and a number, as in
            `pair_scores`.

    Returns:
        float [I, C].
    """
    images_at_a_time, captions_at_a_time = _tile(regions)
    best = regions.new_empty(len(regions), len(words))
    groups = _captions(words, counts, captions_at_a_time)
    for part, rows in zip(regions.split(images_at_a_time), best.split(images_at_a_time)):
        gram = part @ part.transpose(1, 2)
        for captions in groups:
            cosines = _compare(part, gram, captions, attention_scale, word_scale=1.0).cosines
            rows[:, captions.places] = cosines.masked_fill(captions.padding, -torch.inf).amax(dim=2)
    return best


def _tile(regions: Tensor) -> tuple[int, int]:
    """How many images and captions meet at a time."""
    return TILE_CPU if regions.device.type == "cpu" else TILE_ACCELERATOR


def _attend(scores: Tensor, padding: Tensor, attention_scale: float) -> tuple[Tensor, Tensor]:
    """Region-word products [I, N, C, W] -> softmax over the words of each caption, and from it that over regions."""
    by_word = scores.masked_fill(padding, -torch.inf).softmax(dim=3)
    return by_word, (by_word * attention_scale).softmax(dim=1)


class _Captions(NamedTuple):
    """A few captions of similar length, cut to the longest."""

    places: Tensor  # int64 [c] among all captions
    words: Tensor  # [c, w, D], zero behind a caption's count
    padding: Tensor  # bool [c, w]
    inverse_norms: Tensor  # [c, w], 0 for a word of zeros


def _captions(words: Tensor, counts: Tensor, size: int) -> list[_Captions]:
    """Words float [C, W, D] and counts int64 [C] in groups of `size`, by length: little of a group is padding."""
    lengths, order = counts.sort()
    groups = []
    for start in range(0, len(counts), size):
        part = lengths[start : start + size]
        longest = int(part[-1])  # on the host already
        places = order[start : start + size].to(words.device, non_blocking=True)
        padding = torch.arange(longest) >= part[:, None]
        padding = padding.to(words.device, non_blocking=True)
        cut = words[places, :longest].masked_fill_(padding[:, :, None], 0)
        norms = torch.linalg.vector_norm(cut, dim=2)
        inverse_norms = norms.reciprocal().masked_fill_(norms < torch.finfo(norms.dtype).tiny ** 0.5, 0)
        groups.append(_Captions(places, cut, padding, inverse_norms))
    return groups


class _Compared(NamedTuple):
    """A few images and a few captions; columns are the captions' words, one caption after the other."""

    scores: Tensor  # [i, c]
    products: Tensor  # [i, N, cw] of regions and words
    by_word: Tensor  # [i, N, cw] softmax over words
    attention: Tensor  # [i, N, cw] softmax over regions
    spread: Tensor  # [i, N, cw] Gram matrix times attention
    cosines: Tensor  # [i, c, w] of words and their contexts, 0 for padding
    weights: Tensor  # [i, c, w] of words in their caption's score, 0 for padding
    inverse_lengths: Tensor  # [i, cw] of the contexts, 0 for one of zeros


def _compare(
    regions: Tensor, gram: Tensor, captions: _Captions, attention_scale: float, word_scale: float
) -> _Compared:
    """Regions float [i, N, D], their Gram matrices [i, N, N], and a group of captions -> scores and what made them."""
    images, places, _ = regions.shape
    shape = (images, places, *captions.padding.shape)
    products = (regions.flatten(0, 1) @ captions.words.flatten(0, 1).T).view(images, places, -1)
    by_word, attention = (part.flatten(2) for part in _attend(products.view(shape), captions.padding, attention_scale))
    spread = torch.bmm(gram, attention)
    squares = (attention * spread).sum(dim=1)
    # Regions that cancel leave a context that is nothing but rounding: like one of zeros, it has no direction.
    rounding = gram.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True) * torch.finfo(gram.dtype).eps
    inverse_lengths = squares.rsqrt().masked_fill_(squares <= rounding, 0)
    cosines = ((attention * products).sum(dim=1) * inverse_lengths).view(images, *captions.padding.shape)
    cosines = (cosines * captions.inverse_norms).masked_fill_(captions.padding, 0)
    logits = (word_scale * cosines).masked_fill_(captions.padding, -torch.inf)
    scores = logits.logsumexp(dim=2)
    weights = (logits - scores[:, :, None]).exp_()
    return _Compared(scores, products, by_word, attention, spread, cosines, weights, inverse_lengths)


class _Slopes(NamedTuple):
    """Gradients of the scores of a comparison."""

    products: Tensor  # [i, N, cw]
    attention: Tensor  # [i, N, cw]: the attention itself; the gradient of G is attention diag(squares) attentionᵀ
    squares: Tensor  # [i, cw] with respect to aᵀ G a
    norms: Tensor  # [i, c, w] with respect to log |w|


def _slopes(compared: _Compared, captions: _Captions, attention_scale: float, word_scale: float) -> _Slopes:
    """Backward through `_compare`, whose tensors are used up."""
    by_cosine = word_scale * compared.weights
    by_match = by_cosine * captions.inverse_norms  # with respect to a . (C w) / |Cᵀ a|
    by_dot = by_match.flatten(1) * compared.inverse_lengths
    norms = -by_cosine * compared.cosines
    squares = norms.flatten(1) * compared.inverse_lengths**2 / 2
    # Through both softmaxes. The one over regions needs no mean taken off: a cosine does not depend on the length of
    # a, so that the gradient with respect to a is at right angles to a.
    slope = compared.products.mul_((attention_scale * by_dot)[:, None])
    slope.addcmul_(compared.spread, (2 * attention_scale * squares)[:, None])
    slope.mul_(compared.attention).mul_(compared.by_word)
    per_caption = (*slope.shape[:2], *captions.padding.shape)
    means = slope.view(per_caption).sum(dim=3, keepdim=True)
    slope.view(per_caption).addcmul_(compared.by_word.view(per_caption), means, value=-1)
    slope.addcmul_(compared.attention, by_dot[:, None])
    return _Slopes(slope, compared.attention, squares, norms)


class _PairScores(torch.autograd.Function):
    """A tile of images and captions at a time, there and back."""

    @staticmethod
    def forward(
        ctx: Any,
        regions: Tensor,
        words: Tensor,
        counts: Tensor,
        attention_scale: float,
        word_scale: float,
        keeps: bool,
    ) -> Tensor:
        tile = _tile(regions)
        kept: list[Tensor] = []
        scores = regions.new_empty(len(regions), len(words))
        groups = _captions(words, counts, tile[1])
        for part, rows in zip(regions.split(tile[0]), scores.split(tile[0])):
            gram = part @ part.transpose(1, 2)
            for captions in groups:
                compared = _compare(part, gram, captions, attention_scale, word_scale)
                rows[:, captions.places] = compared.scores
                if keeps:
                    kept += _slopes(compared, captions, attention_scale, word_scale)
        ctx.save_for_backward(regions, words, counts, *kept)
        ctx.attention_scale, ctx.word_scale, ctx.tile = attention_scale, word_scale, tile
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_scores: Tensor) -> tuple[Tensor | None, ...]:
        regions, words, counts, *kept = ctx.saved_tensors
        grad_regions, grad_words = (rows.new_zeros(rows.shape) for rows in (regions, words))
        groups = _captions(words, counts, ctx.tile[1])
        by_group = [words.new_zeros(captions.words.shape) for captions in groups]
        following = iter(kept)
        blocks = (tensor.split(ctx.tile[0]) for tensor in (regions, grad_regions, grad_scores))
        for part, grad_part, rows in zip(*blocks):
            flat, grad_flat = part.flatten(0, 1), grad_part.view(-1, part.shape[2])
            gram = None if kept else part @ part.transpose(1, 2)
            grad_gram = part.new_zeros(len(part), part.shape[1], part.shape[1])
            for captions, grad_captions in zip(groups, by_group):
                if gram is None:
                    slopes = _Slopes(*(next(following) for _ in _Slopes._fields))
                else:
                    compared = _compare(part, gram, captions, ctx.attention_scale, ctx.word_scale)
                    slopes = _slopes(compared, captions, ctx.attention_scale, ctx.word_scale)
                pull = rows[:, captions.places, None].expand(-1, -1, captions.padding.shape[1])
                columns = pull.flatten(1)
                by_product = (slopes.products * columns[:, None]).flatten(0, 1)
                grad_flat.addmm_(by_product, captions.words.flatten(0, 1))
                grad_captions.view(-1, words.shape[2]).addmm_(by_product.T, flat)
                by_norm = (slopes.norms * pull).sum(dim=0) * captions.inverse_norms**2
                grad_captions.addcmul_(captions.words, by_norm[:, :, None])
                weighted = slopes.attention * (slopes.squares * columns)[:, None]
                grad_gram.baddbmm_(weighted, slopes.attention.transpose(1, 2))
            # G = C Cᵀ, and its gradient is symmetric.
            grad_part.baddbmm_(grad_gram, part, alpha=2)
        for captions, grad_captions in zip(groups, by_group):
            grad_words[captions.places, : captions.padding.shape[1]] = grad_captions
        return grad_regions, grad_words, None, None, None, None
