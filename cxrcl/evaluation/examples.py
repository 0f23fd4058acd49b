"""Some films of a retrieval evaluation with the texts that a model finds for them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cxrcl.evaluation.look import Look

SIDE = 256  # px, the longest of an example's picture
SHOWN = 3  # texts


@dataclass(frozen=True)
class Example:
    """Attributes:
    image: the film's name.
    png: the film as the model sees it, grey, at most 256 px.
    text, similarity, rank: the film's own text, its cosine and its rank among the distinct texts.
    found: the three most similar texts and their cosines.
    """

    image: str
    png: bytes
    text: str
    similarity: float
    rank: int
    found: list[tuple[str, float]]


def choose(ranks: np.ndarray, count: int, seed: int = 0) -> list[int]:
    """Films to show: half of them found at rank 1 and half not, as far as there are any; in random order within these.

    Args:
        ranks: int [N].
    """
    order = np.random.default_rng(seed).permutation(len(ranks))
    right, wrong = order[ranks[order] == 1], order[ranks[order] != 1]
    of_right = min(len(right), max(count - count // 2, count - len(wrong)))
    return [*right[:of_right].tolist(), *wrong[: count - of_right].tolist()]


def retrieved(
    look: Look,
    splits: Sequence[str],
    films: Sequence[int],
    texts: Sequence[str],
    text_of: Tensor,
    ranks: Tensor,
    count: int,
) -> list[Example]:
    """Examples of image -> text.

    Args:
        films: positions in the pooled splits of the films that have a text.
        texts: the distinct texts.
        text_of, ranks: int64 [films], the text of each film and its rank.
        count: how many.
    """
    chosen = choose(ranks.numpy(), count)
    embedded = look.rows("embedding", splits)[[films[k] for k in chosen]].double()
    similarity = embedded @ look.texts(texts).double().T
    best = similarity.topk(min(SHOWN, len(texts)), dim=1)
    names = [name for split in splits for name in look.data.column(split, "image")]
    return [
        Example(
            image=names[films[k]],
            png=film_png(_pixels(look, splits, films[k])),
            text=texts[int(text_of[k])],
            similarity=float(similarity[row, text_of[k]]),
            rank=int(ranks[k]),
            found=[
                (texts[place], value) for value, place in zip(best.values[row].tolist(), best.indices[row].tolist())
            ],
        )
        for row, k in enumerate(chosen)
    ]


def _pixels(look: Look, splits: Sequence[str], position: int) -> Tensor:
    """float32 [S, S] of the film at this position of the pooled splits."""
    for split in splits:
        if position < look.data.size(split):
            images = next(iter(look.data.batches(split, [position], 1))).images
            assert images is not None
            return images[0, 0, 0].float().cpu()
        position -= look.data.size(split)
    raise IndexError(f"the splits {', '.join(splits)} have {position} films too few")


def film_png(pixels: Tensor) -> bytes:
    """A film [H, W] of any range as a grey PNG, black at its smallest value and white at its largest."""
    low, high = pixels.min(), pixels.max()
    grey = ((pixels - low) / (high - low).clamp_min(1e-12) * 255).round().to(torch.uint8).numpy()
    picture = Image.fromarray(grey)
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
