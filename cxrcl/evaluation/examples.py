"""Some images of a retrieval evaluation with the texts that a model retrieves for them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cxrcl.evaluation.shared_pass import SharedPass

SIDE = 256  # px, the longest of an example's picture
SHOWN = 3  # texts


@dataclass(frozen=True)
class Example:
    """One image with the texts retrieved for it.

    Attributes:
        image: its name.
        png: the image as the model sees it, grey, at most 256 px.
        text, similarity, rank: the image's own text, its cosine and its rank among the distinct texts.
        retrieved: the three most similar texts and their cosines.
    """

    image: str
    png: bytes
    text: str
    similarity: float
    rank: int
    retrieved: list[tuple[str, float]]


def choose(ranks: np.ndarray, count: int, seed: int = 0) -> list[int]:
    """Positions of images to show: half of them with rank 1 and half not, as far as there are any, in random order.

    Args:
        ranks: int [N].
    """
    order = np.random.default_rng(seed).permutation(len(ranks))
    right, wrong = order[ranks[order] == 1], order[ranks[order] != 1]
    of_right = min(len(right), max(count - count // 2, count - len(wrong)))
    return [*right[:of_right].tolist(), *wrong[: count - of_right].tolist()]


def retrieved(
    shared: SharedPass,
    splits: Sequence[str],
    images: Sequence[int],
    texts: Sequence[str],
    text_of: Tensor,
    ranks: Tensor,
    count: int,
) -> list[Example]:
    """Examples of image -> text.

    Args:
        images: positions in the pooled splits of the I images that have a text.
        texts: the distinct texts.
        text_of, ranks: int64 [I], the text of each image and its rank.
        count: how many.
    """
    chosen = choose(ranks.numpy(), count)
    embedded = shared.rows("embedding", splits)[[images[k] for k in chosen]].double()
    similarity = embedded @ shared.texts(texts).double().T
    best = similarity.topk(min(SHOWN, len(texts)), dim=1)
    names = [name for split in splits for name in shared.data.column(split, "image")]
    places = [(split, row) for split in splits for row in range(shared.data.size(split))]
    return [
        Example(
            image=names[images[k]],
            png=grey_png(_pixels(shared, *places[images[k]])),
            text=texts[int(text_of[k])],
            similarity=float(similarity[row, text_of[k]]),
            rank=int(ranks[k]),
            retrieved=[
                (texts[place], value) for value, place in zip(best.values[row].tolist(), best.indices[row].tolist())
            ],
        )
        for row, k in enumerate(chosen)
    ]


def _pixels(shared: SharedPass, split: str, row: int) -> Tensor:
    """One image, float32 [S, S]."""
    images = next(iter(shared.data.batches(split, [row], 1))).images
    assert images is not None
    return images[0, 0, 0].float().cpu()


def grey_png(pixels: Tensor) -> bytes:
    """A grey PNG of float [H, W] of any range, black at its smallest value and white at its largest."""
    low, high = pixels.min(), pixels.max()
    grey = ((pixels - low) / (high - low).clamp_min(1e-12) * 255).round().to(torch.uint8).numpy()
    picture = Image.fromarray(grey)
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
