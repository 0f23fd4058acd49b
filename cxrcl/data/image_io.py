"""Reading a radiograph: any common file -> one grey channel, uint8 [H, W].

Range rule: 8-bit grey is left as it is. Deeper files (16-bit, 32-bit, float) are scaled by their own minimum and
maximum: Pillow's own conversion to 8 bit clips at 255, which turns a 16-bit film white.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")
MIN_SIDE_PX = 16
MAX_PIXELS = 150_000_000
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")


class ImageError(ValueError):
    """A file that cannot be read as a radiograph. The message never holds the file's name (it may name a person)."""


def _describe(path: Path) -> str:
    """What a file that is not an image seems to be."""
    with path.open("rb") as file:
        head = file.read(132)
    if not head:
        return "empty file"
    if head.lstrip()[:1] == b"<":
        return "not an image: it starts like a web page"
    if head.startswith(b"version https://git-lfs"):
        return "not an image: a git-lfs pointer (run `git lfs pull`)"
    if head[128:132] == b"DICM":
        return "a DICOM file: convert it to PNG first"
    return "not an image in a known format"


def _to_uint8(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        raise ImageError("no finite pixel")
    low, high = float(values[finite].min()), float(values[finite].max())
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    scaled = (np.where(finite, values, low) - low) * (255.0 / (high - low))
    return np.rint(scaled).astype(np.uint8)


def _grey(image: Image.Image) -> np.ndarray:
    if image.mode in _DEEP_MODES:
        return _to_uint8(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L"))


def read_gray(path: str | Path, smallest_side_px: int | None = None) -> np.ndarray:
    """Read a film.

    Args:
        path: PNG, JPEG, TIFF and what else Pillow reads; EXIF orientation is applied, alpha laid on black.
        smallest_side_px: the shorter side that is needed. A JPEG may then be decoded at 1/2, 1/4 or 1/8 of its size,
            never below this.

    Returns:
        uint8 [H, W].

    Raises:
        ImageError: missing, empty, truncated, not an image, below 16 px a side or above 150 million pixels.
    """
    path = Path(path)
    if not path.exists():
        raise ImageError("file not found")
    if not path.is_file():
        raise ImageError("not a regular file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is an error below; damaged EXIF and the like does not
            with Image.open(path) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ImageError(f"{width} x {height} px is more than {MAX_PIXELS:,} pixels")
                if min(width, height) < MIN_SIDE_PX:
                    raise ImageError(f"{width} x {height} px: a side is below {MIN_SIDE_PX} px")
                if smallest_side_px is not None and image.format == "JPEG":
                    wanted = smallest_side_px / min(width, height)
                    image.draft(None, (int(np.ceil(width * wanted)), int(np.ceil(height * wanted))))
                return _grey(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(_describe(path)) from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except (OSError, SyntaxError, ValueError) as error:
        reason = "the file is truncated" if "truncated" in str(error) else f"damaged file ({type(error).__name__})"
        raise ImageError(reason) from None
