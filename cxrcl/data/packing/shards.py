"""Packing WebDataset shards into a store (see `cxrcl.data.images.store`).

A shard is a tar file whose members of one name, up to its first dot, are a sample: an image, and a .json, .txt or .cls
member about it. Shards are read once, from the first byte to the last, so that object storage and pipes do.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import re
import tarfile
import warnings
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pandas as pd
from tqdm import tqdm

from cxrcl.data import manifest as manifests
from cxrcl.data.images.archives import MAX_BYTES
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.images.store import VERSION, Store, names_digest
from cxrcl.data.manifest import FILE_NAME, OPTIONAL, REQUIRED
from cxrcl.data.packing import draft as drafts
from cxrcl.data.packing import pack as packing
from cxrcl.data.packing.draft import Draft
from cxrcl.data.packing.pack import Packed, Taken
from cxrcl.data.packing.shard_rows import Rules, SampleError, read_sample
from cxrcl.errors import DataError
from cxrcl.files import replaced

_TRIED = 16  # images of which one has to be readable
_Sample = tuple[bytes, dict[str, str]]  # the file of the image, and the row of the manifest


class PackedShards(NamedTuple):
    packed: Packed
    left_out: Counter[str]  # members and keys that no rule reads, of the shards that this call read


def pack(
    patterns: Sequence[str],
    out: Path,
    read_px: int,
    num_workers: int = 0,
    overwrite: bool = False,
    rules: Rules = Rules(),  # noqa: B008
) -> PackedShards:
    """Pack the images of shards into the folder `out` and make its manifest, or go on behind the last whole shard.

    Args:
        patterns: of files ({000..099}, *) or URLs; `pipe:COMMAND` runs a shell command, so that patterns must come
            from the user and never from a file.
        read_px, overwrite: see `cxrcl.data.packing.pack.pack`.
        num_workers: threads that decode, at least one.
        rules: how members become columns.

    Raises:
        DataError: a shard or a sample cannot be used, by name; or, when the store is whole, a patient is in two splits,
            which can be mended in its manifest.
    """
    if importlib.util.find_spec("webdataset") is None:
        raise DataError("--wds needs the package webdataset: pip install 'cxrcl[wds]'")
    shards = expand(patterns)
    origin = json.dumps([[_shown(shard) for shard in shards], astuple(rules)])
    head = {"version": VERSION, "read_px": read_px, "shards_sha256": hashlib.sha256(origin.encode()).hexdigest()}
    left_out: Counter[str] = Counter()
    store = drafts.whole_store(out, head, overwrite)
    if store is not None:
        return PackedShards(Packed(store, manifests.load(out), 0), left_out)
    with drafts.opened_draft(out, head, overwrite) as draft:
        before = len(draft.entries)
        _append(draft, shards, ImageReader(read_px), num_workers, rules, left_out)
        rows = [entry.row or {} for entry in draft.entries]
        with replaced(out / FILE_NAME) as file:
            file.write(_table(rows, rules).to_csv(index=False, lineterminator="\n").encode())
        draft.finish({**head, "images_sha256": names_digest(row["image"] for row in rows)})
    return PackedShards(Packed(Store(out), manifests.load(out), len(rows) - before), left_out)


def _table(rows: Sequence[Mapping[str, str]], rules: Rules) -> pd.DataFrame:
    names = dict.fromkeys((*rules.classes, *(name for row in rows for name in row)))
    first = [name for name in (*REQUIRED, *OPTIONAL) if name in names]
    return pd.DataFrame(rows, columns=[*first, *(name for name in names if name not in first)]).fillna("")


def _append(
    draft: Draft, shards: Sequence[str], reader: ImageReader, num_workers: int, rules: Rules, left_out: Counter[str]
) -> None:
    """Append the shards that the draft does not have yet; the journal lists each when it is whole."""
    keys = {_key_of(entry.row) for entry in draft.entries if entry.row}
    is_any_readable = any(entry.reason is None for entry in draft.entries)
    threads = max(1, num_workers)
    reason, tried = "", len(draft.entries)
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(threads) as pool,
        tqdm(desc="packing", initial=tried, unit=" images", disable=None, leave=False) as bar,
    ):
        warnings.simplefilter("ignore")  # as reading an image does, whose filters are those of all threads
        for number, shard in enumerate(shards[draft.num_notes :], draft.num_notes + 1):
            bar.set_postfix_str(f"shard {number} of {len(shards)}", refresh=False)
            for image, entry in _decode(_samples(shard, rules, keys, left_out), reader, pool, 2 * threads):
                draft.add(image, entry)
                bar.update()
                tried += 1
                is_any_readable |= image is not None
                reason = reason or entry.reason or ""
                if tried >= _TRIED and not is_any_readable:
                    raise _unreadable(tried, reason)
            draft.note()
    if not tried:
        raise DataError(f"no sample in {len(shards)} shards")
    if not is_any_readable:
        raise _unreadable(tried, reason)


def _unreadable(tried: int, reason: str) -> DataError:
    return DataError(
        f"none of {tried} images tried can be read (the first: {reason}): mend that, then pack again with --overwrite"
    )


def _decoded(reader: ImageReader, sample: _Sample) -> Taken:
    content, row = sample
    return packing.take(reader, io.BytesIO(content), (len(content), zlib.crc32(content)), row)


def _decode(samples: Iterable[_Sample], reader: ImageReader, pool: Executor, ahead: int) -> Iterator[Taken]:
    """The images of samples in their order; no more than `ahead` of them are in memory."""
    waiting: deque[Future[Taken]] = deque()
    for sample in samples:
        waiting.append(pool.submit(_decoded, reader, sample))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


# ------------------------------------------------------------------------------------------------- the shards


def expand(patterns: Sequence[str]) -> list[str]:
    """The shards that patterns name, in their order; those of a * sorted by name.

    Raises:
        DataError: there is no such file, no way to read such a URL, or a shard is named twice.
    """
    from braceexpand import braceexpand
    from webdataset.gopen import gopen_schemes

    shards: list[str] = []
    for pattern in patterns:
        try:
            names = list(braceexpand(pattern, escape=False))
        except ValueError:
            raise DataError(f"--wds {pattern}: unbalanced braces") from None
        for name in names:
            scheme = urlsplit(name).scheme
            if not scheme:
                shards += _files(name)
            elif scheme in gopen_schemes or scheme == "file":
                shards.append(name)
            else:
                raise DataError(
                    f"--wds {name}: {scheme}: is no known kind of URL; a command that prints the shard does: "
                    f"'pipe:COMMAND', such as 'pipe:aws s3 cp s3://BUCKET/SHARD.tar -'"
                )
    twice = [shard for shard, number in Counter(shards).items() if number > 1]
    if twice:
        raise DataError(f"--wds: {_shown(twice[0])} is named twice")
    return shards


def _files(name: str) -> list[str]:
    path = Path(name).expanduser()
    if path.exists() and not path.is_dir():
        return [str(path)]
    files: list[str] = []
    if re.search(r"[*?\[]", name):
        with suppress(ValueError):  # ** beside other characters
            pattern = str(path.relative_to(path.anchor))
            files = sorted(str(file) for file in Path(path.anchor).glob(pattern) if file.is_file())
    if not files:
        raise DataError(f"--wds {name}: no such shard")
    return files


def _shown(shard: str) -> str:
    """The name of a shard without what follows the ? of a URL, which may be a signature, another one each time."""
    return shard.partition("?")[0] if re.match(r"https?:", shard) else shard


class _Header(tarfile.TarInfo):
    """The header of a member. A tar file without its end mark is cut off, an error here: tarfile lets it pass."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _members(shard: str, wanted: set[str], left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    """`fname`, `data` (of wanted suffixes only, else b"") and `__url__` of the members, in their order."""
    from webdataset.gopen import gopen
    from webdataset.tariterators import base_plus_ext

    fault, stream = "", None
    try:
        stream = gopen(shard)
        try:
            with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as archive:
                for member in archive:
                    if member.isdir() or re.match(r"__[^/]*__($|/)", member.name):  # the latter: WebDataset's own
                        continue
                    key, suffix = base_plus_ext(member.name)
                    if key is None or not member.isreg():
                        left_out["members that are links" if key else "members without a suffix"] += 1
                        continue
                    is_wanted = suffix.lower() in wanted
                    if is_wanted and member.size > MAX_BYTES:
                        raise DataError(f"{_shown(shard)}: {member.name} has more than {MAX_BYTES:,} bytes")
                    file = archive.extractfile(member) if is_wanted else None
                    yield {"fname": member.name, "data": file.read() if file else b"", "__url__": shard}
        except tarfile.TarError as error:
            fault = f"no whole tar file ({error}): copy or write it again"
        while stream.read(1 << 20):  # a command that still prints would end with an error when its output is closed
            pass
        stream.close()
    except OSError as error:  # also of a command: its status, which tells more than that the tar file is not whole
        missing = f": {error.filename}" if error.filename not in (None, shard) else ""  # such as curl
        status = getattr(stream, "status", None)
        fault = f"cannot be read ({error.strerror or f'the command ended with {status}'}{missing})"
    finally:
        if stream is not None:
            with suppress(Exception):
                stream.close()
    if fault:
        raise DataError(f"{_shown(shard)}: {fault}")


# ------------------------------------------------------------------------------------------------- the samples


def _samples(shard: str, rules: Rules, keys: set[str], left_out: Counter[str]) -> Iterator[_Sample]:
    """The samples of a shard; their keys are added to `keys`."""
    from webdataset.tariterators import group_by_keys

    groups = group_by_keys(_members(shard, rules.suffixes, left_out))
    while True:
        try:
            sample = next(groups, None)
        except DataError:
            raise
        except ValueError as error:  # `group_by_keys`: two members of one name
            raise DataError(f"{_shown(shard)}: {str(error.args[0]).partition(' dict_keys')[0]}") from None
        if sample is None:
            return
        key = sample["__key__"]
        members = {suffix: data for suffix, data in sample.items() if not suffix.startswith("__")}
        try:
            content, row = read_sample(key, members, rules, left_out)
            if _key_of(row) in keys:
                raise SampleError("stands in these shards twice: give each sample a key of its own")
        except SampleError as fault:
            raise DataError(f"{_shown(shard)}: sample {key!r}: {fault}") from None
        keys.add(_key_of(row))
        yield content, row


def _key_of(row: Mapping[str, str]) -> str:
    return row["image"].rpartition(".")[0]
