"""Packing: the same files from any number of workers, and what is refused before anything is written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from packed_stores import FILES, PX, content

from cxrcl.data.packing import pack as packing
from cxrcl.data.packing.pack import pack
from cxrcl.errors import DataError


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_any_number_of_workers_gives_the_same_files(tiny_set: Path, tmp_path: Path, small_batches: None) -> None:
    stores = [content(pack(tiny_set, tmp_path / str(n), PX, n).store.folder) for n in (0, 1, 3)]
    assert tuple(stores[0]) == FILES and stores[0] == stores[1] == stores[2]


def test_a_whole_store_is_left_as_it_is(tiny_set: Path, packed: Path) -> None:
    before = content(packed), (packed / "images.u8").stat().st_mtime_ns
    again = pack(tiny_set, packed, PX)
    assert again.new == 0 and (content(packed), (packed / "images.u8").stat().st_mtime_ns) == before


def test_a_set_without_images_is_refused_before_anything_is_written(own_set: Path, tmp_path: Path) -> None:
    shutil.rmtree(own_set / "images")
    with pytest.raises(DataError, match=r"none of 16 images tried can be read \(the first: file not found\)"):
        pack(own_set, tmp_path / "store", PX)
    assert list((tmp_path / "store").iterdir()) == []


def test_nothing_but_a_store_is_written_over(own_set: Path, packed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "images.u8").write_bytes(b"precious")
    for out, reason in (
        (tmp_path / "mine", "neither empty nor a store"),
        (own_set, "the folder of the manifest itself"),
        (own_set / "manifest.csv", "a file stands there"),
    ):
        with pytest.raises(DataError, match=reason):
            pack(own_set, out, PX, overwrite=True)
    assert (tmp_path / "mine" / "images.u8").read_bytes() == b"precious"


def test_other_settings_need_overwrite(own_set: Path, tmp_path: Path, small_batches: None) -> None:
    folder = pack(own_set, tmp_path / "store", PX).store.folder
    with pytest.raises(DataError, match=r"holds images of 24 px, not 20: name another folder, or .* --overwrite"):
        pack(own_set, folder, 20)
    table = pd.read_csv(own_set / "manifest.csv", dtype=str, keep_default_na=False)
    table[1:].to_csv(own_set / "manifest.csv", index=False)
    with pytest.raises(DataError, match="the images of another manifest, or of one whose rows have changed since"):
        pack(own_set, folder, PX)
    assert len(pack(own_set, folder, 20, overwrite=True).store) == 29


def test_images_that_changed_since_are_named(own_set: Path, tmp_path: Path) -> None:
    folder = pack(own_set, tmp_path / "store", PX).store.folder
    os.utime(own_set / "images/3_pa.png", ns=(1, 1))
    with pytest.raises(DataError, match=r"1 of 30 packed images have changed since, first row 7: .* --overwrite"):
        pack(own_set, folder, PX)
    (own_set / "images/3_pa.png").unlink()  # gone: the store is all there is
    assert pack(own_set, folder, PX).new == 0


def test_too_little_space_is_said_before_images_are_packed(
    tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 0))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"about 0\.0 GB are needed and 0\.0 GB are free"):
        pack(tiny_set, tmp_path / "store", PX)
    assert not (tmp_path / "store" / "manifest.csv").exists()


def test_a_store_stays_when_there_is_no_space_for_another(
    tiny_set: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(packed)
    for free, px in ((0, 2 * PX), (len(before["images.u8"]) // 2, PX)):
        usage = shutil._ntuple_diskusage(100, 100, free)  # type: ignore[attr-defined]
        monkeypatch.setattr(packing.shutil, "disk_usage", lambda _, usage=usage: usage)
        if px == PX:  # in the place of images of the same size
            pack(tiny_set, packed, px, overwrite=True)
        else:
            with pytest.raises(DataError, match="are needed"):
                pack(tiny_set, packed, px, overwrite=True)
        assert content(packed) == before


def test_a_store_that_was_finished_in_the_meantime_is_not_begun_again(
    tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, out = packing._probe, tmp_path / "store"

    def meanwhile(*arguments: Any) -> float:
        monkeypatch.setattr(packing, "_probe", probe)
        pack(tiny_set, out, PX)
        return probe(*arguments)

    monkeypatch.setattr(packing, "_probe", meanwhile)
    with pytest.raises(DataError, match="another process has just packed into this folder: give the command again"):
        pack(tiny_set, out, PX)
    assert pack(tiny_set, out, PX).new == 0
