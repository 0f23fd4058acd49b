"""The same work in its plain form, written from the formulas in the way published code does it.

Whole matrices, one matrix product for each direction of a loss, Python loops where published code has them. They are
the measure of speed here, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def _own(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device)


def clip(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Unit vectors [B, D] each. Two B x B matrices from two matrix products (Radford et al. 2021, figure 3)."""
    own = _own(len(a), a)
    to_b = F.cross_entropy(scale * a @ b.T, own)
    to_a = F.cross_entropy(scale * b @ a.T, own)
    return (to_b + to_a) / 2


def siglip(a: Tensor, b: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Unit vectors [B, D] each. One B x B matrix and one of signs (Zhai et al. 2023, algorithm 1)."""
    logits = scale * a @ b.T + bias
    signs = 2 * torch.eye(len(a), dtype=a.dtype, device=a.device) - 1
    return -F.logsigmoid(signs * logits).sum() / len(a)


def cxr_clip(images: Tensor, texts: Tensor, scale: Tensor, image_weight: float, text_weight: float) -> Tensor:
    """Unit vectors [B, 2, D] each. Twelve B x B matrices (You et al. 2023, equations 1 to 5)."""
    views, sentences = images.unbind(1), texts.unbind(1)
    across = torch.stack([clip(view, sentence, scale) for view in views for sentence in sentences]).mean()
    within = image_weight * clip(views[0], views[1], scale) + text_weight * clip(sentences[0], sentences[1], scale)
    return across + within


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Unit vectors [B, D] of two views. The matrix of all 2B, less its diagonal by a mask (Chen et al. 2020)."""
    views = torch.cat([a, b])
    count = len(views)
    others = ~torch.eye(count, dtype=torch.bool, device=a.device)
    logits = (views @ views.T / temperature)[others].view(count, count - 1)
    # Without the diagonal, what stood behind it has moved up by one place.
    half = _own(len(a), a)
    return F.cross_entropy(logits, torch.cat([half + len(a) - 1, half]))


def moco(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """[B, D], [B, D] and [D, K]. The queue is copied, since it is written before the backward pass (He et al. 2020)."""
    positive = torch.einsum("nc,nc->n", query, key)[:, None]
    negative = torch.einsum("nc,ck->nk", query, queue.clone().detach())
    logits = torch.cat([positive, negative], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64, device=query.device))


def pair_scores(
    features: Tensor, words: Tensor, counts: Sequence[int], attention_scale: float, word_scale: float
) -> Tensor:
    """The local similarity of every image and caption, one caption after the other, each repeated for all images and
    with all of its context vectors (Huang et al. 2021, equations 2 to 5).

    Args:
        features: [I, D, N] of images, channels first, as convolutions give them.
        words: [C, W, D].
        counts: words of each caption.

    Returns:
        [I, C]
    """
    columns = []
    for caption, count in zip(words, counts, strict=True):
        query = caption[:count].repeat(len(features), 1, 1)  # [I, w, D]
        regions = features.transpose(1, 2).contiguous()  # [I, N, D]
        by_word = torch.bmm(regions, query.transpose(1, 2)).softmax(dim=2)  # [I, N, w]
        attention = (attention_scale * by_word.transpose(1, 2).contiguous()).softmax(dim=2)  # [I, w, N]
        context = torch.bmm(features, attention.transpose(1, 2).contiguous())  # [I, D, w]
        context = context.transpose(1, 2).contiguous()
        dots = (query * context).sum(dim=2)
        cosines = dots / (query.norm(dim=2) * context.norm(dim=2)).clamp_min(1e-8)
        columns.append((word_scale * cosines).exp().sum(dim=1).log())
    return torch.stack(columns, dim=1)


def merge_words(layers: Tensor, words: Tensor) -> Tensor:
    """Sum the pieces of each word, piece by piece, for every layer of a text model, and then the layers.

    Args:
        layers: [B, K, L, D] hidden states of K layers.
        words: int64 [B, L], word that a piece belongs to; -1 for the first piece and from the closing one on.

    Returns:
        [B, L, D] the first piece, the words, and zeros.
    """
    merged = []
    for text, places in zip(layers.permute(0, 2, 1, 3), words):
        sums: list[Tensor] = []
        bank: list[Tensor] = []
        last = -1
        for piece, place in zip(text, places):
            word = int(place.item())
            if bank and word < 0:
                break
            if bank and word != last:
                sums.append(torch.stack(bank).sum(dim=0))
                bank = []
            bank.append(piece)
            last = word
        sums.append(torch.stack(bank).sum(dim=0))
        filled = torch.stack(sums)
        merged.append(torch.cat([filled, filled.new_zeros(len(text) - len(filled), *filled.shape[1:])]))
    return torch.stack(merged).sum(dim=2)
