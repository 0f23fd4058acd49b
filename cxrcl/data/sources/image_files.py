"""Lists the images below a folder and looks for those that a table names. No image is opened."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from cxrcl.data.images.image_io import SUFFIXES
from cxrcl.errors import DataError

IN_ZIP = "!/"  # archive.zip!/inside/image.png
ALL_BELOW_ROWS = 50_000
SAMPLE_ROWS = 2_000


def find_images(folder: Path) -> pd.Series:
    """Paths of the images below a folder, relative to it, '/' between the parts, sorted.

    An image in a zip file counts where it does not lie outside of it as well, under the same path and of the same size:
    a zip file is often kept beside what was taken out of it.

    Raises:
        DataError: there is none.
    """
    loose, packed = list_images(folder)
    outside = set(loose)
    endings: dict[str, list[str]] = {}
    for path in loose:
        for ending in _endings(path):
            endings.setdefault(ending, []).append(path)

    def is_unpacked(path: str, size: int) -> bool:
        inside = path.split(IN_ZIP, 1)[1]
        places = [*endings.get(inside, []), *outside.intersection(_endings(inside))]
        return any((folder / place).stat().st_size == size for place in places)

    images = sorted([*loose, *(path for path, size in packed.items() if not is_unpacked(path, size))])
    if not images:
        raise DataError(
            f"{folder}: no image below it: expected files that end in {', '.join(SUFFIXES)}, or in zip files"
        )
    return pd.Series(images, dtype=str)


def list_images(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Images that lie below a folder as files of their own; those in its zip files, with their sizes in bytes. Sorted.

    Links to folders are followed. Hidden files and `__MACOSX` are left out: macOS puts a `._a.jpeg` that is no image
    beside each image.
    """
    paths = sorted(tqdm(walk(folder), desc="images", unit="", disable=None, leave=False))
    loose = [path for path in paths if path.lower().endswith(SUFFIXES)]
    packed: dict[str, int] = {}
    for archive in (path for path in paths if path.lower().endswith(".zip")):
        members = sorted(_members(folder / archive).items())
        images = ((name, size) for name, size in members if name.lower().endswith(SUFFIXES) and not _is_hidden(name))
        packed |= {f"{archive}{IN_ZIP}{name}": size for name, size in images}
    return loose, packed


def _endings(path: str) -> list[str]:
    """`a/b/c.png` -> a/b/c.png, b/c.png, c.png."""
    parts = path.split("/")
    return ["/".join(parts[k:]) for k in range(len(parts))]


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def walk(folder: Path, prefix: str = "", seen: set[tuple[int, int]] | None = None) -> Iterator[str]:
    """Files below a folder, relative to it and behind `prefix`, in no order; `seen` are folders not to list again."""
    seen = set() if seen is None else seen
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_hidden(entry.name):
                continue
            if entry.is_dir():
                yield from walk(Path(entry.path), f"{prefix}{entry.name}/", seen)
            elif entry.is_file():
                yield prefix + entry.name


def _members(archive: Path) -> dict[str, int]:
    """What a zip file's index lists, with sizes in bytes."""
    try:
        with zipfile.ZipFile(archive) as file:
            return {member.filename: member.file_size for member in file.infolist()}
    except zipfile.BadZipFile:
        raise DataError(f"{archive}: not a whole zip file: download it again") from None


def find_missing(folder: Path, images: pd.Series, num_checked: int | None = None) -> tuple[int, pd.Series]:
    """Which images are not below a folder.

    Args:
        images: paths relative to `folder`, in zip files too.
        num_checked: look for this many, drawn at random (always the same ones); None looks for all of fewer than
            50,000 images, else for 2,000.

    Returns:
        How many were looked for, and those that are missing (a part of `images`, its index kept).
    """
    if num_checked is None:
        num_checked = len(images) if len(images) < ALL_BELOW_ROWS else SAMPLE_ROWS
    if num_checked < len(images):
        drawn = np.random.Generator(np.random.Philox(0)).permutation(len(images))[:num_checked]
        images = images.iloc[np.sort(drawn)]
    if images.empty:
        return 0, images
    # One listing of a folder answers for all images in it: a call for each image is slow on network disks.
    parts = images.str.extract(r"^(?P<place>(?i:.*?\.zip)!/|(?:.*/)?)(?P<name>.*)$")
    is_there = pd.Series(False, index=images.index)
    groups = parts["name"].groupby(parts["place"])
    for place, names in tqdm(groups, desc="checking images", unit=" folders", disable=None, leave=False):
        is_there[names.index] = names.isin(_listing(folder, str(place)))
    return len(images), images[~is_there]


def _listing(folder: Path, place: str) -> list[str]:
    """Names in a folder or a zip file; none where it is missing."""
    if place.lower().endswith(f".zip{IN_ZIP}"):
        archive = folder / place.removesuffix(IN_ZIP)
        return list(_members(archive)) if archive.is_file() else []
    try:
        return [entry.name for entry in (folder / place).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
