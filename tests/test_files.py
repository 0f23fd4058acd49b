"""Files are whole or not there, and what a download left in place of a file is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cxrcl.files import download_fault, replaced


def write(path: Path, content: bytes, **options: int) -> None:
    with replaced(path, **options) as file:
        file.write(content)


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write(path, b"old")
    with replaced(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["the writer", "the disk"])
def test_what_fails_leaves_the_earlier_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "a.json"
    write(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    if failing == "the disk":
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), replaced(path) as file:
        file.write(b"half")
        if failing == "the writer":
            full(0)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_file_for_its_owner_alone_is_never_open_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with replaced(tmp_path / "a.csv", mode=0o600):
            (temporary,) = tmp_path.iterdir()
            assert temporary.stat().st_mode & 0o777 == 0o600
        write(tmp_path / "b.csv", b"")
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in sorted(tmp_path.iterdir())] == [0o600, 0o666]


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        (b"", "empty: download it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer: run `git lfs pull` in the folder"),
        (b"<!DOCTYPE html>", "a web page: download it again"),
        (b"\xef\xbb\xbf\n <HTML><body>", "a web page: download it again"),
        (b"<?xml version='1.0'?>", "a web page: download it again"),
        (b"<pad>\n<unk>\nthe\n", None),  # a vocabulary
        (b"PK\x03\x04", None),
        (b'{"version": 1}', None),
    ],
)
def test_what_a_download_left_is_named(head: bytes, fault: str | None) -> None:
    assert download_fault(head) == fault
