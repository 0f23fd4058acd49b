"""The splits of a manifest as evaluators read them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cxrcl.data.dataset import CachedFeatures, EvalSet, new_hashes
from cxrcl.data.images.reader import FULL_SIZE, ImageReader
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.loader import BatchReader, Collate, features_of
from cxrcl.data.manifest import Manifest
from cxrcl.data.order import Key, in_order
from cxrcl.data.text.texts import Texts
from cxrcl.types import Batch, Tokenizer


class Splits:
    """The splits of a manifest: fixed order, no augmentation (implements `cxrcl.types.EvalData`).

    Args:
        manifest: rows of all splits.
        transform: what happens to each image.
        make_texts: manifest -> its texts.
        prepare: host batch -> device-ready batch.
        tokenizer: None where the model reads no text.
        batch_reader: reads the batches.
        reader: how images are read.
        hashed: splits whose images are hashed when they are read first (into `pixel_hashes`).
    """

    def __init__(
        self,
        manifest: Manifest,
        transform: RadiographTransform,
        make_texts: Callable[[Manifest], Texts],
        tokenizer: Tokenizer | None,
        prepare: Callable[[Batch], Batch],
        batch_reader: BatchReader,
        reader: ImageReader = FULL_SIZE,
        hashed: Sequence[str] = (),
    ) -> None:
        self.manifest, self.transform, self.make_texts = manifest, transform, make_texts
        self.tokenizer, self.prepare, self.batch_reader = tokenizer, prepare, batch_reader
        self.reader, self.labels = reader, manifest.labels
        self._parts: dict[str, Manifest] = {}
        self._texts: dict[str, Texts] = {}
        self.cached_features: CachedFeatures = {}
        self._features: dict[str, np.ndarray | None] = {}
        # Hashes of the pixels of a split's images, int64 [N], as far as this process and its workers have read them.
        self.pixel_hashes = {split: new_hashes(self.size(split)) for split in hashed}

    def with_features(self, cached: CachedFeatures) -> Splits:
        """The same splits with cached features in place of images, where all images of a split have them.

        For several views or texts the images are read: the features are those of an image without augmentation.
        """
        splits = copy.copy(self)
        splits.cached_features, splits._features = cached, {}
        return splits

    def of(self, manifest: Manifest) -> Splits:
        """The splits of other rows, read in the same way."""
        parts = (self.make_texts, self.tokenizer, self.prepare, self.batch_reader, self.reader)
        return Splits(manifest, self.transform, *parts)

    def with_transform(self, transform: RadiographTransform, prepare: Callable[[Batch], Batch]) -> Splits:
        """The same splits, their images made ready in another way."""
        splits = copy.copy(self)
        splits.transform, splits.prepare = transform, prepare
        return splits

    def part(self, split: str) -> Manifest:
        """The rows of a split."""
        if split not in self._parts:
            self._parts[split] = self.manifest.split(split)
        return self._parts[split]

    def _texts_of(self, split: str) -> Texts:
        """The texts of a split, made at their first use: a model without texts needs no sentences for the labels."""
        if split not in self._texts:
            self._texts[split] = self.make_texts(self.part(split))
        return self._texts[split]

    def size(self, split: str) -> int:
        """Number of images of the split."""
        return len(self.part(split))

    def truth(self, split: str) -> Tensor:
        """Label values float32 [N, C] of the split's images: 1, 0, nan where unknown, -1 under the policy `keep`."""
        return torch.from_numpy(self.part(split).values)

    def column(self, split: str, name: str) -> list[str]:
        """A manifest column of the split, N strings."""
        return self.part(split).rows[name].tolist()

    def texts(self, split: str) -> list[str]:
        """The fixed text of each image's study, N strings, '' where it has none."""
        texts = self._texts_of(split)
        return [texts.make(row, None) for row in range(self.size(split))]

    def batches(
        self, split: str, positions: Sequence[int], batch_size: int, texts: int = 0, views: int = 1
    ) -> Iterable[Batch]:
        """Batches on the device: images float32 [B, V, 3, S, S], texts int64 [B, T, L], labels float32 [B, C]."""
        keys = in_order(positions, batch_size)
        features = self._features_of(split) if self.cached_features and views == 1 and texts == 0 else None
        if features is not None:
            return map(partial(self._feature_batch, self.part(split), features), keys)
        sentences = self._texts_of(split) if texts else None
        hashes = self.pixel_hashes.get(split)
        dataset = EvalSet(self.part(split), self.transform, sentences, views, texts, self.reader, hashes)
        return map(self.prepare, self.batch_reader.batches(dataset, keys, Collate(self.tokenizer if texts else None)))

    def _features_of(self, split: str) -> np.ndarray | None:
        """float32 [N, dim]; None where an image of the split has no features."""
        if split not in self._features:
            paths = self.part(split).paths
            is_complete = len(paths) > 0 and all(path in self.cached_features for path in paths)
            features = np.stack([self.cached_features[path] for path in paths]) if is_complete else None
            self._features[split] = features
        return self._features[split]

    def _feature_batch(self, part: Manifest, features: np.ndarray, keys: Sequence[Key]) -> Batch:
        """A device-ready batch of a split, features float32 [B, 1, dim] in place of images."""
        rows = [row for _, row in keys]
        labels, index = torch.from_numpy(part.values[rows]), torch.from_numpy(part.lines[rows])
        pooled = features_of(torch.from_numpy(features[rows][:, None]))
        return self.prepare(Batch(None, None, None, labels, index, image_features=pooled))
