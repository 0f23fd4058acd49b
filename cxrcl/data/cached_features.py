"""Features in place of images that went through a frozen encoder before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cxrcl.data.dataset import EvalSet, Sample
from cxrcl.data.images.pixels import ImageError
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.loader import BatchReader, Collate, features_of
from cxrcl.data.splits import Splits
from cxrcl.types import Batch

CachedFeatures = Mapping[str, np.ndarray]  # path of an image -> its pooled features, float32 [dim]


class ImagePaths:
    """The images at some paths without augmentation; one that cannot be read is black, and `unreadable_row` is set."""

    def __init__(self, paths: Sequence[str], transform: RadiographTransform, reader: ImageReader) -> None:
        self.paths, self.transform, self.reader = paths, transform, reader

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """A sample of one image, uint8 [1, 1, S, S], and no labels; `index` is its place in `paths`."""
        _, place = key
        side, bad = self.transform.spec.size, 0
        try:
            image = self.reader.read(self.paths[place], self.transform.needed_side_px(augmented=False))
            square = self.transform.geometry(image, None)
        except ImageError:
            square, bad = np.zeros((side, side), dtype=np.uint8), 1
        return Sample(square[None, None], None, [], np.zeros(0, dtype=np.float32), place, bad)


def image_batches(
    paths: Sequence[str],
    places: range,
    batch_size: int,
    transform: RadiographTransform,
    reader: ImageReader,
    batch_reader: BatchReader,
) -> Iterable[Batch]:
    """Batches of the images at these places of `paths`, in order.

    Returns:
        Batches with images uint8 [B, 1, 1, S, S]; `index` int64 [B] holds the places, `unreadable_row` int64
        [B] is 1 for an image that cannot be read.
    """
    keys = [[(0, k) for k in places[start : start + batch_size]] for start in range(0, len(places), batch_size)]
    return batch_reader.batches(ImagePaths(paths, transform, reader), keys, Collate(None))


class CachedSplits:
    """The splits of a manifest with features in place of images, where all images of a split have them.

    Implements `cxrcl.types.EvalData`. For several views or texts the images are read: the features are those of an
    image without augmentation.

    Args:
        splits: reads what has no features.
        cached: path of an image -> its pooled features, float32 [dim].
    """

    def __init__(self, splits: Splits, cached: CachedFeatures) -> None:
        self.splits, self.cached, self.labels = splits, cached, splits.labels
        self._features: dict[str, tuple[Tensor, np.ndarray] | None] = {}

    def size(self, split: str) -> int:
        """Number of images of the split."""
        return self.splits.size(split)

    def truth(self, split: str) -> Tensor:
        """Label values float32 [N, C] of the split's images."""
        return self.splits.truth(split)

    def column(self, split: str, name: str) -> list[str]:
        """A manifest column of the split, N strings."""
        return self.splits.column(split, name)

    def texts(self, split: str) -> list[str]:
        """The text of each image's study, N strings."""
        return self.splits.texts(split)

    def _features_of(self, split: str) -> tuple[Tensor, np.ndarray] | None:
        """float32 [N, dim] and the rows of the CSV, int64 [N]; None where an image of the split has no features."""
        if split not in self._features:
            images = EvalSet(self.splits.part(split), self.splits.transform, None)
            is_complete = len(images) > 0 and all(path in self.cached for path in images.paths)
            features = np.stack([self.cached[path] for path in images.paths]) if is_complete else None
            self._features[split] = None if features is None else (torch.from_numpy(features), images.lines)
        return self._features[split]

    def batches(
        self, split: str, positions: Sequence[int], batch_size: int, texts: int = 0, views: int = 1
    ) -> Iterable[Batch]:
        """Batches of these positions, features float32 [B, 1, dim] in place of cached images."""
        cached = self._features_of(split) if views == 1 and texts == 0 else None
        if cached is None:
            yield from self.splits.batches(split, positions, batch_size, texts, views)
            return
        features, lines = cached
        for start in range(0, len(positions), batch_size):
            rows = list(positions[start : start + batch_size])
            labels, index = self.truth(split)[rows], torch.from_numpy(lines[rows])
            pooled = features_of(features[rows][:, None])
            yield self.splits.prepare(Batch(None, None, None, labels, index, image_features=pooled))
