"""Packing the films of a manifest into a store (see `cxrcl.data.store`); `cxrcl.data.shards` packs those of shards.

Films are decoded in worker processes and written by this one in the order of the manifest (`cxrcl.data.draft`), so that
a store does not depend on their number.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from cxrcl.data import archives
from cxrcl.data import manifest as manifests
from cxrcl.data.bad_images import Reasons
from cxrcl.data.draft import Draft, Entry, check_folder, check_same, opened_draft
from cxrcl.data.films import Films
from cxrcl.data.loader import Feed
from cxrcl.data.manifest import FILE_NAME, Manifest
from cxrcl.data.pixels import ImageError
from cxrcl.data.store import FILMS, HEAD, JOURNAL, VERSION, Store, names_digest, read_head
from cxrcl.errors import DataError

_BATCH_BYTES = 1 << 22  # of films that a worker sends at a time, about
_PROBED = 16
_NO_SOURCE = (-1, 0)


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
    if overwrite:  # else the old store would be gone before it is known that there is no room for another
        _check_space(out, film_bytes * len(data), films_go=True)
    with opened_draft(out, head, overwrite) as draft:
        new = len(data) - len(draft.entries)
        _check_sources(data, draft.entries, out)
        if not overwrite:
            _check_space(out, film_bytes * new)
        shutil.copyfile(root / FILE_NAME, out / FILE_NAME)
        _write(draft, data, Films(read_px), num_workers)
        draft.finish(head)
    return Packed(Store(out), data, new)


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


def _check_space(out: Path, needed: float, films_go: bool = False) -> None:
    """`films_go`: those that are there make room."""
    free = shutil.disk_usage(out).free
    if films_go and (out / FILMS).exists():
        free += (out / FILMS).stat().st_size
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
