"""Images below a folder, found and missing."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pandas as pd
import pytest

from cxrcl.data.sources import image_files as images
from cxrcl.data.sources.image_files import find_images, find_missing
from cxrcl.errors import DataError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def zipped(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"")
    return path


def test_images_at_any_depth_in_order_and_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.PNG", "a/deep/1.jpeg", "0.png", "notes.txt", "b/._2.png", "__MACOSX/b/2.png", ".cache/3.png")
    assert find_images(tmp_path).tolist() == ["0.png", "a/deep/1.jpeg", "b/2.PNG"]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "set")
    assert find_images(tmp_path / "set").tolist() == ["images/1.png"]


def test_images_in_zip_files_count_unless_they_were_unpacked(tmp_path: Path) -> None:
    zipped(tmp_path / "a" / "images.zip", "x/1.png", "x/2.png", "x/", "__MACOSX/x/1.png", "x/read.me")
    assert find_images(tmp_path).tolist() == ["a/images.zip!/x/1.png", "a/images.zip!/x/2.png"]
    touch(tmp_path, "x/1.png")  # half of them were
    assert find_images(tmp_path).tolist() == ["a/images.zip!/x/2.png", "x/1.png"]
    touch(tmp_path, "a/2.png")
    assert find_images(tmp_path).tolist() == ["a/2.png", "a/images.zip!/x/2.png", "x/1.png"]
    zipped(tmp_path / "b.zip", "set/x/1.png")
    assert find_images(tmp_path).tolist() == ["a/2.png", "a/images.zip!/x/2.png", "x/1.png"]
    (tmp_path / "x" / "1.png").write_bytes(b"another image of that name")
    assert len(find_images(tmp_path)) == 5


def test_no_image_and_half_a_zip_file_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image below it"):
        find_images(tmp_path)
    whole = zipped(tmp_path / "images.zip", "1.png").read_bytes()
    (tmp_path / "images.zip").write_bytes(whole[:-10])
    with pytest.raises(DataError, match=r"images.zip: not a whole zip file"):
        find_images(tmp_path)


def test_missing_images_are_found_in_folders_and_zip_files(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "0.png", "a!/4.png")
    zipped(tmp_path / "b" / "images.zip", "x/2.png", "3.png")
    there = ["a/1.png", "0.png", "a!/4.png", "b/images.zip!/x/2.png", "b/images.zip!/3.png"]
    absent = ["a/9.png", "9.png", "c/1.png", "0.png/1.png", "b/images.zip!/2.png", "b/other.zip!/3.png"]
    asked = pd.Series([*there, *absent], index=range(100, 111))
    num_checked, missing = find_missing(tmp_path, asked)
    assert num_checked == 11 and missing.tolist() == absent and missing.index.tolist() == list(range(105, 111))


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"{folder}/{k}.png" for folder in "ab" for k in range(20)))
    listed = []
    listing = images._listing
    monkeypatch.setattr(images, "_listing", lambda folder, place: listed.append(place) or listing(folder, place))
    assert find_missing(tmp_path, find_images(tmp_path))[1].empty
    assert listed == ["a/", "b/"]


def test_large_sets_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "ALL_BELOW_ROWS", 100)
    monkeypatch.setattr(images, "SAMPLE_ROWS", 30)
    asked = pd.Series([f"{k}.png" for k in range(100)])
    counts = [find_missing(tmp_path, asked[:n], number) for n, number in [(99, None), (100, None), (100, 7), (99, 500)]]
    assert [(number, len(missing)) for number, missing in counts] == [(99, 99), (30, 30), (7, 7), (99, 99)]
    drawn = counts[1][1]
    assert drawn.is_unique and drawn.index.is_monotonic_increasing and drawn.index.max() > 50
    assert find_missing(tmp_path, asked, 0)[0] == 0
