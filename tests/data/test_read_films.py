"""Films at a size of their own: what `read_px` does, from files and in memory."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from film_files import encoded
from PIL import Image

from cxrcl.data.films import FULL_SIZE, Films
from cxrcl.data.image_io import read_gray

SMOOTH = cv2.resize(np.random.default_rng(0).integers(0, 256, (20, 25), dtype=np.uint8), (1000, 800), None, 0, 0, 2)


def saved(folder: Path, film: np.ndarray, kind: str = "PNG") -> Path:
    path = folder / f"film.{kind.lower()}"
    path.write_bytes(encoded(film, kind))
    return path


@pytest.mark.parametrize(
    ("size", "expected"),
    [((800, 1000), (64, 80)), ((1000, 800), (80, 64)), ((64, 300), (64, 300)), ((40, 32), (40, 32))],
)
def test_the_shorter_side_is_shrunk_and_never_enlarged(size: tuple[int, int], expected: tuple[int, int]) -> None:
    film = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    assert Films(64).shrink(film).shape == expected
    assert FULL_SIZE.shrink(film) is film


def test_pixels_are_area_averages() -> None:
    film = np.random.default_rng(0).integers(0, 256, (96, 126), dtype=np.uint8)
    blocks = film.reshape(32, 3, 42, 3).mean(axis=(1, 3))
    found = Films(32).shrink(film).astype(float)
    assert np.abs(found - blocks).max() <= 0.5


def test_a_file_is_decoded_whole_and_shrunk(tmp_path: Path) -> None:
    path = saved(tmp_path, SMOOTH)
    np.testing.assert_array_equal(Films(64).read(path), Films(64).shrink(SMOOTH))
    np.testing.assert_array_equal(FULL_SIZE.read(path, 16), SMOOTH)


def test_a_large_jpeg_is_close_to_its_full_decoding(tmp_path: Path) -> None:
    path = saved(tmp_path, SMOOTH, "JPEG")
    found, whole = Films(64).read(path).astype(float), Films(64).shrink(read_gray(path)).astype(float)
    assert found.shape == whole.shape and (found != whole).any()
    assert 10 * np.log10(255**2 / np.mean((found - whole) ** 2)) > 50  # dB; an eighth of its size would give 43


def test_the_needed_side_counts_at_full_size_only(tmp_path: Path) -> None:
    path = saved(tmp_path, SMOOTH, "JPEG")
    assert FULL_SIZE.read(path, 100).shape == (100, 125)
    np.testing.assert_array_equal(Films(64).read(path, 700), Films(64).read(path, 16))


def test_an_exif_turned_film_is_shrunk_as_it_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(SMOOTH).save(path, exif=exif)
    assert Films(64).read(path).shape == (80, 64)
