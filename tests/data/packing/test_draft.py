"""A store that is being packed: how it goes on after an interruption, and who may not write into it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packed_stores import PX, as_version_1, content

from cxrcl.data.images.reader import ImageReader
from cxrcl.data.images.store import Store
from cxrcl.data.packing import draft
from cxrcl.data.packing.pack import pack
from cxrcl.errors import DataError

Interrupted = Callable[[int], Path]


@pytest.fixture
def interrupted(tiny_set: Path, tmp_path: Path, small_batches: None, monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    """`interrupted(after)` packs the tiny set until image number `after` is decoded; returns the folder."""

    def run(after: int) -> Path:
        reading, count = ImageReader.read_hashed, iter(range(1000))

        def read(self: ImageReader, *arguments: Any) -> tuple[np.ndarray, int]:
            if next(count) == after:
                raise KeyboardInterrupt
            return reading(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(ImageReader, "read_hashed", read)
            with pytest.raises(KeyboardInterrupt):
                pack(tiny_set, tmp_path / "torn", PX)
        return tmp_path / "torn"

    return run


def tear(folder: Path, images: Callable[[bytes], bytes], journal: Callable[[bytes], bytes]) -> None:
    for name, change in (("images.u8", images), ("journal.jsonl", journal)):
        (folder / name).write_bytes(change((folder / name).read_bytes()))


def as_it_is(data: bytes) -> bytes:
    return data


TORN = {
    "between two batches": (as_it_is, as_it_is),
    "an image half written": (lambda data: data + b"x" * 99, as_it_is),
    "a line half written": (as_it_is, lambda data: data[:-9]),
    "a line half written, and another after it": (as_it_is, lambda data: data[:-9] + b"\n" + data[-90:]),
    "a line of zeros": (as_it_is, lambda data: data[:-9] + b"\0" * 8 + b"\n"),
    "images lost": (lambda data: data[:-700], as_it_is),
    "images of zeros": (lambda data: data[:-700] + bytes(700), as_it_is),
    "nothing but the journal": (lambda _: b"", lambda _: b""),
}


@pytest.mark.parametrize("how", TORN)
def test_packing_goes_on_to_the_same_bytes(tiny_set: Path, tmp_path: Path, interrupted: Interrupted, how: str) -> None:
    whole = content(pack(tiny_set, tmp_path / "whole", PX).store.folder)
    torn = interrupted(11)
    with pytest.raises(DataError, match=r"packing has not finished: the same scripts/pack.py command goes on"):
        Store(torn)
    tear(torn, *TORN[how])
    interrupted(5)  # again, two batches later
    again = pack(tiny_set, torn, PX, 2)
    assert again.new == {"nothing but the journal": 26}.get(how, 18 if "line" in how or "images" in how else 16)
    assert content(again.store.folder) == whole


def test_packing_that_version_1_began_goes_on(tiny_set: Path, tmp_path: Path, interrupted: Interrupted) -> None:
    whole = content(pack(tiny_set, tmp_path / "whole", PX).store.folder)
    again = pack(tiny_set, as_version_1(interrupted(11)), PX)
    assert again.new < 30 and content(again.store.folder) == whole


@pytest.mark.parametrize("failing", ["_columns", "replaced"])
def test_an_interruption_at_the_very_end_loses_nothing(
    tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    whole = content(pack(tiny_set, tmp_path / "whole", PX).store.folder)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(draft, failing, stop)
        with pytest.raises(KeyboardInterrupt):
            pack(tiny_set, tmp_path / "torn", PX)
    again = pack(tiny_set, tmp_path / "torn", PX)
    assert again.new == 0 and content(again.store.folder) == whole


def test_an_unfinished_store_of_other_settings_is_refused(tiny_set: Path, interrupted: Interrupted) -> None:
    torn = interrupted(5)
    with pytest.raises(DataError, match="holds images of 24 px, not 20"):
        pack(tiny_set, torn, 20)
    assert pack(tiny_set, torn, 20, overwrite=True).new == 30


def test_the_unfinished_packing_of_other_settings_stays_as_version_1_left_it(
    tiny_set: Path, interrupted: Interrupted
) -> None:
    torn = as_version_1(interrupted(11))
    before = content(torn)
    with pytest.raises(DataError, match="holds images of 24 px, not 32"):
        pack(tiny_set, torn, PX + 8)
    assert content(torn) == before


def test_two_packings_into_one_folder_are_refused(tiny_set: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store" / "journal.jsonl")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(DataError, match="another process packs into this folder"):
            pack(tiny_set, tmp_path / "store", PX)
        other.communicate(b"\n")
