"""Reading a radiograph: any common file -> one grey channel, uint8 [H, W].

Range rule: 8-bit grey is left as it is. Deeper files (16-bit, 32-bit, float) are scaled by their own minimum and
maximum: Pillow's own conversion to 8 bit clips at 255, which turns a 16-bit image white. DICOM files have a rule of
their own, see `cxrcl.data.images.dicom`.
"""

from __future__ import annotations

import io
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from cxrcl.data.images import archives, dicom
from cxrcl.data.images.pixel_hash import NONE, pixel_hash
from cxrcl.data.images.pixels import MAX_PIXELS, ImageError, check_size, luminance, to_uint8
from cxrcl.files import download_fault

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".bmp", ".gif", ".webp"),
    *(".dcm", ".dicom", ".npy"),
)
# Not all that Pillow knows: some of its formats start other programs.
_FORMATS = ("PNG", "JPEG", "JPEG2000", "TIFF", "BMP", "GIF", "WEBP", "PPM")
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_ORIENTATION = 0x0112  # of EXIF
_NPY, _JPEG = b"\x93NUMPY", b"\xff\xd8\xff"
T = TypeVar("T")


def read_gray(path: str | Path | BinaryIO, smallest_side_px: int | None = None) -> np.ndarray:
    """Read an image. Its content decides on its format, whatever its name.

    Args:
        path: PNG, JPEG, JPEG 2000, TIFF, BMP, GIF, WebP, PPM, DICOM or NumPy's .npy; or `archive.zip!/inside/a.png`.
            Or an open file. EXIF orientation is applied, alpha is put on black, colours become luminance; the first of
            several pages or frames is read.
        smallest_side_px: the shorter side that is needed. A JPEG may then be decoded at 1/2, 1/4 or 1/8 of its size,
            never below this.

    Returns:
        uint8 [H, W].

    Raises:
        ImageError: missing, empty, truncated, not an image, below 16 px a side or above 150 million pixels.
    """
    return _read(path, partial(_decode, smallest_side_px=smallest_side_px))


def read_hashed(path: str | Path | BinaryIO, smallest_side_px: int | None = None) -> tuple[np.ndarray, int]:
    """What `read_gray` gives, and the hash of the image's pixels at full size (see `pixel_hash`).

    A JPEG that `smallest_side_px` lets be decoded at less than its size is decoded in full as well: one copied to
    another format has the same hash, whatever either of them is read at.
    """

    def decode(file: BinaryIO, head: bytes) -> tuple[np.ndarray, int]:
        image = _decode(file, head, smallest_side_px)
        file.seek(0)
        if not _is_reduced(file, head, image):
            return image, pixel_hash(image)
        try:
            return image, pixel_hash(_decode(file, head, None))
        except Exception:  # which images can be read does not depend on whether they are hashed
            return image, NONE

    return _read(path, decode)


def _read(path: str | Path | BinaryIO, decode: Callable[[BinaryIO, bytes], T]) -> T:
    """What `decode` makes of an opened file and its first 256 bytes; an ImageError whatever it raises."""
    with _opened(path) as file:
        head = file.read(256)
        file.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # faults that matter are errors below; damaged EXIF and the like do not
                return decode(file, head)
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise ImageError(_describe(head)) from None
        except Image.DecompressionBombError:
            raise ImageError(f"more than {MAX_PIXELS:,} pixels") from None
        except Exception as error:  # decoders answer damaged bytes with errors of any class
            reason = "the file is truncated" if "truncated" in str(error) else f"damaged file ({type(error).__name__})"
            raise ImageError(reason) from None


def _decode(file: BinaryIO, head: bytes, smallest_side_px: int | None) -> np.ndarray:
    if dicom.is_dicom(head):
        return dicom.read(file)
    if head.startswith(_NPY):
        return grey(_load_npy(file))
    return _read_with_pillow(file, smallest_side_px)


def _is_reduced(file: BinaryIO, head: bytes, image: np.ndarray) -> bool:
    """Whether a JPEG was decoded at less than its size; reads no more than its header, and rewinds the file."""
    if not head.startswith(_JPEG):
        return False
    with Image.open(file, formats=_FORMATS) as opened:
        size = opened.size
    file.seek(0)
    return sorted(size) != sorted(image.shape)  # sorted: EXIF may have turned it


def grey(image: Image.Image | np.ndarray) -> np.ndarray:
    """An image in memory -> uint8 [H, W], by the range rule above.

    Args:
        image: a Pillow image, whose EXIF orientation is applied, or numbers [H, W].

    Raises:
        ImageError: not such an array, damaged (Pillow decodes here what was opened before), or a side below 16 px.
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 2 or image.dtype.kind not in "buif" or image.dtype.itemsize > 8:
            raise ImageError(f"expected a 2-D array of numbers, found {image.dtype} {list(image.shape)}")
        check_size(image.shape[1], image.shape[0])
        return image if image.dtype == np.uint8 else to_uint8(image)
    try:
        check_size(*image.size)
        return _one_channel(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"damaged image ({type(error).__name__})") from None


@contextmanager
def _opened(path: str | Path | BinaryIO) -> Iterator[BinaryIO]:
    if not isinstance(path, str | Path):
        yield path
        return
    path = str(path)
    inside = archives.split(path)
    if inside is not None:
        yield io.BytesIO(archives.read(*inside))
        return
    try:
        if "\0" in path:
            raise FileNotFoundError
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe would wait for ever
            raise ImageError("not a regular file")
        with Path(path).open("rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError("file not found") from None
    except OSError as error:
        raise ImageError(f"the file cannot be read ({type(error).__name__})") from None


def _read_with_pillow(file: BinaryIO, smallest_side_px: int | None) -> np.ndarray:
    with Image.open(file, formats=_FORMATS) as image:
        width, height = image.size
        check_size(width, height)
        if smallest_side_px is not None and image.format == "JPEG":
            wanted = smallest_side_px / min(width, height)
            image.draft(None, (int(np.ceil(width * wanted)), int(np.ceil(height * wanted))))
        if image.format == "TIFF" and max(tile.extents[3] for tile in image.tile if tile.extents) < height:
            raise ImageError("the file is truncated")  # strips are missing; Pillow would leave them black
        if image.mode not in ("RGB", "RGBA") or ";16" not in _layout(image):
            ImageOps.exif_transpose(image, in_place=True)  # else it is copied even where there is nothing to turn
            return _one_channel(image)
        upright = Image.fromarray(_deep_luminance(image, file))
        upright.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
        return _one_channel(ImageOps.exif_transpose(upright))


def _one_channel(image: Image.Image) -> np.ndarray:
    """uint8 [H, W]."""
    if image.mode in _DEEP_MODES:
        return to_uint8(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return np.asarray(image if image.mode == "L" else image.convert("L"))


def _layout(image: ImageFile.ImageFile) -> str:
    """How the file stores pixels, as Pillow names it, such as `RGB;16B`."""
    arguments = image.tile[0].args if image.tile else ""
    return str(arguments if isinstance(arguments, str) or not arguments else arguments[0])


def _deep_luminance(image: ImageFile.ImageFile, file: BinaryIO) -> np.ndarray:
    """An opened file with 16 bits a colour -> float32 [H, W], alpha laid on black.

    Pillow keeps the upper byte of each colour. With the other byte order it keeps the lower one.
    """
    layout = _layout(image)
    last_is_high = not layout.endswith("B") and (layout.endswith("L") or sys.byteorder == "little")
    halves = []
    for order in ("B", "L"):
        file.seek(0)
        with Image.open(file, formats=_FORMATS) as half:
            for k, tile in enumerate(half.tile):
                other = f"{layout[:-1]}{order}"
                arguments = other if isinstance(tile.args, str) else (other, *(tile.args or ())[1:])
                half.tile[k] = tile._replace(args=arguments)
            halves.append(np.asarray(half).astype(np.float32))
    low, high = halves if last_is_high else halves[::-1]
    values = high * 256 + low
    return luminance(values[..., :3]) * (values[..., 3] / 65535 if values.shape[2] == 4 else 1)


def _load_npy(file: BinaryIO) -> np.ndarray:
    """Numbers [H, W]; an axis of length 1 before or after them is dropped. `np.load` would allocate what a damaged
    header claims."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ImageError("a .npy file of structured numbers, expected a 2-D array")
    shape, by_columns, dtype = readers[version](file)
    if dtype.hasobject:
        raise ImageError("a .npy file of Python objects, expected a 2-D array of numbers")
    sides = shape
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        sides = shape[1:] if shape[0] == 1 else shape[:2]
    if len(sides) != 2:
        raise ImageError(f"a .npy file of shape {list(shape)}, expected [height, width]")
    check_size(sides[1], sides[0])
    content = file.read(sides[0] * sides[1] * dtype.itemsize)
    if len(content) < sides[0] * sides[1] * dtype.itemsize:
        raise ImageError("the file is truncated")
    return np.frombuffer(content, dtype=dtype).reshape(sides, order="F" if by_columns else "C")


def _describe(head: bytes) -> str:
    """What a file seems to be that is not an image, by its first bytes."""
    if not head:
        return "empty file"
    if fault := download_fault(head):
        return f"not an image but {fault}"
    if head.startswith(_JPEG):
        return "a JPEG that cannot be decoded: damaged, lossless or of more than 8 bits (convert the latter to PNG)"
    return "not an image in a known format"
