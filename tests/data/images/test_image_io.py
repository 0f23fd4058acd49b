"""Reading images: the range rule for each kind of file, and one plain reason for each that cannot be read."""

from __future__ import annotations

import multiprocessing
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from encoded_images import GREY, RAMP, SCALED, SIDE, deep_colour, encoded, npy, zipped
from PIL import Image

from cxrcl.data.images import archives, pixels
from cxrcl.data.images.image_io import ImageError, grey, read_gray

NAME = "Roe_Jane"


def saved(tmp_path: Path, image: Image.Image, suffix: str = ".png", **options: object) -> Path:
    path = tmp_path / f"{NAME}{suffix}"
    image.save(path, **options)
    return path


def reason(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_gray(path)
    assert NAME not in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".gif"])
def test_8_bit_is_left_as_it_is(tmp_path: Path, suffix: str) -> None:
    low = GREY // 4 + 10
    found = read_gray(saved(tmp_path, Image.fromarray(low), suffix))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, low)


@pytest.mark.parametrize("offset", [0, 20000])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_is_scaled_by_its_own_range(tmp_path: Path, suffix: str, offset: int) -> None:
    image = Image.fromarray((RAMP * 30 + offset).astype(np.uint16))
    np.testing.assert_array_equal(read_gray(saved(tmp_path, image, suffix)), SCALED)


def test_float_and_32_bit_are_scaled_by_their_own_range(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_gray(saved(tmp_path, Image.fromarray(np.float32(RAMP) / 1e4), ".tif")), SCALED)
    np.testing.assert_array_equal(read_gray(saved(tmp_path, Image.fromarray(np.int32(RAMP) - 500), ".tif")), SCALED)
    large = Image.fromarray(np.int32(RAMP) + 2_000_000_000)  # float32 has steps of 128 there
    np.testing.assert_array_equal(read_gray(saved(tmp_path, large, ".tif")), SCALED)


def test_pixels_that_are_not_finite_become_black(tmp_path: Path) -> None:
    values = np.float32(RAMP)
    values[3, 4], values[5, 6] = np.nan, np.inf
    found = read_gray(saved(tmp_path, Image.fromarray(values), ".tif"))
    assert found[3, 4] == found[5, 6] == 0 and found[-1, -1] == 255
    assert reason(saved(tmp_path, Image.fromarray(np.full((SIDE, SIDE), np.nan, np.float32)), ".tif"))


@pytest.mark.parametrize("values", [np.full((SIDE, SIDE), 9000, np.uint16), np.full((SIDE, SIDE), 0.5, np.float32)])
def test_a_constant_deep_image_is_black(tmp_path: Path, values: np.ndarray) -> None:
    assert read_gray(saved(tmp_path, Image.fromarray(values), ".tif")).max() == 0


def test_12_bits_in_16_are_scaled_by_their_own_range(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_gray(saved(tmp_path, Image.fromarray((RAMP * 4).astype(np.uint16)))), SCALED)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_deep_colours_keep_their_levels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / NAME
    path.write_bytes(deep_colour(np.stack([RAMP.astype(np.uint16)] * 3, axis=-1), suffix))
    np.testing.assert_allclose(read_gray(path).astype(int), SCALED, atol=1)


def test_deep_colours_have_an_alpha_laid_on_black(tmp_path: Path) -> None:
    alpha = np.where(np.arange(SIDE) < 16, 0, 65535)
    path = tmp_path / NAME
    path.write_bytes(deep_colour(np.stack([RAMP] * 3 + [np.tile(alpha, (SIDE, 1))], axis=-1).astype(np.uint16)))
    found = read_gray(path)
    assert found[:, :16].max() == 0
    np.testing.assert_allclose(found[:, 16:].astype(int), SCALED[:, 16:], atol=1)


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(255 - GREY).convert("P")
    image.putpalette([255 - k // 3 for k in range(768)])
    np.testing.assert_array_equal(read_gray(saved(tmp_path, image)), GREY)


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    found = read_gray(saved(tmp_path, Image.fromarray(GREY > 99)))
    np.testing.assert_array_equal(found, np.where(GREY > 99, 255, 0))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_laid_on_black(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.full((SIDE, SIDE), 200, np.uint8)).convert(mode)
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[:, 16:] = 255
    image.putalpha(Image.fromarray(alpha))
    np.testing.assert_array_equal(read_gray(saved(tmp_path, image)), np.where(alpha, 200, 0))


def test_a_transparent_palette_entry_is_black(tmp_path: Path) -> None:
    image = Image.fromarray(np.tile(np.uint8([0, 1]), (SIDE, SIDE // 2))).convert("P")
    image.putpalette([255, 255, 255, 90, 90, 90])
    found = read_gray(saved(tmp_path, image, transparency=0))
    np.testing.assert_array_equal(found[0, :2], [0, 90])


def test_colours_become_luminance(tmp_path: Path) -> None:
    rgb = np.stack([GREY] * 3, axis=-1)
    np.testing.assert_array_equal(read_gray(saved(tmp_path, Image.fromarray(rgb))), GREY)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    path = saved(tmp_path, Image.fromarray(smooth).convert("RGB").convert("CMYK"), ".jpg", quality=95)
    assert np.abs(read_gray(path).astype(int) - smooth).max() <= 6


def test_the_orientation_of_exif_is_applied(tmp_path: Path) -> None:
    wide = GREY[:20]
    exif = Image.Exif()
    exif[0x0112] = 6
    found = read_gray(saved(tmp_path, Image.fromarray(wide), exif=exif))
    np.testing.assert_array_equal(found, np.rot90(wide, -1))


def test_a_file_is_read_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(GREY)).rename(tmp_path / "röntgen bild (1).jpg")
    np.testing.assert_array_equal(read_gray(path), GREY)


@pytest.mark.parametrize("wanted", [1, 16, 63, 64, 65, 100, 128, 199, 200, 399, 400, 900])
def test_a_jpeg_is_never_decoded_below_the_wanted_side(tmp_path: Path, wanted: int) -> None:
    path = saved(tmp_path, Image.fromarray(np.zeros((517, 401), np.uint8)), ".jpg")
    found = read_gray(path, wanted)
    assert min(found.shape) >= min(wanted, 401)
    assert abs(found.shape[0] / found.shape[1] - 517 / 401) < 0.03


def test_a_large_jpeg_is_decoded_smaller_where_that_is_enough(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(np.zeros((512, 512), np.uint8)), ".jpg")
    assert read_gray(path, 100).shape == (128, 128)
    assert read_gray(path).shape == (512, 512)
    assert read_gray(saved(tmp_path, Image.fromarray(np.zeros((512, 512), np.uint8))), 100).shape == (512, 512)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n <?xml version='1.0'?>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\0" * 128 + b"DICM" + b"\0" * 60, "DICOM"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "not an image in a known format"),
        (encoded(GREY, "JPEG").replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc1\0\x0b\x0c"), "more than 8 bits"),
        (b"just words", "not an image in a known format"),
    ],
    ids=["empty", "html", "xml", "git-lfs", "dicom", "postscript", "jpeg", "words"],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / f"{NAME}.png"
    path.write_bytes(content)
    assert said in reason(path)


def test_missing_files_folders_and_pipes(tmp_path: Path) -> None:
    assert reason(tmp_path / f"{NAME}.png") == "file not found"
    assert reason(tmp_path) == "not a regular file"
    pipe = tmp_path / f"{NAME}.pipe"
    os.mkfifo(pipe)
    assert reason(pipe) == "not a regular file"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), suffix)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reason(path)


def test_a_tiff_without_its_last_strips_is_refused(tmp_path: Path) -> None:
    content = encoded(np.zeros((40, 32), np.uint8), "TIFF")
    height = b"\x01\x01\x04\0\x01\0\0\0"  # tag 257, one 32-bit number
    path = tmp_path / NAME
    path.write_bytes(content.replace(height + b"\x28", height + b"\x50"))
    assert reason(path) == "the file is truncated"


def test_a_truncated_jpeg_is_called_so(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(GREY), ".jpg")
    path.write_bytes(path.read_bytes()[:-40])
    assert reason(path) == "the file is truncated"


@pytest.mark.parametrize(("size", "readable"), [((16, 16), True), ((15, 40), False), ((40, 15), False)])
def test_the_smallest_side(tmp_path: Path, size: tuple[int, int], readable: bool) -> None:
    path = saved(tmp_path, Image.fromarray(np.zeros(size, np.uint8)))
    if readable:
        assert read_gray(path).shape == size
    else:
        assert f"{size[1]} x {size[0]} px: a side is below 16 px" in reason(path)


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, Image.fromarray(GREY))
    monkeypatch.setattr(pixels, "MAX_PIXELS", SIDE * SIDE)
    assert read_gray(path).shape == GREY.shape
    monkeypatch.setattr(pixels, "MAX_PIXELS", SIDE * SIDE - 1)
    assert "more than 1,023 pixels" in reason(path)


def test_the_bomb_that_pillow_refuses_is_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, Image.fromarray(GREY))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "pixels" in reason(path)


# ------------------------------------------------------------------------------------------------------- .npy


def stored(tmp_path: Path, values: np.ndarray) -> Path:
    path = tmp_path / f"{NAME}.npy"
    path.write_bytes(npy(values))
    return path


@pytest.mark.parametrize("values", [RAMP, RAMP.astype(">i2"), RAMP / 7 - 3, np.asfortranarray(RAMP), RAMP * 1e305])
def test_arrays_follow_the_range_rule(tmp_path: Path, values: np.ndarray) -> None:
    np.testing.assert_array_equal(read_gray(stored(tmp_path, values)), SCALED)


def test_arrays_of_8_bits_are_left_as_they_are(tmp_path: Path) -> None:
    for values in (GREY // 2, (GREY // 2)[None], (GREY // 2)[..., None]):
        np.testing.assert_array_equal(read_gray(stored(tmp_path, values)), GREY // 2)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((3, 32, 32)), "of shape [3, 32, 32], expected [height, width]"),
        (np.zeros(64), "of shape [64], expected [height, width]"),
        (np.zeros((8, 64)), "64 x 8 px: a side is below 16 px"),
        (np.zeros((32, 32), complex), "expected a 2-D array of numbers, found complex128"),
        (np.full((32, 32), "x"), "expected a 2-D array of numbers"),
    ],
    ids=["stack", "row", "small", "complex", "text"],
)
def test_arrays_that_are_no_image(tmp_path: Path, values: np.ndarray, said: str) -> None:
    assert said in reason(stored(tmp_path, values))


def test_arrays_of_python_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.npy"
    np.save(path, np.full((32, 32), {}, dtype=object), allow_pickle=True)
    assert "Python objects" in reason(path)


def test_an_array_that_claims_to_be_larger_than_its_file(tmp_path: Path) -> None:
    path = stored(tmp_path, np.zeros((1000, 1000), np.uint8))
    path.write_bytes(path.read_bytes()[:-1])
    assert reason(path) == "the file is truncated"
    path.write_bytes(path.read_bytes().replace(b"(1000, 1000)", b"(99999,9999)"))
    assert "more than 150,000,000 pixels" in reason(path)


# -------------------------------------------------------------------------------------------------- in memory


def test_arrays_and_images_in_memory() -> None:
    np.testing.assert_array_equal(grey(RAMP / 3), SCALED)
    np.testing.assert_array_equal(grey(Image.fromarray(np.uint16(RAMP))), SCALED)
    for wrong in (np.zeros((32, 32, 3)), np.zeros((32, 32), complex), np.zeros((15, 32)), Image.new("L", (15, 32))):
        with pytest.raises(ImageError):
            grey(wrong)


# ---------------------------------------------------------------------------------------------------- zip files


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / f"{NAME}.ZIP"
    path.write_bytes(zipped({"in/image 1.png": encoded(GREY), "ü.npy": npy(GREY // 2), "in/empty.png": b""}))
    return path


def test_images_are_read_inside_zip_files(archive: Path) -> None:
    np.testing.assert_array_equal(read_gray(f"{archive}!/in/image 1.png"), GREY)
    np.testing.assert_array_equal(read_gray(Path(f"{archive}!/ü.npy")), GREY // 2)
    assert reason(Path(f"{archive}!/in/empty.png")) == "empty file"
    assert reason(Path(f"{archive}!/in/{NAME}.png")) == "no such file inside the zip file"
    assert reason(archive.with_name(f"{NAME}2.zip!") / "x.png") == "zip file not found"


def test_a_zip_file_is_opened_once(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    class Counted(zipfile.ZipFile):
        def __init__(self, file: str) -> None:
            opened.append(file)
            super().__init__(file)

    monkeypatch.setattr(zipfile, "ZipFile", Counted)
    for _ in range(3):
        read_gray(f"{archive}!/in/image 1.png")
    assert len(opened) == 1
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as after a fork
    read_gray(f"{archive}!/in/image 1.png")
    assert len(opened) == 2
    monkeypatch.undo()
    archive.write_bytes(zipped({"in/image 1.png": encoded(255 - GREY)}))  # another one in its place
    os.utime(archive, ns=(1, 1))
    np.testing.assert_array_equal(read_gray(f"{archive}!/in/image 1.png"), 255 - GREY)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_no_handle_of_a_zip_file(tmp_path: Path, method: str) -> None:
    noise = [np.random.default_rng(k).integers(0, 256, (64, 64), dtype=np.uint8) for k in range(20)]
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({f"{k}.png": encoded(image) for k, image in enumerate(noise)}, zipfile.ZIP_STORED))
    names = [f"{path}!/{k}.png" for k in range(20)] * 5
    read_gray(names[0])  # opened before the fork
    with multiprocessing.get_context(method).Pool(2) as pool:
        for name, found in zip(names, pool.map(read_gray, names, chunksize=1)):
            np.testing.assert_array_equal(found, noise[int(Path(name).stem)])


def test_damaged_and_encrypted_members(tmp_path: Path) -> None:
    whole = zipped({f"{NAME}.png": encoded(GREY)}, zipfile.ZIP_STORED)
    path = tmp_path / "a.zip"
    inside = path.with_name("a.zip!") / f"{NAME}.png"
    place = whole.index(b"IDAT") + 20
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert reason(inside) == "damaged inside the zip file (its checksum differs)"
    path.write_bytes(whole[:-30])
    assert reason(inside) == "not a whole zip file"
    locked = bytearray(whole)
    locked[whole.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(locked)
    assert "encrypted" in reason(inside)


def test_members_have_a_largest_size(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 20)
    assert reason(Path(f"{archive}!/in/image 1.png")) == "more than 20 bytes inside the zip file"
