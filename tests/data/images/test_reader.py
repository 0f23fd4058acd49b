"""Images at a size of their own: what `read_px` does, from files and in memory."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from encoded_images import encoded
from PIL import Image

from cxrcl.data.images.image_io import read_gray
from cxrcl.data.images.reader import FULL_SIZE, ImageReader

SMOOTH = cv2.resize(np.random.default_rng(0).integers(0, 256, (20, 25), dtype=np.uint8), (1000, 800), None, 0, 0, 2)


def saved(folder: Path, image: np.ndarray, kind: str = "PNG") -> Path:
    path = folder / f"image.{kind.lower()}"
    path.write_bytes(encoded(image, kind))
    return path


@pytest.mark.parametrize(
    ("size", "expected"),
    [((800, 1000), (64, 80)), ((1000, 800), (80, 64)), ((64, 300), (64, 300)), ((40, 32), (40, 32))],
)
def test_the_shorter_side_is_shrunk_and_never_enlarged(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    assert ImageReader(64).shrink(image).shape == expected
    assert FULL_SIZE.shrink(image) is image


def test_pixels_are_area_averages() -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 126), dtype=np.uint8)
    blocks = image.reshape(32, 3, 42, 3).mean(axis=(1, 3))
    found = ImageReader(32).shrink(image).astype(float)
    assert np.abs(found - blocks).max() <= 0.5


def test_a_file_is_decoded_whole_and_shrunk(tmp_path: Path) -> None:
    path = saved(tmp_path, SMOOTH)
    np.testing.assert_array_equal(ImageReader(64).read(path), ImageReader(64).shrink(SMOOTH))
    np.testing.assert_array_equal(FULL_SIZE.read(path, 16), SMOOTH)


def test_a_large_jpeg_is_close_to_its_full_decoding(tmp_path: Path) -> None:
    path = saved(tmp_path, SMOOTH, "JPEG")
    found, whole = ImageReader(64).read(path).astype(float), ImageReader(64).shrink(read_gray(path)).astype(float)
    assert found.shape == whole.shape and (found != whole).any()
    assert 10 * np.log10(255**2 / np.mean((found - whole) ** 2)) > 50  # dB; an eighth of its size would give 43


def test_the_needed_side_counts_at_full_size_only(tmp_path: Path) -> None:
    path = saved(tmp_path, SMOOTH, "JPEG")
    assert FULL_SIZE.read(path, 100).shape == (100, 125)
    np.testing.assert_array_equal(ImageReader(64).read(path, 700), ImageReader(64).read(path, 16))


def test_an_exif_turned_image_is_shrunk_as_it_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(SMOOTH).save(path, exif=exif)
    assert ImageReader(64).read(path).shape == (80, 64)
