"""What evaluators share: one model's pass over the data, each image and each sentence encoded once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from cxrcl.evaluation.embed import embed_texts, over_images, project_texts
from cxrcl.types import Batch, EmbedsImages, EmbedsText, EncodesImages, EvalData, Features, Gathers, ProjectsText


class Request(NamedTuple):
    """Something that an evaluator needs of every image of some splits. Equal names mean equal computations.

    Attributes:
        compute: features of B images -> rows float [B, ...].
    """

    name: str
    splits: tuple[str, ...]
    compute: Callable[[Features], Tensor]


def embedding_request(model: nn.Module, splits: Sequence[str]) -> Request:
    """Unit vectors of images, rows [B, D] under the name "embedding"."""
    return Request("embedding", tuple(splits), cast(EmbedsImages, model).embed_images)


def pooled_request(splits: Sequence[str]) -> Request:
    """Pooled features of the image encoder, rows [B, dim] under the name "pooled"."""
    return Request("pooled", tuple(splits), lambda features: features.pooled)


class SharedPass:
    """One model's pass over the data; made anew for every evaluation, so that nothing outlives the weights.

    A split is encoded when the first of its rows is needed, for all requests at once.

    Args:
        model: what evaluators see of an objective, in evaluation mode.
        runtime: of this process.
        data: the splits.
        batch_size: images encoded at a time.
        requests: of all evaluators; an image that several of them need goes through the encoder once.
        held_out: splits that are not scored: thresholds and temperatures are fitted on them.
    """

    def __init__(
        self,
        model: nn.Module,
        runtime: Gathers,
        data: EvalData,
        batch_size: int,
        requests: Iterable[Request] = (),
        held_out: Sequence[str] = (),
    ) -> None:
        self.model, self.runtime, self.data, self.batch_size = model, runtime, data, batch_size
        self.held_out = tuple(held_out)
        self._requests = list(requests)
        self._rows: dict[tuple[str, str], Tensor] = {}  # by name and split
        self._texts: dict[str, Tensor] = {}
        self._projected: dict[str, Tensor] = {}
        self._computed: dict[Hashable, Any] = {}

    def rows(self, name: str, splits: Sequence[str]) -> Tensor:
        """What the request of this name computes of all images of the splits, in their order.

        Returns:
            float32 [N, ...] on the CPU, the same in every process, whatever their number.
        """
        return torch.cat([self._rows_of(split, name) for split in splits])

    def labels(self, splits: Sequence[str]) -> Tensor:
        """Labels of the images of the splits, float32 [N, C], in their order."""
        return torch.cat([self.data.truth(split) for split in splits])

    def texts(self, sentences: Sequence[str]) -> Tensor:
        """Unit vectors of N texts, float32 [N, D] on the CPU."""
        model = cast(EmbedsText, self.model)
        return _of_texts(sentences, self._texts, lambda new: embed_texts(model, new, self.runtime.device))

    def projected_texts(self, sentences: Sequence[str]) -> Tensor:
        """Projections of N texts, not normalised, float32 [N, D] on the CPU; of a model that is `ProjectsText`."""
        model = cast(ProjectsText, self.model)
        return _of_texts(sentences, self._projected, lambda new: project_texts(model, new, self.runtime.device))

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The result of `compute()`, such as a fitted model, computed the first time that `key` is named."""
        if key not in self._computed:
            self._computed[key] = compute()
        return self._computed[key]

    def _rows_of(self, split: str, name: str) -> Tensor:
        if (name, split) not in self._rows:
            rows = over_images(self.data, split, self.runtime, self._computes(split), self.batch_size)
            self._rows |= {(each, split): values for each, values in rows.items()}
        return self._rows[name, split]

    def _computes(self, split: str) -> Callable[[Batch], dict[str, Tensor]]:
        """Batch of B images of this split -> rows [B, ...] of every request for it."""
        encoder = cast(EncodesImages, self.model)
        computations = {request.name: request.compute for request in self._requests if split in request.splits}

        def compute(batch: Batch) -> dict[str, Tensor]:
            if batch.image_features is not None:
                features = Features(*(part[:, 0] for part in batch.image_features))
            else:
                assert batch.images is not None
                features = encoder.encode_images(batch.images[:, 0])
            return {name: call(features) for name, call in computations.items()}

        return compute


def _of_texts(sentences: Sequence[str], known: dict[str, Tensor], encode: Callable[[Sequence[str]], Tensor]) -> Tensor:
    """Rows of the sentences, of which those that are not known yet are encoded."""
    if new := [sentence for sentence in dict.fromkeys(sentences) if sentence not in known]:
        known |= dict(zip(new, encode(new), strict=True))
    return torch.stack([known[sentence] for sentence in sentences])
