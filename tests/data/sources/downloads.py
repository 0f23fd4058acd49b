"""Small downloads for the tests of the readers, and the way from a reader's answer to a manifest that loads."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from encoded_images import dicom, encoded

from cxrcl.data import manifest
from cxrcl.data.manifest import Manifest
from cxrcl.data.sources.base import Prepared

KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".dcm": "DICOM", ".dicom": "DICOM"}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_images(folder: Path, names: Iterable[str]) -> None:
    """Empty files: a reader opens no image."""
    for name in names:
        write(folder / name, "")


def write_zip(path: Path, members: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, b"")


def write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """A CSV, compressed when the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def load(prepared: Prepared, out: Path) -> Manifest:
    """The manifest as training reads it: `prepared` written to a folder and read back, with all checks."""
    out.mkdir()
    table = prepared.table.assign(image="images/" + prepared.table["image"])
    table.to_csv(out / manifest.FILE_NAME, index=False)
    (out / "images").symlink_to(prepared.images.resolve(), target_is_directory=True)
    other = set(prepared.table) - {*manifest.REQUIRED, *manifest.OPTIONAL, *prepared.labels}
    assert not other, f"{other} would be read as labels"
    return manifest.load(out, labels=prepared.labels)


def column(prepared: Prepared, name: str, by: str = "image") -> dict[str, str]:
    """image -> cell. The image's file name, without folders."""
    return {key.rsplit("/", 1)[-1]: value for key, value in zip(prepared.table[by], prepared.table[name], strict=True)}


def row(prepared: Prepared, image: str) -> Mapping[str, str]:
    """The row of an image, given its file name."""
    found = prepared.table[prepared.table["image"].str.rsplit("/", n=1).str[-1] == image]
    assert len(found) == 1
    return dict(found.iloc[0])


def positives(prepared: Prepared, image: str, value: str = "1") -> Sequence[str]:
    """The labels of an image that have a value."""
    cells = row(prepared, image)
    return [name for name in prepared.labels if cells[name] == value]


def random_image(name: str, bits: int = 8) -> bytes:
    """An image in the format of its suffix: 40 x 32 random pixels, others for each name."""
    kind = KINDS[Path(name).suffix.lower()]
    pixels = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 1 << bits, (40, 32))
    dtype = np.uint8 if bits == 8 else np.uint16
    if kind == "DICOM":
        pytest.importorskip("pydicom")
        return dicom(pixels.astype(dtype), BitsStored=bits)
    return encoded(pixels.astype(dtype), kind)


def fill_images(folder: Path, bits: int = 8) -> None:
    """Make images of the empty files below a folder, and of those in its zip files."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in members.items():
                    archive.writestr(
                        name, random_image(name, bits) if name.endswith(tuple(KINDS)) and not content else content
                    )
        elif path.suffix.lower() in KINDS and path.stat().st_size == 0:
            path.write_bytes(random_image(str(path.relative_to(folder)), bits))
