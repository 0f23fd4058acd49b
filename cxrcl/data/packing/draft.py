"""A store that is being written (see `cxrcl.data.images.store`): its images, and a journal of those that are whole.

The journal gets a line for each batch that was written; an interrupted packing goes on behind the last batch whose
images are all on the disk. Index and head are written at the end.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm

from cxrcl.data.images.pixel_hash import NONE
from cxrcl.data.images.store import COLUMNS, HEAD, IMAGES, IMAGES_OF_VERSION_1, INDEX, JOURNAL, PIXELS, Store, read_head
from cxrcl.data.manifest import FILE_NAME
from cxrcl.errors import DataError
from cxrcl.files import replaced

# Columns of the index that are fields of the entries.
_DTYPES = {"height": "int32", "width": "int32", "crc32": "uint32", "source_size": "int64", "source_mark": "int64"}


class Entry(NamedTuple):
    """An image of the journal."""

    height: int  # 0 where the image cannot be read, as `width` and `crc32`
    width: int
    crc32: int
    source_size: int  # bytes; -1 without a source file
    source_mark: int  # time of change in ns since 1970, or the CRC-32 of a member of a zip file
    reason: str | None  # why the image cannot be read
    row: dict[str, str] | None = None  # of the manifest, where that is made of what comes with the images
    pixels: int = NONE  # the hash of the image's pixels at full size; journals of an earlier version lack it

    @property
    def size(self) -> int:
        return self.height * self.width


def whole_store(out: Path, head: dict[str, Any], overwrite: bool) -> Store | None:
    """The whole store in `out`; None where there is something to pack, into a folder that is there then.

    Raises:
        DataError: `out` holds anything but a store, since nothing else is ever written over, or another store.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: a file stands there: name a folder")
    if out.exists() and any(out.iterdir()) and not (out / HEAD).exists() and not (out / JOURNAL).exists():
        raise DataError(f"{out}: neither empty nor a store: name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    if overwrite or not (out / HEAD).exists():
        return None
    _check_same(read_head(out), head, out)
    (out / JOURNAL).unlink(missing_ok=True)
    return Store(out)


def _check_same(present: dict[str, Any], head: dict[str, Any], out: Path) -> None:
    """Refuse to go on where the head of the present store, or of its journal, is not that of this packing."""
    if present.get("read_px") != head["read_px"]:
        differ = f"images of {present.get('read_px')} px, not {head['read_px']}"
    elif present.get("shards_sha256") != head.get("shards_sha256"):
        differ = "images of another origin (other shards, other options for them, or a manifest)"
    elif "images_sha256" in head and present.get("images_sha256") != head["images_sha256"]:
        differ = "the images of another manifest, or of one whose rows have changed since"
    else:
        return
    raise DataError(f"{out}: holds {differ}: name another folder, or replace the store with --overwrite")


@dataclass
class Draft:
    """A store that is being written.

    Attributes:
        folder: of the store.
        journal, images: the open files.
        entries: the images that the journal lists.
        num_notes: the lines of the journal that list them.
    """

    folder: Path
    journal: BinaryIO
    images: BinaryIO
    entries: list[Entry]
    num_notes: int
    _batch: list[Entry] = field(default_factory=list)

    def add(self, image: np.ndarray | None, entry: Entry) -> None:
        """The next image, uint8 [H, W]; None where it cannot be read."""
        if image is not None:
            self.images.write(image.data)
        self._batch.append(entry)

    def note(self) -> None:
        """Write a line of the journal: an interrupted packing goes on here."""
        self.images.flush()
        self.journal.write(json.dumps(self._batch).encode() + b"\n")
        self.journal.flush()
        self.entries += self._batch
        self.num_notes += 1
        self._batch = []

    def finish(self, head: dict[str, Any]) -> None:
        """Write index and head, the head last, and remove the journal."""
        self.images.flush()
        os.fsync(self.images.fileno())
        index, counts = _columns(self.entries)
        with replaced(self.folder / INDEX) as file:
            np.savez(file, **index)
        with replaced(self.folder / HEAD) as file:
            file.write(json.dumps({**head, **counts}, indent=1).encode() + b"\n")
        (self.folder / JOURNAL).unlink(missing_ok=True)  # another process may have removed it first


def _columns(entries: Sequence[Entry]) -> tuple[dict[str, Any], dict[str, int]]:
    """The arrays of the index, and the counts of the head."""
    sizes = np.array([entry.size for entry in entries], dtype=np.int64)
    reasons = sorted({entry.reason for entry in entries if entry.reason is not None})
    number: dict[str | None, int] = {None: -1, **{reason: k for k, reason in enumerate(reasons)}}
    columns: dict[str, Any] = {
        "offset": np.cumsum(sizes) - sizes,
        **{name: np.array([getattr(entry, name) for entry in entries], dtype) for name, dtype in _DTYPES.items()},
        "reason": np.array([number[entry.reason] for entry in entries], dtype=np.int32),
    }
    assert tuple(columns) == COLUMNS
    counts = {
        "images": len(entries),
        "unreadable": sum(entry.reason is not None for entry in entries),
        "bytes": int(sizes.sum()),
    }
    hashes = np.array([entry.pixels for entry in entries], dtype=np.int64)
    return {**columns, PIXELS: hashes, "reasons": np.array(reasons, dtype=np.str_)}, counts


# --------------------------------------------------------------------------------------------------- going on


@contextmanager
def opened_draft(out: Path, head: dict[str, Any], overwrite: bool) -> Iterator[Draft]:
    """The draft in `out` to go on with, or a new one.

    Args:
        head: of the store, without what only its end tells; the first line of the journal.
        overwrite: begin anew.

    Raises:
        DataError: the journal is that of another store, or of a process that still runs or has just ended.
    """
    with _opened_journal(out) as journal:
        if (out / HEAD).exists() and not overwrite:  # since this process has looked
            raise DataError(f"{out}: another process has just packed into this folder: give the command again")
        if overwrite:
            # The head first: without it there is no store.
            for name in (HEAD, INDEX, IMAGES, IMAGES_OF_VERSION_1, FILE_NAME):
                (out / name).unlink(missing_ok=True)
            journal.truncate(0)
        begun = _check_begun(journal, head, out)
        if (out / IMAGES_OF_VERSION_1).exists():  # an earlier version began this store: what it packed is kept
            (out / IMAGES_OF_VERSION_1).rename(out / IMAGES)
        with (out / IMAGES).open("ab+") as images:
            batches = _resume(journal, images) if begun else _begin(journal, images, head)
            yield Draft(out, journal, images, [entry for batch in batches for entry in batch], len(batches))


@contextmanager
def _opened_journal(out: Path) -> Iterator[BinaryIO]:
    """The journal, locked for this process alone."""
    with (out / JOURNAL).open("ab+") as file:
        try:
            # Unlike flock's, this lock is no part of what workers inherit: it ends with this process, killed or not.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"{out}: another process packs into this folder: wait for it") from None
        file.seek(0)
        yield file


def _check_begun(journal: BinaryIO, head: dict[str, Any], out: Path) -> bool:
    """Whether the journal notes a batch; refuse that of another packing, before anything in `out` changes."""
    first = journal.readline()
    if not first.endswith(b"}\n") or journal.tell() == os.fstat(journal.fileno()).st_size:
        return False
    _check_same(json.loads(first), head, out)
    return True


def _begin(journal: BinaryIO, images: BinaryIO, head: dict[str, Any]) -> list[list[Entry]]:
    """No batch yet: both files anew, the journal with its first line."""
    journal.truncate(0)
    images.truncate(0)
    journal.write(json.dumps(head).encode() + b"\n")
    return []


def _resume(journal: BinaryIO, images: BinaryIO) -> list[list[Entry]]:
    """The entries of the batches that are whole, read behind the journal's first line; cut both files behind them."""
    images.seek(0)
    batches: list[list[Entry]] = []
    end = journal.tell()
    lines = iter(journal.readline, b"")
    for line in tqdm(lines, desc="checking", unit=" batches", disable=None, leave=False):
        batch = _whole_batch(line, images)
        if batch is None:
            break
        batches.append(batch)
        end += len(line)
    journal.truncate(end)
    images.truncate(sum(entry.size for batch in batches for entry in batch))
    journal.seek(0, os.SEEK_END)
    images.seek(0, os.SEEK_END)
    return batches


def _whole_batch(line: bytes, images: BinaryIO) -> list[Entry] | None:
    """The entries of a line of the journal; None unless its images follow in `images`: a power cut may lose some."""
    try:
        batch = [Entry(*values) for values in json.loads(line)]
    except (ValueError, TypeError):
        return None
    if not line.endswith(b"\n"):
        return None
    whole = all(
        zlib.crc32(content) == entry.crc32 and len(content) == entry.size
        for entry in batch
        for content in [images.read(entry.size)]
    )
    return batch if whole else None
