"""Image-report retrieval, both ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cxrcl.evaluation.examples import retrieved
from cxrcl.evaluation.look import Ask, Evaluator, Look, embeddings
from cxrcl.evaluation.scores import check_names
from cxrcl.types import EmbedsImages, EmbedsText, EvalData

ELEMENTS = 1 << 24  # similarities in memory at a time


def ranks(queries: Tensor, gallery: Tensor, relevant: tuple[Tensor, Tensor], elements: int = ELEMENTS) -> Tensor:
    """Rank (1 = first) of each query's best relevant gallery item, without a full similarity matrix.

    Ties are pessimistic: an irrelevant item that is exactly as similar (or not a number) ranks before, so a collapsed
    model gets the worst rank and not the first.

    Args:
        queries, gallery: [Q, D] and [G, D].
        relevant: int64 ids [Q] and [G]; an item is relevant to the queries that have its id.
        elements: similarities that are held in memory at a time, at least one query's.
    """
    wanted, offered = relevant
    place = torch.argsort(offered, stable=True)
    gallery, offered = gallery[place], offered[place]
    starts, ends = torch.searchsorted(offered, wanted), torch.searchsorted(offered, wanted, right=True)
    found = []
    for rows in torch.arange(len(queries)).split(max(1, elements // max(1, len(gallery)))):
        similarity = _similarity(queries[rows], gallery)
        own = [row[start:end] for row, start, end in zip(similarity, starts[rows].tolist(), ends[rows].tolist())]
        best = torch.stack([relevant.amax() for relevant in own])
        lower = np.count_nonzero((similarity < best[:, None]).numpy(), axis=1)  # much faster than PyTorch's sum of bool
        own_lower = torch.stack([(relevant < top).sum() for relevant, top in zip(own, best)])
        others = len(gallery) - (ends - starts)[rows]
        found.append(1 + others - (torch.from_numpy(lower) - own_lower))
    return torch.cat(found)


def precision_at(
    queries: Tensor, gallery: Tensor, relevant: Callable[[Tensor], Tensor], k: int, elements: int = ELEMENTS
) -> Tensor:
    """Share of relevant items among the k most similar of the gallery, [Q]. Ties are pessimistic, as in `ranks`.

    Args:
        queries, gallery: [Q, D] and [G, D].
        relevant: positions of queries [q] -> bool [q, G].
        k: at most G.
    """
    found = []
    for rows in torch.arange(len(queries)).split(max(1, elements // len(gallery))):
        similarity, match = _similarity(queries[rows], gallery), relevant(rows)
        similarity = torch.where(similarity.isnan(), torch.where(match, -torch.inf, torch.inf), similarity)
        least = similarity.topk(k, dim=1).values[:, -1:]
        above, tied = similarity > least, similarity == least
        places = k - above.sum(dim=1) - (tied & ~match).sum(dim=1)  # left to relevant items among the last
        found.append(((above & match).sum(dim=1) + places.clamp_min(0)) / k)
    return torch.cat(found)


def _similarity(queries: Tensor, gallery: Tensor) -> Tensor:
    with torch.autocast(queries.device.type, enabled=False):  # bf16 would make ties of near neighbours
        return queries @ gallery.T


class Retrieval(Evaluator):
    """Recall at k and rank statistics between the images of a split and the texts of their studies.

    Texts that are equal word for word are one gallery item. image -> text: the rank of the image's text among the
    distinct texts. text -> image: the rank of the best image of that text. Images without a text take no part. An item
    that is exactly as similar as the right one ranks before it.

    Args:
        data: the splits (given by the application).
        splits: pooled before ranking.
        at: the k of recall at k.
        classes: labels; precision at k of image -> text and text -> image is given, where an item is relevant if a film
            of it has the query's class (GLoRIA, Huang et al. 2021). Films with exactly one of the classes take part,
            and a text has the classes of its films. Empty: none.
        precision_at: the k of precision at k; those that exceed the gallery are left out.
    """

    needs: ClassVar[tuple[type, ...]] = (EmbedsImages, EmbedsText)
    selects: ClassVar[str] = "image_to_text/r5"

    def __init__(
        self,
        data: EvalData,
        splits: Sequence[str] = ("valid",),
        at: Sequence[int] = (1, 5, 10),
        classes: Sequence[str] = (),
        precision_at: Sequence[int] = (5, 10, 100),
    ) -> None:
        self.data, self.splits, self.at = data, tuple(splits), tuple(at)
        check_names(classes, data.labels, "classes")
        if len(classes) == 1 or any(k < 1 for k in (*at, *precision_at)):
            raise ValueError(f"classes={list(classes)}, at={list(at)}: expected 2 classes or more, and each k above 0")
        self.classes, self.precision_at = tuple(classes), tuple(precision_at)
        texts = [text for split in self.splits for text in data.texts(split)]
        self.images = [k for k, text in enumerate(texts) if text]
        self.texts = list(dict.fromkeys(texts[k] for k in self.images))
        if len(self.texts) < 2:
            raise ValueError(f"retrieval needs texts: the splits {', '.join(self.splits)} have {len(self.texts)}")
        place = {text: k for k, text in enumerate(self.texts)}
        self.text_of = torch.tensor([place[texts[k]] for k in self.images])

    def asks(self, model: nn.Module, device: torch.device) -> Sequence[Ask]:
        return [embeddings(model, self.splits)]

    def run(self, look: Look) -> dict[str, float]:
        images, texts = look.rows("embedding", self.splits)[self.images], look.texts(self.texts)
        each = torch.arange(len(texts))
        found = ranks(images, texts, (self.text_of, each))
        # Called by a report only, and with the number of examples.
        look.leave("examples", partial(retrieved, look, self.splits, self.images, self.texts, self.text_of, found))
        figures = self._figures("image_to_text", found, len(texts))
        figures |= self._figures("text_to_image", ranks(texts, images, (each, self.text_of)), len(images))
        return figures | (self._precisions(look, images, texts) if self.classes else {})

    def _figures(self, way: str, found: Tensor, gallery: int) -> dict[str, float]:
        figures = {f"{way}/r{k}": float((found <= k).double().mean()) for k in self.at}
        figures |= {f"{way}/chance_r{k}": self._chance(way, k) for k in self.at}
        figures[f"{way}/median_rank"] = float(found.double().quantile(0.5))
        figures[f"{way}/mean_rank"] = float(found.double().mean())
        return figures | {f"{way}/gallery": float(gallery)}

    def _precisions(self, look: Look, images: Tensor, texts: Tensor) -> dict[str, float]:
        columns = [self.data.labels.index(name) for name in self.classes]
        truth = look.labels(self.splits)[self.images][:, columns] == 1
        single = truth.sum(dim=1) == 1
        images, of_images, text_of = images[single], truth[single], self.text_of[single]
        present, place = text_of.unique(return_inverse=True)
        texts = texts[present]
        of_texts = torch.zeros(len(texts), len(columns)).index_add_(0, place, of_images.float()) > 0
        sides = {
            "image_to_text": (images, of_images, texts, of_texts),
            "text_to_image": (texts, of_texts, images, of_images),
        }
        figures: dict[str, float] = {f"{way}/class_queries": float(len(side[0])) for way, side in sides.items()}
        for way, (queries, asked, gallery, offered) in sides.items():
            for k in (k for k in self.precision_at if k <= len(gallery)):

                def relevant(rows: Tensor, asked: Tensor = asked, offered: Tensor = offered) -> Tensor:
                    return (asked[rows].float() @ offered.float().T) > 0

                figures[f"{way}/p{k}"] = float(precision_at(queries, gallery, relevant, k).mean())
            if len(queries):
                kinds, counts = asked.unique(dim=0, return_counts=True)
                shares = torch.stack([(offered & kind).any(dim=1).double().mean() for kind in kinds])
                figures[f"{way}/chance_p"] = float((shares * counts).sum() / counts.sum())
        return figures

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
