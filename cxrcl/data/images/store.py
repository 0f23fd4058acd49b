"""A packed store: the images of a manifest, decoded and shrunk once, one after the other in one file.

A folder with

- `images.u8`: the pixels of all images, row by row, nothing between them;
- `index.npz`: for image k, which is row k of `manifest.csv`: `offset` (bytes), `height`, `width`, `crc32` of its
  pixels, `source_size` and `source_mark` of the file it came from, and `reason`, the number in `reasons` of why that
  file could not be read, else -1; `pixels`, the hash of its pixels at full size (see `pixel_hash`), which stores of
  an earlier packing do not have;
- `manifest.csv`: the manifest as it was packed, so that the folder is a data set by itself;
- `store.json`: version, `read_px` and counts; written last, so that only whole stores have it.

NumPy alone can read it; `data.packing.pack` writes it. An image has a path as members of zip files have:
`DIR/images.u8!/7`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrcl.data.images.pixel_hash import NONE
from cxrcl.data.images.pixels import ImageError
from cxrcl.data.manifest import FILE_NAME, Manifest
from cxrcl.errors import DataError

VERSION = 2
IMAGES, INDEX, HEAD, JOURNAL = "images.u8", "index.npz", "store.json", "journal.jsonl"
IMAGES_OF_VERSION_1 = "films.u8"  # that version had "films" in its head as well, in place of "images"
COLUMNS = ("offset", "height", "width", "crc32", "source_size", "source_mark", "reason")
PIXELS = "pixels"
_INSIDE = re.compile(rf"(?P<folder>.*)/(?:{IMAGES}|{IMAGES_OF_VERSION_1})!/(?P<number>[0-9]+)", re.DOTALL)


def place(folder: Path, number: int) -> str:
    """The path of an image in a store."""
    return f"{folder}/{IMAGES}!/{number}"


def split(path: str) -> tuple[str, int] | None:
    """The folder of the store and the number of the image that a path leads to; None for a path to a file."""
    match = _INSIDE.fullmatch(path)
    return None if match is None else (match["folder"], int(match["number"]))


def image(folder: str, number: int) -> np.ndarray:
    """uint8 [H, W]. The store is opened once in each process.

    Raises:
        ImageError: it could not be read when the store was packed.
        DataError: the store cannot be used.
    """
    return _opened(folder).image(number)


def pixel_hash(folder: str, number: int) -> int:
    """The hash of the pixels of the file that an image was packed from; `NONE` where the store does not have it."""
    return int(_opened(folder).index[PIXELS][number])


@functools.lru_cache(maxsize=64)
def _opened(folder: str) -> Store:
    return Store(Path(folder))


def names_digest(images: Iterable[str]) -> str:
    """A SHA-256 of the names of images in their order: it tells which images a store holds."""
    return hashlib.sha256("\n".join(images).encode()).hexdigest()


def read_head(folder: Path) -> dict[str, Any]:
    """The content of `store.json`, with the keys of this version.

    Raises:
        DataError: not a whole store, or of another version.
    """
    if (folder / JOURNAL).exists() and not (folder / HEAD).exists():
        raise DataError(f"{folder}: packing has not finished: the same scripts/pack.py command goes on with it")
    try:
        head: dict[str, Any] = json.loads((folder / HEAD).read_text(encoding="utf-8"))
        version = head["version"]
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder}: not a packed store (no {HEAD}); scripts/pack.py makes one") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{folder / HEAD}: damaged: pack the images again") from None
    if version == 1 and "films" in head:
        return {**head, "images": head["films"]}
    if version != VERSION:
        raise DataError(f"{folder}: a store of version {version}, this cxrcl reads {VERSION}: pack the images again")
    return head


def _read_index(folder: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(folder / INDEX) as file:
            index = {name: file[name] for name in (*COLUMNS, "reasons")}
            return {**index, PIXELS: file[PIXELS] if PIXELS in file else np.full(len(index["offset"]), NONE)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{folder / INDEX}: cannot be read ({type(error).__name__}): pack the images again") from None


class Store:
    """The images of a packed store.

    Raises:
        DataError: not a whole store: one line.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.head = read_head(folder)
        self.read_px: int = self.head["read_px"]
        self.index = _read_index(folder)
        self._offsets, self._heights, self._widths, self._reasons = (
            self.index[name] for name in ("offset", "height", "width", "reason")
        )
        file = folder / (IMAGES_OF_VERSION_1 if self.head["version"] == 1 else IMAGES)
        size = file.stat().st_size if file.is_file() else 0
        if size != self.head["bytes"]:
            raise DataError(
                f"{file}: {size:,} bytes, expected {self.head['bytes']:,}: copy it again, or pack the images again"
            )
        sizes = self._heights.astype(np.int64) * self._widths
        ends = np.cumsum(sizes)
        is_whole = len(sizes) == self.head["images"] and len(sizes) > 0 and ends[-1] == size and sizes.min() >= 0
        if not is_whole or not np.array_equal(self._offsets, ends - sizes):
            raise DataError(f"{folder / INDEX}: does not belong to {file.name}: pack the images again")
        self._pixels = np.asarray(np.memmap(file, dtype=np.uint8, mode="r"))  # a plain array is sliced faster

    def __len__(self) -> int:
        return len(self._offsets)

    def reason(self, number: int) -> str | None:
        """Why the image could not be read when the store was packed; None where it could."""
        code = int(self._reasons[number])
        return None if code < 0 else str(self.index["reasons"][code])

    def image(self, number: int) -> np.ndarray:
        """uint8 [H, W], a copy."""
        if number >= len(self):
            raise ImageError("no such image in the packed store")
        if self._reasons[number] >= 0:
            raise ImageError(self.reason(number))
        height, width, start = int(self._heights[number]), int(self._widths[number]), int(self._offsets[number])
        return self._pixels[start : start + height * width].reshape(height, width).copy()

    def damaged(self) -> list[int]:
        """The numbers of images whose pixels differ from their checksum; reads all pixels."""
        sums, ends = self.index["crc32"].tolist(), (*self._offsets[1:].tolist(), len(self._pixels))
        parts = zip(self._offsets.tolist(), ends)
        return [k for k, (start, end) in enumerate(parts) if zlib.crc32(self._pixels[start:end].data) != sums[k]]


def _packed_names(store: Store, manifest: Manifest, root: Path) -> pd.Series:
    """The names of the store's images in its order."""
    file = store.folder / FILE_NAME
    if root.resolve() == store.folder.resolve():
        names = manifest.rows["image"]
    else:
        try:
            table = pd.read_csv(file, dtype=str, keep_default_na=False, usecols=["image"], encoding="utf-8-sig")
            names = table["image"]
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: cannot be read ({type(error).__name__}): pack the images again") from None
    if names_digest(names) != store.head["images_sha256"]:
        raise DataError(
            f"{file}: does not list the images of the store in their order: labels and texts in it may change, rows "
            "may not (a manifest of your own stands in another folder, the root)",
            argument="root",
        )
    return names


def attach(manifest: Manifest, root: Path, folder: Path) -> Manifest:
    """The manifest with paths that lead into a store instead of to files.

    Args:
        root: the folder of the manifest; `folder` itself for a store that is used alone.

    Raises:
        DataError: the store cannot be used, or lacks images of the manifest.
    """
    _opened.cache_clear()  # it may have been packed anew since
    store = _opened(str(folder.absolute()))
    packed = _packed_names(store, manifest, root)
    numbers = pd.Series(np.arange(len(packed)), index=packed.to_numpy()).reindex(manifest.rows["image"]).to_numpy()
    absent = np.flatnonzero(np.isnan(numbers))
    if len(absent):
        raise DataError(
            f"{folder}: {len(absent)} of {len(manifest)} images of {root / FILE_NAME} are not in the store, first row "
            f"{manifest.rows['line'].iloc[absent[0]]}: pack them with `cxrcl pack '{root}' --out '{folder}'"
            f" --read-px {store.read_px} --overwrite`"
        )
    paths = [place(store.folder, number) for number in numbers.astype(int).tolist()]
    return replace(manifest, rows=manifest.rows.assign(path=paths))
