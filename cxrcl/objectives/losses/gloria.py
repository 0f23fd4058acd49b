"""GLoRIA's loss: contrast of images and texts, and of image regions and words."""

from __future__ import annotations

import torch
from torch import Tensor

from cxrcl.distributed import gather, offset, rows_of_all
from cxrcl.objectives.local_similarity import Aggregation, pair_scores
from cxrcl.objectives.losses.contrast import Side, add_logs, as_scalar, cross_entropy, gather_sides, info_nce
from cxrcl.objectives.same_text import excluded


def gloria_loss(
    image: Tensor,
    text: Tensor,
    regions: Tensor,
    words: Tensor,
    counts: Tensor,
    text_identities: Tensor | None = None,
    *,
    attention_scale: float = 4.0,
    word_scale: float = 5.0,
    scale: float = 10.0,
    aggregation: Aggregation = "sum",
    local_weight: float = 1.0,
    global_weight: float = 1.0,
    low_memory: bool = False,
    logs: dict[str, Tensor] | None = None,
) -> Tensor:
    """GLoRIA's loss of global and local similarities (Huang et al. 2021, section 3; local ones: equations 2 to 5).

    `global_weight` [CE(s G) + CE(s Gᵀ)] + `local_weight` [CE(s Z) + CE(s Zᵀ)], where G are the cosines of images and
    texts, and Z their local similarities (`cxrcl.objectives.local_similarity.pair_scores`).

    Args:
        image, text: float [b, D] each, unit vectors of this process; row k of one belongs to row k of the other.
        regions: float [b, N, d], projected regions of the images.
        words: float [b, W, d], projected words of the texts; W may differ between processes.
        counts: int64 [b] on the CPU: the first `counts[k]` words of text k count, from 1 to W.
        text_identities: int64 [b], see `clip_loss`. None, as in the paper: every other text is a negative.
        attention_scale: the paper's first temperature, multiplies before the softmax over regions.
        word_scale: its second, multiplies the cosines of words and their contexts.
        scale: its third, s. The paper divides by these letters, its code multiplies.
        aggregation: `sum` over the words of a text, or `mean`.
        local_weight, global_weight: of the two parts.
        low_memory: make regional attention again in the backward pass instead of keeping it.
        logs: filled with `image_to_text`, `text_to_image`, `regions_to_words`, `words_to_regions`, `loss` and, with
            text identities, `equal_texts`.

    Returns:
        float scalar, the mean over the local rows.

    Raises:
        ValueError: shapes that differ, or a single sample over all processes.

    Example:
        >>> import torch
        >>> from torch.nn.functional import normalize
        >>> image, text = (normalize(torch.randn(3, 8), dim=-1) for _ in range(2))
        >>> regions, words = torch.randn(3, 49, 6), torch.randn(3, 5, 6)
        >>> gloria_loss(image, text, regions, words, counts=torch.tensor([5, 2, 4])).shape
        torch.Size([])
    """
    image_side, text_side = gather_sides([image, text], [text_identities, text_identities])
    to_text, to_image = info_nce(image_side, text_side, as_scalar(scale, image))
    loss = global_weight * (to_text + to_image)
    add_logs(logs, image_to_text=to_text, text_to_image=to_image, texts=text_side)
    if local_weight:
        _check_shapes(len(image), regions, words, counts)
        # Regions are many (425 MB at 8 x 48 images) and stay where they are: words travel, then a row of scores for
        # each image.
        by_image = scale * pair_scores(
            regions,
            gather(words),
            rows_of_all(counts),
            attention_scale=attention_scale,
            word_scale=word_scale,
            aggregation=aggregation,
            low_memory=low_memory,
        )
        to_words, to_regions = _both_directions(by_image, text_side)
        loss = loss + local_weight * (to_words + to_regions)
        add_logs(logs, regions_to_words=to_words, words_to_regions=to_regions)
    else:
        # Where processes average gradients, every parameter must have one: of zero, here.
        loss = loss + 0 * (regions.sum() + words.sum())
    add_logs(logs, loss=loss)
    return loss


def _check_shapes(count: int, regions: Tensor, words: Tensor, counts: Tensor) -> None:
    if regions.ndim != 3 or words.ndim != 3 or not len(regions) == len(words) == len(counts) == count:
        raise ValueError(
            f"regions {list(regions.shape)}, words {list(words.shape)}, counts {list(counts.shape)}: "
            f"expected [B, N, d], [B, W, d] and [B] with B = {count}"
        )


def _both_directions(by_image: Tensor, text: Side) -> tuple[Tensor, Tensor]:
    """Cross-entropies of this process's images over all texts, and of its texts over all images.

    Args:
        by_image: float [b, B], scores of this process's images and all texts.
        text: the texts.
    """
    size, first = len(by_image), offset(len(by_image))
    by_text = gather(by_image)[:, first : first + size].T
    if text.texts is not None and text.gathered_texts is not None:
        # An image stands for its study's text: the same pairs are left out in both directions.
        shared = excluded(text.texts, text.gathered_texts, first)
        by_image, by_text = (part.masked_fill(shared, -torch.inf) for part in (by_image, by_text))
    return cross_entropy(by_image, first), cross_entropy(by_text, first)
