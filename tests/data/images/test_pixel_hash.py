"""The hash of an image's pixels: of the image, and not of the file, the reader or the run."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from encoded_images import deep_colour, encoded, npy
from packed_stores import PX, from_store
from PIL import Image
from tiny import write_rows

from cxrcl.data import manifest
from cxrcl.data.images import store
from cxrcl.data.images.image_io import read_gray, read_hashed
from cxrcl.data.images.pixel_hash import NONE, pixel_hash
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.packing.pack import pack

NOISE = np.random.default_rng(0).integers(0, 256, (400, 330), dtype=np.uint8)
COARSE = np.kron(NOISE[:50, :40], np.ones((16, 16), dtype=np.uint8))  # 800 x 640 px


@pytest.mark.parametrize("size", [(400, 330), (64, 64), (17, 300), (1024, 512)])
def test_it_is_that_of_the_means_of_a_grid(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)

    def cells(side: int) -> list[slice]:
        starts = [k * side // 64 for k in range(65)]
        return [slice(a, max(b, a + 1)) for a, b in itertools.pairwise(starts)]

    grid = [[int(image[y, x].sum()) // image[y, x].size for x in cells(size[1])] for y in cells(size[0])]
    same = np.kron(np.array(grid, dtype=np.uint8), np.ones((3, 2), dtype=np.uint8))
    assert pixel_hash(image) == pixel_hash(same) != pixel_hash(same[::-1])


def test_it_is_this_number_on_every_machine_and_with_every_version() -> None:
    image = (np.arange(300 * 200, dtype=np.int64) * 7919 % 251).astype(np.uint8).reshape(300, 200)
    assert pixel_hash(image) == -4122713832598669673  # made in plain Python


def test_sums_beyond_32_bits_are_no_matter() -> None:
    image = np.full((3000, 3000), 255, dtype=np.uint8)
    image[:1500, :1500] = 254
    small = np.full((64, 64), 255, dtype=np.uint8)
    small[:32, :32] = 254
    assert image.sum(dtype=np.int64) > 2**31 and pixel_hash(image) == pixel_hash(small)


def test_an_image_of_one_grey_has_none() -> None:
    assert pixel_hash(np.full((70, 80), 7, dtype=np.uint8)) == NONE


def test_a_pixel_matters() -> None:
    other = NOISE[:64, :64].copy()
    other[5, 5] ^= 1
    assert pixel_hash(other) != pixel_hash(NOISE[:64, :64])


def test_a_copy_in_another_format_has_the_same() -> None:
    lossless = [
        encoded(NOISE),
        encoded(Image.fromarray(NOISE).convert("RGB")),
        encoded(NOISE, "TIFF"),
        encoded(NOISE, "WEBP", lossless=True),
        npy(NOISE),
        cv2.imencode(".png", NOISE)[1].tobytes(),
    ]
    assert {read_bytes(data)[1] for data in lossless} == {pixel_hash(NOISE)}


def read_bytes(data: bytes, side_px: int | None = None) -> tuple[np.ndarray, int]:
    return read_hashed(io.BytesIO(data), side_px)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_large_jpeg_and_its_lossless_copy_have_the_same_however_small_they_are_read(mode: str) -> None:
    colours = np.stack([COARSE, np.roll(COARSE, 16), 255 - COARSE], axis=2)
    jpeg = encoded(Image.fromarray(COARSE if mode == "L" else colours), "JPEG")
    whole, expected = read_bytes(jpeg)
    copy = encoded(whole)
    for side_px in (None, 16, 80, 100, 300, 640, 2000):
        image, found = read_bytes(jpeg, side_px)
        assert found == read_bytes(copy, side_px)[1] == expected
        assert (image.shape < whole.shape) == (side_px in (16, 80, 100, 300))  # it was decoded smaller


def test_a_turned_image_has_that_of_the_image_as_it_is_seen() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(COARSE, "JPEG", exif=exif)
    upright, expected = read_bytes(turned)
    assert upright.shape == COARSE.shape[::-1] and read_bytes(turned, 16)[1] == expected == pixel_hash(upright)


def test_dicom_files_are_hashed_as_they_are_shown() -> None:
    pytest.importorskip("pydicom")
    from encoded_images import dicom

    deep = np.random.default_rng(1).integers(0, 4096, (70, 90), dtype=np.uint16)
    shown, inverted = (
        read_bytes(dicom(deep, BitsStored=12)),
        read_bytes(dicom(4095 - deep, "MONOCHROME1", BitsStored=12)),
    )
    assert shown[1] == inverted[1] == pixel_hash(shown[0]) == read_bytes(encoded(shown[0]))[1]
    assert read_bytes(dicom(4095 - deep, BitsStored=12))[1] != shown[1]


def test_deep_files_are_hashed_after_the_range_rule() -> None:
    deep = np.random.default_rng(1).integers(200, 4000, (70, 90), dtype=np.uint16)
    assert read_bytes(encoded(deep))[1] == read_bytes(npy(deep))[1] == pixel_hash(read_bytes(encoded(deep))[0])
    colour = deep_colour(np.stack([deep * 16] * 3, axis=2))
    assert read_bytes(colour)[1] == pixel_hash(read_bytes(colour)[0])


def test_a_jpeg_that_can_be_read_at_less_than_its_size_alone_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from cxrcl.data.images import image_io

    decode = image_io._decode

    def fails_in_full(file: object, head: bytes, side_px: int | None) -> np.ndarray:
        if side_px is None:
            raise OSError("damaged")
        return decode(file, head, side_px)  # type: ignore[arg-type]

    monkeypatch.setattr(image_io, "_decode", fails_in_full)
    image, found = read_bytes(encoded(COARSE, "JPEG"), 100)
    assert image.shape == (200, 160) and found == NONE


# ------------------------------------------------------------------------------------------ files and stores


def a_set(folder: Path) -> Path:
    folder.mkdir()
    files = {
        "a.jpg": encoded(COARSE, "JPEG"),
        "b.png": encoded(NOISE),
        "c.png": encoded(NOISE[:40, :40]),
        "d.png": b"no",
    }
    rows = [{"image": name, "patient": name, "study": "s", "view": "PA", "split": "train"} for name in files]
    for name, data in files.items():
        (folder / name).write_bytes(data)
    write_rows(folder, rows)
    return folder


def test_the_file_and_the_store_that_was_packed_of_it_have_the_same(tmp_path: Path) -> None:
    root = a_set(tmp_path / "set")
    packed = pack(root, tmp_path / "store", PX, num_workers=2).store.folder
    paths = zip(manifest.load(root).paths[:3], from_store(root, packed).paths[:3])
    for path, place in paths:
        image, expected = ImageReader(PX).read_hashed(place)
        np.testing.assert_array_equal(image, ImageReader(PX).read(path))
        hashes = {ImageReader(read_px).read_hashed(path, side)[1] for read_px in (None, PX, 100) for side in (16, 200)}
        assert hashes == {expected} == {pixel_hash(read_gray(path))}
    assert np.load(packed / "index.npz")["pixels"][3] == NONE  # it cannot be read


def test_a_store_of_before_knows_none(tmp_path: Path) -> None:
    root = a_set(tmp_path / "set")
    packed = pack(root, tmp_path / "store", PX).store.folder
    index = dict(np.load(packed / "index.npz"))
    del index["pixels"]
    np.savez(packed / "index.npz", **index)
    place = from_store(root, packed).paths[1]
    image, found = ImageReader(PX).read_hashed(place)
    assert found == NONE and np.array_equal(image, ImageReader(PX).read(root / "b.png"))
    assert store.split(place) is not None
