"""Images inside zip files, read in place: `archive.zip!/inside/image.png`."""

from __future__ import annotations

import functools
import os
import re
import zipfile
from pathlib import Path

from cxrcl.data.images.pixels import ImageError

MAX_BYTES = 1 << 30  # of a member, unpacked
_INSIDE = re.compile(r"(?P<archive>.*?\.zip)!/(?P<member>.+)", re.IGNORECASE | re.DOTALL)


def split(path: str) -> tuple[str, str] | None:
    """The zip file and the member that a path leads to; None for a path to a plain file."""
    match = _INSIDE.fullmatch(path)
    return None if match is None else (match["archive"], match["member"])


@functools.lru_cache(maxsize=64)
def _opened(archive: str, changed_ns: int, process: int) -> zipfile.ZipFile:
    """Opened once, since reading the index of a zip file takes long.

    Args:
        changed_ns: time of the last change: a zip file that is replaced is opened anew.
        process: id of this process: processes that shared a handle after a fork would share its position, too.
    """
    return zipfile.ZipFile(archive)


def find(archive: str, member: str) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
    """The opened zip file, and what its index says of a member.

    Raises:
        ImageError: no such zip file or member.
    """
    try:
        file = _opened(archive, Path(archive).stat().st_mtime_ns, os.getpid())
        return file, file.getinfo(member)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError("zip file not found") from None
    except KeyError:
        raise ImageError("no such file inside the zip file") from None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise ImageError("not a whole zip file") from None


def read(archive: str, member: str) -> bytes:
    """The content of a member; its checksum is compared.

    Raises:
        ImageError: no such zip file or member, damaged, encrypted, or above 1 GiB.
    """
    file, info = find(archive, member)
    if info.flag_bits & 1:
        raise ImageError("encrypted inside the zip file: unpack it with its password")
    if info.file_size > MAX_BYTES:
        raise ImageError(f"more than {MAX_BYTES:,} bytes inside the zip file")
    try:
        return file.read(info)
    except NotImplementedError:
        raise ImageError("compressed inside the zip file by a method that Python does not read") from None
    except Exception as error:  # zlib, lzma and bz2 have errors of their own, and the messages may hold names
        reason = "its checksum differs" if "CRC" in str(error) else type(error).__name__
        raise ImageError(f"damaged inside the zip file ({reason})") from None
