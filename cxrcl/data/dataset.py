"""Samples: which images and texts make one, as a pure function of (seed, epoch, row, view).

No sample depends on the worker or process that makes it, nor on samples made before it: resuming needs no loader
state, and any number of workers and processes gives the same data.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from cxrcl.data.images.pixel_hash import NOT_READ
from cxrcl.data.images.pixels import MIN_SIDE_PX, ImageError
from cxrcl.data.images.reader import FULL_SIZE, ImageReader
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.manifest import Manifest, check_studies
from cxrcl.data.streams import IMAGE, STAND_IN, TEXT, VIEWS, stream
from cxrcl.data.text.texts import Texts
from cxrcl.errors import DataError

MAX_STAND_INS = 16  # tried for one sample
CachedFeatures = Mapping[str, np.ndarray]  # path of an image -> its pooled features, float32 [dim]
T = TypeVar("T", int, str)


@dataclass(slots=True)
class Sample:
    images: np.ndarray | None  # uint8 [V, 1, S, S]
    augment: np.ndarray | None  # float32 [V, P]
    texts: list[tuple[str, ...]]  # T texts, each as its sentences
    labels: np.ndarray  # float32 [C]
    index: int  # row of the manifest's CSV (its header is row 1)
    unreadable_row: int = 0  # row of the CSV whose image cannot be read, in whose place this sample stands; 0: none
    image_features: np.ndarray | None = None  # float32 [V, dim], in place of `images`
    image_rows: np.ndarray | None = None  # int64 [V]: where the images stand among the training rows


class _Unreadable(DataError):
    """An image of a sample cannot be read; `line` is its row of the CSV."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class TrainSet:
    """Studies (or single images) of the training split, with random views, crops and texts.

    Args:
        manifest: the rows of the training split.
        transform: what happens to each image.
        texts: of these rows; None: samples without texts.
        unit: `study` draws views among the images of a study; `image` makes each image a sample of its own.
        num_views: V. A study with fewer images gives one twice, augmented independently.
        num_texts: T independent draws of a text; samples without any text are dropped and counted in `dropped`.
        seed: of all random numbers of the samples.
        reader: how images are read.
        cached_features: in place of the images: samples then hold these features and no image is read. An image that is
            not among them could not be read.
        pixel_hashes: int64 [rows] in memory that worker processes share (see `new_hashes`): when an image is read first
            its hash is laid there. None: images are not hashed.

    Raises:
        DataError: no sample has a text, or images of a study differ in labels or texts.
    """

    def __init__(
        self,
        manifest: Manifest,
        transform: RadiographTransform,
        texts: Texts | None,
        unit: str,
        num_views: int,
        num_texts: int,
        seed: int,
        reader: ImageReader = FULL_SIZE,
        cached_features: CachedFeatures | None = None,
        pixel_hashes: torch.Tensor | None = None,
    ) -> None:
        self.pixel_hashes = pixel_hashes
        self.paths, self.lines, self.values = manifest.paths, manifest.lines, manifest.values
        self.transform, self.reader, self.cached_features = transform, reader, cached_features
        self.texts = texts
        self.num_views = num_views
        self.num_texts = num_texts if texts is not None else 0
        self.seed = seed
        if unit == "study":
            check_studies(manifest)
            # Study ids may be unique within a patient only.
            studies = manifest.rows.groupby(["patient", "study"], sort=False).indices.values()
            items = [np.sort(rows) for rows in studies]
        else:
            items = [np.array([row]) for row in range(len(manifest))]
        kept = [rows for rows in items if not self.num_texts or (texts is not None and texts.exists(int(rows[0])))]
        self.dropped = len(items) - len(kept)
        if not kept:
            raise DataError(
                f"none of {len(items)} training samples has a text: give a manifest with findings, impression or text, "
                "or texts made from labels by prompts",
                argument="texts",
            )
        self.items: list[np.ndarray] = kept

    def with_features(self, cached: CachedFeatures) -> TrainSet:
        """The same samples with cached features in place of images; this set stays as it is."""
        with_features = copy.copy(self)
        with_features.cached_features = cached
        return with_features

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of a key (epoch, item): images uint8 [V, 1, S, S], or features float32 [V, dim], and T texts.

        Where one of its images cannot be read, another sample of the split stands in for it as a whole, text and labels
        included, with `unreadable_row` set. Which one is a function of (seed, epoch, row), so that any number of
        workers and processes gives the same.

        Raises:
            DataError: none of 16 others can be read either.
        """
        epoch, item = key
        try:
            return self._make(epoch, item)
        except _Unreadable as error:
            first = error
        for other in self._stand_ins(epoch, item):
            try:
                return replace(self._make(epoch, other), unreadable_row=first.line)
            except _Unreadable:
                continue
        raise DataError(
            f"{first}; nor can those of up to {MAX_STAND_INS} other samples be read in its place: look at the folder "
            "of the images"
        )

    def why_unreadable(self, line: int) -> str:
        """Why the image at this row of the CSV, the `unreadable_row` of a sample, cannot be read: it is read again."""
        for path in self.paths[self.lines == line]:  # several where sources were put together
            try:
                self.reader.read(path, self.transform.needed_side_px())
            except ImageError as error:
                return str(error)
        return "it could be read when tried again"

    def _stand_ins(self, epoch: int, item: int) -> list[int]:
        """Other items, in the order in which they are tried."""
        rng = stream(self.seed, STAND_IN, epoch, int(self.items[item][0]))
        drawn = rng.integers(len(self), size=MAX_STAND_INS).tolist()
        return [other for other in dict.fromkeys(drawn) if other != item]

    def _make(self, epoch: int, item: int) -> Sample:
        """The sample itself; _Unreadable where it has an image that cannot be read."""
        rows = self.items[item]
        first = int(rows[0])
        chosen = stream(self.seed, VIEWS, epoch, first).permutation(rows) if len(rows) > 1 else rows
        chosen = np.resize(chosen, self.num_views)  # repeats when the study has too few
        texts = []
        for k in range(self.num_texts):
            assert self.texts is not None
            texts.append(self.texts.draw(first, stream(self.seed, TEXT, epoch, first, k), k))
        labels, line = self.values[first], int(self.lines[first])
        found = [_at_line(self._read, row, self.lines[row]) for row in chosen]
        if self.cached_features is not None:
            return Sample(None, None, texts, labels, line, image_features=np.stack(found), image_rows=chosen)
        streams = [stream(self.seed, IMAGE, epoch, first, view) for view in range(self.num_views)]
        return Sample(*_augmented(self.transform, found, streams), texts, labels, line, image_rows=chosen)

    def _read(self, row: int) -> np.ndarray:
        """The image of a row, uint8 [H, W], or its cached features, float32 [dim]."""
        path = self.paths[row]
        if self.cached_features is None:
            return read_once_hashed(self.reader, path, self.transform.needed_side_px(), self.pixel_hashes, row)
        if path not in self.cached_features:
            raise ImageError("could not be read when images were encoded")
        return self.cached_features[path]


class EvalSet:
    """Every image of a split, fitted without augmentation, with the fixed text of its study where there are texts.

    Args:
        manifest: the rows of the split.
        transform: what happens to each image.
        texts: of these rows; None: samples without texts.
        num_views, num_texts: with more than one, each view is an augmentation of the image and each text a draw, by
            random numbers that depend on the image's place only: what a loss over two views is measured on.
        reader: how images are read.
        pixel_hashes: as of `TrainSet`.
    """

    def __init__(
        self,
        manifest: Manifest,
        transform: RadiographTransform,
        texts: Texts | None,
        num_views: int = 1,
        num_texts: int = 1,
        reader: ImageReader = FULL_SIZE,
        pixel_hashes: torch.Tensor | None = None,
    ) -> None:
        self.paths, self.lines, self.values = manifest.paths, manifest.lines, manifest.values
        self.transform, self.reader, self.texts, self.pixel_hashes = transform, reader, texts, pixel_hashes
        self.num_views, self.num_texts = num_views, num_texts

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of a key (0, row): images uint8 [V, 1, S, S], and T texts."""
        _, row = key
        side = self.transform.needed_side_px(augmented=self.num_views > 1)
        read = partial(read_once_hashed, self.reader, self.paths[row], side, self.pixel_hashes)
        image = _at_line(read, row, self.lines[row])
        if self.num_views == 1:
            images, numbers = self.transform.geometry(image, None)[None, None], None
        else:
            streams = [stream(0, IMAGE, row, view) for view in range(self.num_views)]
            images, numbers = _augmented(self.transform, [image] * self.num_views, streams)
        texts = []
        if self.texts is not None:
            draws = [None] if self.num_texts == 1 else [stream(0, TEXT, row, k) for k in range(self.num_texts)]
            texts = [self.texts.draw(row, rng, k) for k, rng in enumerate(draws)]
        return Sample(images, numbers, texts, self.values[row], int(self.lines[row]))


def new_hashes(count: int) -> torch.Tensor:
    """Room for the hashes of so many images, in memory that worker processes share, however they are started."""
    return torch.full((count,), NOT_READ, dtype=torch.int64).share_memory_()


def read_once_hashed(
    reader: ImageReader, path: str, side_px: int, pixel_hashes: torch.Tensor | None, place: int
) -> np.ndarray:
    """The image at a path, uint8 [H, W]; its hash is laid into `pixel_hashes` at `place`, unless one is there."""
    if pixel_hashes is None:
        return reader.read(path, side_px)
    hashes = pixel_hashes.numpy()  # the same memory, whose single values are reached sooner
    if hashes[place] != NOT_READ:
        return reader.read(path, side_px)
    image, hashes[place] = reader.read_hashed(path, side_px)
    return image


def _at_line(read: Callable[[T], np.ndarray], image: T, line: int) -> np.ndarray:
    """What `read` makes of an image's row or path; _Unreadable with the row of the CSV where that fails."""
    try:
        return read(image)
    except ImageError as error:
        raise _Unreadable(f"image of row {line} of the manifest: {error}", int(line)) from None


def _augmented(
    transform: RadiographTransform, images: Sequence[np.ndarray], streams: Sequence[np.random.Generator]
) -> tuple[np.ndarray, np.ndarray]:
    """A view of each image by its random numbers: uint8 [V, 1, S, S], and the numbers of the device half [V, P]."""
    views = [transform.geometry(image, rng)[None] for image, rng in zip(images, streams, strict=True)]
    return np.stack(views), np.stack([transform.draw(rng) for rng in streams])


def probe_images(
    manifest: Manifest, count: int = 16, max_bad_fraction: float = 0.0, reader: ImageReader = FULL_SIZE
) -> None:
    """Open a few files spread over the manifest, so that a wrong folder is noticed before any work starts.

    Args:
        count: how many to open.
        max_bad_fraction: this share of them, rounded up, may be unreadable in the split train, where other samples
            stand in for them.
        reader: how images are read.

    Raises:
        DataError: the row and the reason.
    """
    read = partial(reader.read, side_px=MIN_SIDE_PX)
    rows, allowed = manifest.rows, math.ceil(max_bad_fraction * count)
    for row in np.unique(np.linspace(0, len(manifest) - 1, count, dtype=int)):
        try:
            _at_line(read, rows["path"].iloc[row], rows["line"].iloc[row])
        except DataError:
            if allowed == 0 or rows["split"].iloc[row] != "train":
                raise
            allowed -= 1
