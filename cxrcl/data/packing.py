"""Packing the films of a manifest into a store (see `cxrcl.data.store`); `cxrcl.data.shards` packs those of shards.

Films are decoded in worker processes and written by this one in the order of the manifest, so that a store does not
depend on their number. Each batch that was written is noted in a journal; an interrupted packing goes on behind the
last batch whose films are all on the disk.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm

from cxrcl.data import archives
from cxrcl.data import manifest as manifests
from cxrcl.data.bad_images import Reasons
from cxrcl.data.films import Films
from cxrcl.data.loader import Feed
from cxrcl.data.manifest import FILE_NAME, Manifest
from cxrcl.data.pixels import ImageError
from cxrcl.data.store import COLUMNS, FILMS, HEAD, INDEX, JOURNAL, VERSION, Store, names_digest, read_head
from cxrcl.errors import DataError

_BATCH_BYTES = 1 << 22  # of films that a worker sends at a time, about
_PROBED = 16
_NO_SOURCE = (-1, 0)


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


@dataclass(frozen=True)
class Packed:
    """What `pack` leaves: the store, rows that were packed by this call, and films that cannot be read, by place."""

    store: Store
    manifest: Manifest
    new: int

    def unreadable(self) -> Reasons:
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
    """Pack the films of `root`/manifest.csv into the folder `out`, or go on with that.

    Args:
        read_px: the shorter side that films are shrunk to.
        num_workers: processes that decode; 0 decodes in this one.
        overwrite: replace a store that is there.

    Raises:
        DataError: a fault of the manifest, another store in `out`, films that changed since they were packed, too
            little space, or no film can be read: one line, before anything is written.
    """
    data = manifests.load(root, (), allow_outside_root, check=False)
    head = {"version": VERSION, "read_px": read_px, "images_sha256": names_digest(data.rows["image"])}
    if out.is_dir() and out.resolve() == root.resolve():
        raise DataError(f"{out}: the folder of the manifest itself: name another one for the store")
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    if (out / HEAD).exists() and not overwrite:
        return _complete(out, head, data)
    film_bytes = _probe(data, read_px)
    with opened_draft(out, head, overwrite) as draft:
        new = len(data) - len(draft.entries)
        _check_sources(data, draft.entries, out)
        _check_space(out, film_bytes * new)
        shutil.copyfile(root / FILE_NAME, out / FILE_NAME)
        _write(draft, data, Films(read_px), num_workers)
        draft.finish(head)
    return Packed(Store(out), data, new)


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


def _complete(out: Path, head: dict[str, Any], data: Manifest) -> Packed:
    """A whole store that is there."""
    check_same(read_head(out), head, out)
    (out / JOURNAL).unlink(missing_ok=True)
    store = Store(out)
    columns = [store.index[name].tolist() for name in ("height", "width", "crc32", "source_size", "source_mark")]
    _check_sources(data, [Entry._make((*values, None, None)) for values in zip(*columns, strict=True)], out)
    return Packed(store, data, 0)


# -------------------------------------------------------------------------------------------- the source files


def _source_state(path: str) -> tuple[int, int]:
    """`source_size` and `source_mark` of a film."""
    inside = archives.split(path)
    try:
        if inside is not None:
            info = archives.find(*inside)[1]
            return info.file_size, info.CRC
        state = Path(path).stat()
        return state.st_size, state.st_mtime_ns
    except (OSError, ValueError):  # ImageError too
        return _NO_SOURCE


def _check_sources(data: Manifest, entries: Sequence[Entry], out: Path) -> None:
    paths = data.rows["path"].tolist()[: len(entries)]
    states = (_source_state(path) for path in paths)  # a file that is gone is no longer needed
    pairs = tqdm(zip(states, entries), total=len(entries), desc="comparing", unit=" films", disable=None, leave=False)
    changed = [k for k, (state, entry) in enumerate(pairs) if state not in (entry[3:5], _NO_SOURCE)]
    if changed:
        raise DataError(
            f"{out}: {len(changed)} of {len(entries)} packed films have changed since, first row "
            f"{data.rows['line'].iloc[changed[0]]}: pack all again with --overwrite"
        )


def _probe(data: Manifest, read_px: int) -> float:
    """Bytes that a packed film takes, about, by some that are spread over the manifest."""
    sizes, reason = [], ""
    for path in data.rows["path"].iloc[np.unique(np.linspace(0, len(data) - 1, _PROBED, dtype=int))]:
        try:
            sizes.append(Films(read_px).read(path).size)
        except ImageError as error:
            reason = reason or str(error)
    if not sizes:
        raise DataError(
            f"none of {min(_PROBED, len(data))} films tried can be read (the first: {reason}): is this "
            "the folder that the paths of the manifest are relative to?"
        )
    return float(np.mean(sizes))


def _check_space(out: Path, needed: float) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise DataError(
            f"{out}: about {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free: name a folder elsewhere, "
            "or a smaller --read-px"
        )


# ----------------------------------------------------------------------------------------------------- writing


Taken = tuple[np.ndarray | None, Entry]


def take(films: Films, file: str | BinaryIO, source: tuple[int, int], row: dict[str, str] | None = None) -> Taken:
    """A film, uint8 [H, W] or None, and its entry.

    Args:
        source: `source_size` and `source_mark` of the entry.
    """
    try:
        film = np.ascontiguousarray(films.read(file))
    except ImageError as error:
        return None, Entry(0, 0, 0, *source, str(error), row)
    height, width = film.shape
    return film, Entry(height, width, zlib.crc32(film.data), *source, None, row)


class _Reading:
    """The films and their entries, by place in the manifest."""

    def __init__(self, paths: np.ndarray, films: Films) -> None:
        self.paths, self.films = paths, films

    def __getitem__(self, key: tuple[int, int]) -> Taken:
        path = str(self.paths[key[1]])
        source = _source_state(path)  # before it is read: a change in between is noticed later
        return take(self.films, path, source)


def _write(draft: Draft, data: Manifest, how: Films, num_workers: int) -> None:
    """Append the films that are missing."""
    assert how.read_px is not None
    step, start = max(1, _BATCH_BYTES // how.read_px**2), len(draft.entries)
    keys = [[(0, place) for place in range(k, min(k + step, len(data)))] for k in range(start, len(data), step)]
    feed = Feed(num_workers)
    collate: Any = list
    batches: Any = feed.batches(_Reading(data.rows["path"].to_numpy(dtype=str), how), keys, collate)
    bar = tqdm(total=len(data), initial=start, desc="packing", unit=" films", disable=None, leave=False)
    try:
        with bar:
            for batch in batches:
                for film, entry in batch:
                    draft.add(film, entry)
                draft.note()
                bar.update(len(batch))
    finally:
        feed.close()


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
        (self.folder / JOURNAL).unlink()


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
        DataError: the journal is that of another store, or of a process that still runs.
    """
    with _opened_journal(out) as journal:
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
