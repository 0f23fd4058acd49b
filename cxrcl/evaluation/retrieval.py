"""Image-report retrieval, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from cxrcl.evaluation.embed import embed_texts, over_images
from cxrcl.types import Batch, EmbedsImages, EmbedsText, EvalData, Gathers


def ranks(queries: Tensor, gallery: Tensor, relevant: tuple[Tensor, Tensor], chunk: int = 1024) -> Tensor:
    """Rank (1 = first) of each query's best relevant gallery item, without a full similarity matrix.

    Ties are pessimistic: an irrelevant item that is exactly as similar (or not a number) ranks before, so a collapsed
    model gets the worst rank and not the first.

    Args:
        queries, gallery: [Q, D] and [G, D].
        relevant: int64 ids [Q] and [G]; an item is relevant to the queries that have its id.
    """
    wanted, offered = relevant
    found = []
    for start in range(0, len(queries), chunk):
        with torch.autocast(queries.device.type, enabled=False):  # bf16 would make ties of near neighbours
            similarity = queries[start : start + chunk] @ gallery.T
        match = wanted[start : start + chunk, None] == offered[None]
        best = similarity.masked_fill(~match, -torch.inf).amax(dim=1, keepdim=True)
        found.append(1 + (~(similarity < best) & ~match).sum(dim=1))
    return torch.cat(found)


class Retrieval:
    """Recall at k and rank statistics between the images of a split and the texts of their studies.

    Texts that are equal word for word are one gallery item. image -> text: the rank of the image's text among the
    distinct texts. text -> image: the rank of the best image of that text. Images without a text take no part.

    Args:
        data: the splits (given by the application).
        splits: pooled before ranking.
        at: the k of recall at k.
    """

    needs: ClassVar[tuple[type, ...]] = (EmbedsImages, EmbedsText)
    selects: ClassVar[str] = "image_to_text/r5"
    higher_is_better: ClassVar[bool] = True

    def __init__(
        self,
        data: EvalData,
        splits: Sequence[str] = ("valid",),
        at: Sequence[int] = (1, 5, 10),
        batch_size: int = 64,
    ) -> None:
        self.batch_size = batch_size
        self.data, self.splits, self.at = data, tuple(splits), tuple(at)
        texts = [text for split in self.splits for text in data.texts(split)]
        self.images = [k for k, text in enumerate(texts) if text]
        self.texts = list(dict.fromkeys(texts[k] for k in self.images))
        if len(self.texts) < 2:
            raise ValueError(f"retrieval needs texts: the splits {', '.join(self.splits)} have {len(self.texts)}")
        place = {text: k for k, text in enumerate(self.texts)}
        self.text_of = torch.tensor([place[texts[k]] for k in self.images])

    def run(self, model: nn.Module, runtime: Gathers) -> dict[str, float]:
        encoder = cast(EmbedsImages, model)

        def compute(batch: Batch) -> Tensor:
            assert batch.images is not None
            return encoder.embed_images(batch.images[:, 0])

        images = over_images(self.data, self.splits, runtime, compute, self.batch_size)[0][self.images]
        texts = embed_texts(cast(EmbedsText, model), self.texts, runtime.device)
        each = torch.arange(len(texts))
        figures = self._figures("image_to_text", ranks(images, texts, (self.text_of, each)), len(texts))
        return figures | self._figures("text_to_image", ranks(texts, images, (each, self.text_of)), len(images))

    def _figures(self, way: str, found: Tensor, gallery: int) -> dict[str, float]:
        figures = {f"{way}/r{k}": float((found <= k).float().mean()) for k in self.at}
        figures |= {f"{way}/chance_r{k}": self._chance(way, k) for k in self.at}
        figures[f"{way}/median_rank"] = float(found.double().quantile(0.5))
        figures[f"{way}/mean_rank"] = float(found.float().mean())
        return figures | {f"{way}/gallery": float(gallery)}

    def _chance(self, way: str, k: int) -> float:
        """Expected recall at k of a random order: 1 - the chance that all relevant items fall behind."""
        if way == "image_to_text":
            return min(1.0, k / len(self.texts))
        counts = torch.bincount(self.text_of, minlength=len(self.texts)).double()
        missed = torch.ones(len(self.texts), dtype=torch.double)
        total = len(self.images)
        for draw in range(min(k, total)):
            missed *= ((total - counts - draw) / (total - draw)).clamp_min(0)
        return float(1 - missed.mean())
