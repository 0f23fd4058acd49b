"""Manifest rows as evaluators see them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from cxrcl.data.dataset import EvalSet
from cxrcl.data.films import FULL_SIZE, Films
from cxrcl.data.loader import Collate, Feed
from cxrcl.data.manifest import Manifest
from cxrcl.data.texts import Texts
from cxrcl.data.transforms import RadiographTransform
from cxrcl.types import Batch, Tokenizer


class Splits:
    """The splits of a manifest: fixed order, no augmentation (implements `cxrcl.types.EvalData`).

    Args:
        make_texts: manifest -> its texts.
        prepare: host batch -> device-ready batch.
        tokenizer: None where the model reads no text.
        films: how they are read.
    """

    def __init__(
        self,
        manifest: Manifest,
        transform: RadiographTransform,
        make_texts: Callable[[Manifest], Texts],
        tokenizer: Tokenizer | None,
        prepare: Callable[[Batch], Batch],
        feed: Feed,
        films: Films = FULL_SIZE,
    ) -> None:
        self.manifest, self.transform, self.make_texts = manifest, transform, make_texts
        self.tokenizer, self.prepare, self.feed = tokenizer, prepare, feed
        self.films = films
        self.labels = manifest.labels
        self._parts: dict[str, Manifest] = {}
        self._texts: dict[str, Texts] = {}

    def part(self, split: str) -> Manifest:
        if split not in self._parts:
            self._parts[split] = self.manifest.split(split)
        return self._parts[split]

    def _texts_of(self, split: str) -> Texts:
        """Made when asked for: a model that reads no text needs no sentences for the data's labels."""
        if split not in self._texts:
            self._texts[split] = self.make_texts(self.part(split))
        return self._texts[split]

    def size(self, split: str) -> int:
        return len(self.part(split))

    def truth(self, split: str) -> Tensor:
        return torch.from_numpy(self.part(split).values)

    def column(self, split: str, name: str) -> list[str]:
        return self.part(split).rows[name].tolist()

    def texts(self, split: str) -> list[str]:
        texts = self._texts_of(split)
        return [texts.make(row, None) for row in range(self.size(split))]

    def batches(
        self, split: str, positions: Sequence[int], batch_size: int, texts: int = 0, views: int = 1
    ) -> Iterable[Batch]:
        keys = [
            [(0, position) for position in positions[start : start + batch_size]]
            for start in range(0, len(positions), batch_size)
        ]
        sentences = self._texts_of(split) if texts else None
        dataset = EvalSet(self.part(split), self.transform, sentences, views, texts, self.films)
        return map(self.prepare, self.feed.batches(dataset, keys, Collate(self.tokenizer if texts else None)))
