"""Sources: where a folder with manifest.csv comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrcl.data import manifest
from cxrcl.data.sources.base import Source
from cxrcl.data.sources.phantom import Phantom


@pytest.mark.parametrize(
    ("given", "folder"),
    [({"root": "~/images"}, "images"), ({"store": "~/store"}, "store"), ({"root": "~/a", "store": "~/b"}, "a")],
    ids=["images", "a store alone", "images and their store"],
)
def test_a_folder_is_a_source_as_it_is(
    given: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    source = Source(**given)
    assert source.prepare() == tmp_path / folder
    assert source.store == (tmp_path / Path(given["store"]).name if "store" in given else None)
    assert list(tmp_path.iterdir()) == []


def test_a_source_without_a_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="root and store: null both, expected a folder with manifest"):
        Source()


def test_each_setting_of_the_phantom_set_has_a_folder_of_its_own(tmp_path: Path) -> None:
    base = {"num_studies": 8, "size_px": 48, "seed": 0}
    changed = [{}, {"num_studies": 9}, {"size_px": 64}, {"seed": 1}]
    assert len({Phantom(str(tmp_path), **{**base, **change}).root for change in changed}) == 4


def test_the_phantom_set_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    source = Phantom(str(tmp_path), num_studies=6, size_px=48)
    folder = source.prepare()
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    data = manifest.load(folder)
    assert data.rows["study"].nunique() == 6 and len(data.labels) == 14
    assert all(Path(path).is_file() for path in data.rows["path"])
    assert source.prepare() == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written
