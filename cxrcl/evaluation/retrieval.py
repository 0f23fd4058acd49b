"""Image-report retrieval, both ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cxrcl.evaluation.embed import cosines
from cxrcl.evaluation.evaluator import Evaluator, EvaluatorResult, check_label_names, patients_of
from cxrcl.evaluation.examples import retrieved
from cxrcl.evaluation.scores.query_intervals import Queries, bounds
from cxrcl.evaluation.shared_pass import Request, SharedPass, embedding_request
from cxrcl.types import EmbedsImages, EmbedsText, EvalData, Natural

ELEMENTS = 1 << 24  # similarities in memory at a time


def ranks(queries: Tensor, gallery: Tensor, relevant: tuple[Tensor, Tensor], elements: int = ELEMENTS) -> Tensor:
    """Rank (1 = first) of each query's best relevant gallery item, int64 [Q], without a full similarity matrix.

    Ties are pessimistic: an irrelevant item that is exactly as similar (or not a number) ranks before, so a collapsed
    model gets the worst rank and not the first.

    Args:
        queries, gallery: float [Q, D] and [G, D].
        relevant: int64 ids [Q] and [G]; an item is relevant to the queries that have its id.
        elements: similarities that are held in memory at a time, at least one query's.
    """
    query_ids, item_ids = relevant
    # Sorted by id, the relevant items of a query stand next to each other: starts[q] .. ends[q].
    by_id = torch.argsort(item_ids, stable=True)
    gallery, item_ids = gallery[by_id], item_ids[by_id]
    starts, ends = torch.searchsorted(item_ids, query_ids), torch.searchsorted(item_ids, query_ids, right=True)
    parts = []
    for rows in torch.arange(len(queries)).split(max(1, elements // max(1, len(gallery)))):
        similarity = cosines(queries[rows], gallery)
        to_relevant = [
            row[start:end] for row, start, end in zip(similarity, starts[rows].tolist(), ends[rows].tolist())
        ]
        best = torch.stack([part.amax() for part in to_relevant])
        lower = np.count_nonzero((similarity < best[:, None]).numpy(), axis=1)  # much faster than PyTorch's sum of bool
        relevant_lower = torch.stack([(part < top).sum() for part, top in zip(to_relevant, best)])
        irrelevant = len(gallery) - (ends - starts)[rows]
        # Counted by those that rank behind, so that ties and nan rank before.
        parts.append(1 + irrelevant - (torch.from_numpy(lower) - relevant_lower))
    return torch.cat(parts)


def precision_at(
    queries: Tensor, gallery: Tensor, relevant: Callable[[Tensor], Tensor], k: int, elements: int = ELEMENTS
) -> Tensor:
    """Share of relevant items among the k most similar of the gallery, float [Q]. Ties are pessimistic, as in `ranks`.

    Args:
        queries, gallery: float [Q, D] and [G, D].
        relevant: positions of queries [q] -> bool [q, G].
        k: at most G.
    """
    parts = []
    for rows in torch.arange(len(queries)).split(max(1, elements // len(gallery))):
        similarity, match = cosines(queries[rows], gallery), relevant(rows)
        # The worst case for nan as well: irrelevant items first, relevant ones last.
        similarity = torch.where(similarity.isnan(), torch.where(match, -torch.inf, torch.inf), similarity)
        least = similarity.topk(k, dim=1).values[:, -1:]
        above, tied = similarity > least, similarity == least
        places = k - above.sum(dim=1) - (tied & ~match).sum(dim=1)  # left to relevant items among the last
        parts.append(((above & match).sum(dim=1) + places.clamp_min(0)) / k)
    return torch.cat(parts)


class Retrieval(Evaluator):
    """Recall at k and rank statistics between the images of a split and the texts of their studies.

    Texts that are equal word for word are one gallery item. image -> text: the rank of the image's text among the
    distinct texts. text -> image: the rank of the best image of that text. Images without a text take no part. An item
    that is exactly as similar as the right one ranks before it.

    Args:
        at: the k of recall at k.
        classes: labels; adds precision at k of image -> text and text -> image, where an item is relevant if an image
            of it has the query's class (GLoRIA, Huang et al. 2021). Images with exactly one of the classes take part,
            and a text has the classes of its images. Empty: none.
        precision_at: the k of precision at k; those that exceed the gallery are left out.
        resamples: of the patients, for intervals; 0 gives none. The gallery stays as it is. A text that several
            patients share is of them in equal parts, see `cxrcl.evaluation.scores.query_intervals.Queries`.
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
        resamples: Natural = 0,
    ) -> None:
        self.data, self.splits, self.at = data, tuple(splits), tuple(at)
        check_label_names(classes, data.labels, "classes")
        if len(classes) == 1 or any(k < 1 for k in (*at, *precision_at)):
            raise ValueError(f"classes={list(classes)}, at={list(at)}: expected 2 classes or more, and each k above 0")
        self.classes, self.precision_at = tuple(classes), tuple(precision_at)
        self.patients = patients_of(data, splits, resamples)
        texts = [text for split in self.splits for text in data.texts(split)]
        self.images = [k for k, text in enumerate(texts) if text]
        self.texts = list(dict.fromkeys(texts[k] for k in self.images))
        if len(self.texts) < 2:
            raise ValueError(f"retrieval needs texts: the splits {', '.join(self.splits)} have {len(self.texts)}")
        place = {text: k for k, text in enumerate(self.texts)}
        self.text_of = torch.tensor([place[texts[k]] for k in self.images])

    def requests(self, model: nn.Module, device: torch.device) -> Sequence[Request]:
        return [embedding_request(model, self.splits)]

    def run(self, shared: SharedPass) -> EvaluatorResult:
        images, texts = shared.rows("embedding", self.splits)[self.images], shared.texts(self.texts)
        text_ids = torch.arange(len(texts))
        ranks_of_texts = ranks(images, texts, (self.text_of, text_ids))
        ranks_of_images = ranks(texts, images, (text_ids, self.text_of))
        metrics = self._recalls("image_to_text", ranks_of_texts, len(texts), Queries(self.patients, self.images))
        of_texts = Queries(self.patients, self.images, self.text_of.numpy())
        metrics |= self._recalls("text_to_image", ranks_of_images, len(images), of_texts)
        metrics |= self._precisions(shared, images, texts) if self.classes else {}
        # Called by a report only, and with the number of examples.
        examples = partial(retrieved, shared, self.splits, self.images, self.texts, self.text_of, ranks_of_texts)
        return EvaluatorResult(metrics, artifacts={"examples": examples})

    def _recalls(self, way: str, ranks: Tensor, gallery: int, queries: Queries) -> dict[str, float]:
        """Recall at k with its chance, and ranks, of one direction, with their intervals.

        Args:
            ranks: int64 [Q].
            gallery: number of items.
            queries: the Q.
        """
        metrics = {f"{way}/r{k}": float((ranks <= k).double().mean()) for k in self.at}
        metrics |= {f"{way}/chance_r{k}": self._chance(way, k) for k in self.at}
        metrics[f"{way}/median_rank"] = float(ranks.double().quantile(0.5))
        metrics[f"{way}/mean_rank"] = float(ranks.double().mean())
        if self.patients.resamples:
            values = ranks.numpy()
            for k in self.at:
                metrics |= bounds(f"{way}/r{k}", queries.share(values <= k))
            metrics |= bounds(f"{way}/median_rank", queries.median(values))
            metrics |= bounds(f"{way}/mean_rank", queries.mean(values))
        return metrics | {f"{way}/queries": float(len(ranks)), f"{way}/gallery": float(gallery)}

    def _precisions(self, shared: SharedPass, images: Tensor, texts: Tensor) -> dict[str, float]:
        """Precision at k by class, both ways, with its chance.

        Args:
            images, texts: float32 [I, D] of images with a text, and [G, D] of distinct texts.
        """
        columns = [self.data.labels.index(name) for name in self.classes]
        has_class = shared.labels(self.splits)[self.images][:, columns] == 1
        has_one = has_class.sum(dim=1) == 1
        images, image_classes, text_of = images[has_one], has_class[has_one], self.text_of[has_one]
        present, place = text_of.unique(return_inverse=True)
        texts = texts[present]
        text_classes = torch.zeros(len(texts), len(columns)).index_add_(0, place, image_classes.float()) > 0
        rows = np.asarray(self.images)[has_one.numpy()]
        sides = {
            "image_to_text": (images, image_classes, texts, text_classes, Queries(self.patients, rows)),
            "text_to_image": (texts, text_classes, images, image_classes, Queries(self.patients, rows, place.numpy())),
        }
        metrics: dict[str, float] = {f"{way}/class_queries": float(len(side[0])) for way, side in sides.items()}
        for way, (queries, query_classes, gallery, item_classes, drawn) in sides.items():

            def relevant(rows: Tensor, of: Tensor = query_classes, among: Tensor = item_classes) -> Tensor:
                return (of[rows].float() @ among.float().T) > 0

            for k in (k for k in self.precision_at if k <= len(gallery)):
                precision = precision_at(queries, gallery, relevant, k)
                metrics[f"{way}/p{k}"] = float(precision.mean())
                metrics |= bounds(f"{way}/p{k}", drawn.share(precision.numpy())) if self.patients.resamples else {}
            if len(queries):
                # Queries of equal classes have equal chances: the share of items that have one of their classes.
                kinds, counts = query_classes.unique(dim=0, return_counts=True)
                shares = torch.stack([(item_classes & kind).any(dim=1).double().mean() for kind in kinds])
                metrics[f"{way}/chance_p"] = float((shares * counts).sum() / counts.sum())
        return metrics

    def _chance(self, way: str, k: int) -> float:
        """Expected recall at k of a random order: 1 - the probability that all relevant items fall behind.

        An image has one relevant text of T: k / T. A text with c relevant images of n misses all of them with the
        hypergeometric probability, the product over draws d < k of (n - c - d) / (n - d).
        """
        if way == "image_to_text":
            return min(1.0, k / len(self.texts))
        counts = torch.bincount(self.text_of, minlength=len(self.texts)).double()
        missed = torch.ones(len(self.texts), dtype=torch.double)
        total = len(self.images)
        for draw in range(min(k, total)):
            missed *= ((total - counts - draw) / (total - draw)).clamp_min(0)
        return float(1 - missed.mean())
