"""A store that is being written (see `cxrcl.data.store`): its films, and the journal of those that are whole.

Each batch that was written is noted in the journal; an interrupted packing goes on behind the last batch whose films
are all on the disk. Index and head are written at the end.
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

from cxrcl.data.manifest import FILE_NAME
from cxrcl.data.store import COLUMNS, FILMS, HEAD, INDEX, JOURNAL
from cxrcl.errors import DataError


class Entry(NamedTuple):
    """A film of the journal."""

    height: int  # 0 where the film cannot be read, as `width` and `crc32`
    width: int
    crc32: int
    source_size: int  # bytes; -1 without a source file
    source_mark: int  # time of change in ns since 1970, or the CRC-32 of a member of a zip file
    reason: str | None  # why the film cannot be read
    row: dict[str, str] | None = None  # of the manifest, where that is made of what comes with the films

    @property
    def size(self) -> int:
        return self.height * self.width


def check_folder(out: Path) -> None:
    """Nothing but a store is ever written over."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: a file stands there: name a folder")
    if out.exists() and any(out.iterdir()) and not (out / HEAD).exists() and not (out / JOURNAL).exists():
        raise DataError(f"{out}: neither empty nor a store: name a new folder")


def check_same(found: dict[str, Any], head: dict[str, Any], out: Path) -> None:
    """Of the head of a store, or of a journal: whether it is that of `head`."""
    if found.get("read_px") != head["read_px"]:
        differ = f"films of {found.get('read_px')} px, not {head['read_px']}"
    elif found.get("shards_sha256") != head.get("shards_sha256"):
        differ = "films of another origin (other shards, other options for them, or a manifest)"
    elif "images_sha256" in head and found.get("images_sha256") != head["images_sha256"]:
        differ = "the films of another manifest, or of one whose rows have changed since"
    else:
        return
    raise DataError(f"{out}: holds {differ}: name another folder, or replace the store with --overwrite")


@dataclass
class Draft:
    """A store that is being written.

    Attributes:
        entries: of the films that are noted in the journal.
        num_notes: lines that note them.
    """

    folder: Path
    journal: BinaryIO
    films: BinaryIO
    entries: list[Entry]
    num_notes: int
    _batch: list[Entry] = field(default_factory=list)

    def add(self, film: np.ndarray | None, entry: Entry) -> None:
        """The next film, uint8 [H, W]; None where it cannot be read."""
        if film is not None:
            self.films.write(film.data)
        self._batch.append(entry)

    def note(self) -> None:
        """An interrupted packing goes on here."""
        self.films.flush()
        self.journal.write(json.dumps(self._batch).encode() + b"\n")
        self.journal.flush()
        self.entries += self._batch
        self.num_notes += 1
        self._batch = []

    def finish(self, head: dict[str, Any]) -> None:
        """Index and head, the latter last; then the journal goes."""
        self.films.flush()
        os.fsync(self.films.fileno())
        index, counts = _columns(self.entries)
        with replaced(self.folder / INDEX) as file:
            np.savez(file, **index)
        with replaced(self.folder / HEAD) as file:
            file.write(json.dumps({**head, **counts}, indent=1).encode() + b"\n")
        (self.folder / JOURNAL).unlink(missing_ok=True)  # another process may have found the whole store first


def _columns(entries: Sequence[Entry]) -> tuple[dict[str, Any], dict[str, int]]:
    """The arrays of the index, and the counts of the head."""
    sizes = np.array([entry.size for entry in entries], dtype=np.int64)
    reasons = sorted({entry.reason for entry in entries if entry.reason is not None})
    number: dict[str | None, int] = {None: -1, **{reason: k for k, reason in enumerate(reasons)}}
    columns: dict[str, Any] = {
        "offset": np.cumsum(sizes) - sizes,
        "height": np.array([entry.height for entry in entries], dtype=np.int32),
        "width": np.array([entry.width for entry in entries], dtype=np.int32),
        "crc32": np.array([entry.crc32 for entry in entries], dtype=np.uint32),
        "source_size": np.array([entry.source_size for entry in entries], dtype=np.int64),
        "source_mark": np.array([entry.source_mark for entry in entries], dtype=np.int64),
        "reason": np.array([number[entry.reason] for entry in entries], dtype=np.int32),
    }
    assert tuple(columns) == COLUMNS
    counts = {
        "films": len(entries),
        "unreadable": sum(entry.reason is not None for entry in entries),
        "bytes": int(sizes.sum()),
    }
    return {**columns, "reasons": np.array(reasons, dtype=np.str_)}, counts


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when it is whole and on the disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# --------------------------------------------------------------------------------------------------- going on


@contextmanager
def opened_draft(out: Path, head: dict[str, Any], overwrite: bool) -> Iterator[Draft]:
    """What a packing goes on with, or a new one.

    Args:
        head: of the store, as far as it is known before; the first line of the journal.
        overwrite: begin anew.

    Raises:
        DataError: the journal is that of another store, or of a process that still runs or has just ended.
    """
    with _opened_journal(out) as journal:
        if (out / HEAD).exists() and not overwrite:  # since this process has looked
            raise DataError(f"{out}: another process has just packed into this folder: give the command again")
        if overwrite:
            for name in (HEAD, INDEX, FILMS, FILE_NAME):  # the head first: without it there is no store
                (out / name).unlink(missing_ok=True)
            journal.truncate(0)
        with (out / FILMS).open("ab+") as films:
            batches = _resume(journal, films, head, out)
            yield Draft(out, journal, films, [entry for batch in batches for entry in batch], len(batches))


@contextmanager
def _opened_journal(out: Path) -> Iterator[BinaryIO]:
    """For this process alone."""
    with (out / JOURNAL).open("ab+") as file:
        try:
            # Unlike flock's, this lock is no part of what workers inherit: it ends with this process, killed or not.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"{out}: another process packs into this folder: wait for it") from None
        file.seek(0)
        yield file


def _resume(journal: BinaryIO, films: BinaryIO, head: dict[str, Any], out: Path) -> list[list[Entry]]:
    """Entries of the batches that are whole; both files are cut behind them. A new journal gets its first line."""
    first = journal.readline()
    if not first.endswith(b"}\n") or journal.tell() == os.fstat(journal.fileno()).st_size:  # nothing is noted yet
        journal.truncate(0)
        films.truncate(0)
        journal.write(json.dumps(head).encode() + b"\n")
        return []
    check_same(json.loads(first), head, out)
    films.seek(0)
    batches: list[list[Entry]] = []
    end = journal.tell()
    lines = iter(journal.readline, b"")
    for line in tqdm(lines, desc="checking", unit=" batches", disable=None, leave=False):
        batch = _whole_batch(line, films)
        if batch is None:
            break
        batches.append(batch)
        end += len(line)
    journal.truncate(end)
    films.truncate(sum(entry.size for batch in batches for entry in batch))
    journal.seek(0, os.SEEK_END)
    films.seek(0, os.SEEK_END)
    return batches


def _whole_batch(line: bytes, films: BinaryIO) -> list[Entry] | None:
    """A line of the journal, if its films follow in `films` as they were written: not so after a loss of power."""
    try:
        batch = [Entry(*values) for values in json.loads(line)]
    except (ValueError, TypeError):
        return None
    if not line.endswith(b"\n"):
        return None
    whole = all(
        zlib.crc32(content) == entry.crc32 and len(content) == entry.size
        for entry in batch
        for content in [films.read(entry.size)]
    )
    return batch if whole else None
