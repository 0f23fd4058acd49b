"""Small downloads for the tests of the readers, and the way from a reader's answer to a manifest that loads."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cxrcl.data import manifest
from cxrcl.data.manifest import Manifest
from cxrcl.data.sources.base import Prepared


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_films(folder: Path, names: Iterable[str]) -> None:
    """Empty files: a reader opens no film."""
    for name in names:
        write(folder / name, "")


def write_zip(path: Path, members: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, b"")


def load(prepared: Prepared, out: Path) -> Manifest:
    """The manifest as it loads from a folder, all of its checks on."""
    out.mkdir(parents=True, exist_ok=True)
    table = prepared.table.assign(image="images/" + prepared.table["image"])
    table.to_csv(out / manifest.FILE_NAME, index=False)
    data = manifest.load(out)
    assert data.labels == prepared.labels
    return data


def column(prepared: Prepared, name: str, by: str = "image") -> dict[str, str]:
    """film -> cell. The film's file name, without folders."""
    return {key.rsplit("/", 1)[-1]: value for key, value in zip(prepared.table[by], prepared.table[name], strict=True)}


def row(prepared: Prepared, film: str) -> Mapping[str, str]:
    """The row of a film, given its file name."""
    found = prepared.table[prepared.table["image"].str.rsplit("/", n=1).str[-1] == film]
    assert len(found) == 1
    return dict(found.iloc[0])


def positives(prepared: Prepared, film: str, value: str = "1") -> Sequence[str]:
    """The labels of a film that have a value."""
    cells = row(prepared, film)
    return [name for name in prepared.labels if cells[name] == value]
