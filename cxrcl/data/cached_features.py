"""Batches of images by their paths, for the one pass through a frozen encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

from cxrcl.data.dataset import Sample, read_once_hashed
from cxrcl.data.images.pixels import ImageError
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.loader import BatchReader, Collate
from cxrcl.data.order import in_order
from cxrcl.types import Batch


class ImagePaths:
    """The images at some paths without augmentation; one that cannot be read is black, and `unreadable_row` is set.

    Args:
        pixel_hashes: as of `TrainSet`, int64 [paths].
    """

    def __init__(
        self, paths: Sequence[str], transform: RadiographTransform, reader: ImageReader, pixel_hashes: Tensor | None
    ) -> None:
        self.paths, self.transform, self.reader, self.pixel_hashes = paths, transform, reader, pixel_hashes

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """A sample of one image, uint8 [1, 1, S, S], and no labels; `index` is its place in `paths`."""
        _, place = key
        side, bad = self.transform.spec.size, 0
        try:
            needed = self.transform.needed_side_px(augmented=False)
            image = read_once_hashed(self.reader, self.paths[place], needed, self.pixel_hashes, place)
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
    pixel_hashes: Tensor | None = None,
) -> Iterable[Batch]:
    """Batches of the images at these places of `paths`, in order.

    Returns:
        Batches with images uint8 [B, 1, 1, S, S]; `index` int64 [B] holds the places, `unreadable_row` int64
        [B] is 1 for an image that cannot be read.
    """
    images = ImagePaths(paths, transform, reader, pixel_hashes)
    return batch_reader.batches(images, in_order(places, batch_size), Collate(None))
