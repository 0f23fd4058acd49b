"""Packing the images of a manifest into a store (see `data.images.store`); `shards` packs those of shards.

Images are decoded in worker processes and written by this one in the order of the manifest (`draft`), so that
a store does not depend on their number.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from cxrcl.data import manifest as manifests
from cxrcl.data.bad_images import Reasons
from cxrcl.data.images import archives
from cxrcl.data.images.pixels import ImageError
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.images.store import IMAGES, IMAGES_OF_VERSION_1, VERSION, Store, names_digest
from cxrcl.data.loader import BatchReader
from cxrcl.data.manifest import FILE_NAME, Manifest
from cxrcl.data.packing.draft import Draft, Entry, opened_draft, whole_store
from cxrcl.errors import DataError

_BATCH_BYTES = 1 << 22  # of images that a worker sends at a time, about
_PROBED = 16
Source = tuple[int, int]  # `source_size` and `source_mark` of an entry
_NO_SOURCE = (-1, 0)
Taken = tuple[np.ndarray | None, Entry]


@dataclass(frozen=True)
class Packed:
    """What packing made.

    Attributes:
        store: the whole store.
        manifest: its rows.
        new: how many images this call packed.
    """

    store: Store
    manifest: Manifest
    new: int

    def unreadable(self) -> Reasons:
        """Place in the store -> why the image there cannot be read."""
        places = np.flatnonzero(self.store.index["reason"] >= 0).tolist()
        return {k: str(self.store.reason(k)) for k in places}


def pack(
    root: Path,
    out: Path,
    read_px: int,
    num_workers: int = 0,
    overwrite: bool = False,
    allow_outside_root: bool = False,
) -> Packed:
    """Pack the images of `root`/manifest.csv into the folder `out`, or go on where an interrupted call ended.

    Args:
        read_px: the shorter side that images are shrunk to.
        num_workers: processes that decode; 0 decodes in this one.
        overwrite: replace a store that is there.
        allow_outside_root: accept image paths that lead out of `root`.

    Raises:
        DataError: a fault of the manifest, another store in `out`, images that changed since they were packed, too
            little space, or no image can be read: one line, before anything is written.
    """
    data = manifests.load(root, (), allow_outside_root, check_patients=False)
    head = {"version": VERSION, "read_px": read_px, "images_sha256": names_digest(data.rows["image"])}
    if out.is_dir() and out.resolve() == root.resolve():
        raise DataError(f"{out}: the folder of the manifest itself: name another one for the store")
    store = whole_store(out, head, overwrite)
    if store is not None:
        sources = [store.index[name].tolist() for name in ("source_size", "source_mark")]
        _check_sources(data, list(zip(*sources, strict=True)), out)
        return Packed(store, data, 0)
    image_bytes = _probe(data, read_px)
    if overwrite:  # checked before the old store is removed
        _check_space(out, image_bytes * len(data), overwrite=True)
    with opened_draft(out, head, overwrite) as draft:
        new = len(data) - len(draft.entries)
        _check_sources(data, [(entry.source_size, entry.source_mark) for entry in draft.entries], out)
        if not overwrite:
            _check_space(out, image_bytes * new)
        shutil.copyfile(root / FILE_NAME, out / FILE_NAME)
        _write(draft, data, read_px, num_workers)
        draft.finish(head)
    return Packed(Store(out), data, new)


# -------------------------------------------------------------------------------------------- the source files


def _source_of(path: str) -> Source:
    inside = archives.split(path)
    try:
        if inside is not None:
            info = archives.find(*inside)[1]
            return info.file_size, info.CRC
        state = Path(path).stat()
        return state.st_size, state.st_mtime_ns
    except (OSError, ValueError):  # ImageError too
        return _NO_SOURCE


def _check_sources(data: Manifest, packed: Sequence[Source], out: Path) -> None:
    """Refuse to go on where files have changed since they were packed."""
    pairs = zip(data.rows["path"], packed)
    bar = tqdm(pairs, total=len(packed), desc="comparing", unit=" images", disable=None, leave=False)
    # A file that is gone is no longer needed.
    changed = [k for k, (path, source) in enumerate(bar) if _source_of(path) not in (source, _NO_SOURCE)]
    if changed:
        raise DataError(
            f"{out}: {len(changed)} of {len(packed)} packed images have changed since, first row "
            f"{data.rows['line'].iloc[changed[0]]}: pack all again with --overwrite"
        )


def _probe(data: Manifest, read_px: int) -> float:
    """The bytes of a packed image, estimated from a few that are spread over the manifest."""
    sizes, reason = [], ""
    for path in data.rows["path"].iloc[np.unique(np.linspace(0, len(data) - 1, _PROBED, dtype=int))]:
        try:
            sizes.append(ImageReader(read_px).read(path).size)
        except ImageError as error:
            reason = reason or str(error)
    if not sizes:
        raise DataError(
            f"none of {min(_PROBED, len(data))} images tried can be read (the first: {reason}): is this "
            "the folder that the paths of the manifest are relative to?"
        )
    return float(np.mean(sizes))


def _check_space(out: Path, needed: float, overwrite: bool = False) -> None:
    """Refuse where `needed` bytes are not free; with `overwrite` the present images make room."""
    free = shutil.disk_usage(out).free
    if overwrite:
        packed = [out / name for name in (IMAGES, IMAGES_OF_VERSION_1)]
        free += sum(file.stat().st_size for file in packed if file.exists())
    if needed > free:
        raise DataError(
            f"{out}: about {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free: name a folder elsewhere, "
            "or a smaller --read-px"
        )


# ----------------------------------------------------------------------------------------------------- writing


def take(reader: ImageReader, file: str | BinaryIO, source: Source, row: dict[str, str] | None = None) -> Taken:
    """An image, uint8 [H, W] or None, and its entry."""
    try:
        image, pixels = reader.read_hashed(file)
    except ImageError as error:
        return None, Entry(0, 0, 0, *source, str(error), row)
    image = np.ascontiguousarray(image)
    height, width = image.shape
    return image, Entry(height, width, zlib.crc32(image.data), *source, None, row, pixels)


def _take_from_disk(reader: ImageReader, path: str) -> Taken:
    source = _source_of(path)  # before the image is read, so that a change in between is noticed later
    return take(reader, path, source)


def _write(draft: Draft, data: Manifest, read_px: int, num_workers: int) -> None:
    """Append the images that the draft does not have yet."""
    take_next = partial(_take_from_disk, ImageReader(read_px))
    step, start = max(1, _BATCH_BYTES // read_px**2), len(draft.entries)
    with (
        closing(BatchReader(num_workers)) as batch_reader,
        tqdm(total=len(data), initial=start, desc="packing", unit=" images", disable=None, leave=False) as bar,
    ):
        for batch in batch_reader.each(take_next, data.paths[start:], step):
            for image, entry in batch:
                draft.add(image, entry)
            draft.note()
            bar.update(len(batch))
