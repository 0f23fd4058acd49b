"""Reading films: the range rule for each kind of file, and one plain reason for each that cannot be read."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrcl.data import image_io
from cxrcl.data.image_io import ImageError, read_gray

NAME = "Roe_Jane"
SIDE = 32
RAMP = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)  # 0 .. 1023
GREY = (RAMP // 4).astype(np.uint8)
SCALED = np.rint(RAMP * (255 / RAMP.max())).astype(np.uint8)


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
    film = Image.fromarray((RAMP * 30 + offset).astype(np.uint16))
    np.testing.assert_array_equal(read_gray(saved(tmp_path, film, suffix)), SCALED)


def test_float_and_32_bit_are_scaled_by_their_own_range(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_gray(saved(tmp_path, Image.fromarray(np.float32(RAMP) / 1e4), ".tif")), SCALED)
    np.testing.assert_array_equal(read_gray(saved(tmp_path, Image.fromarray(np.int32(RAMP) - 500), ".tif")), SCALED)


def test_pixels_that_are_not_finite_become_black(tmp_path: Path) -> None:
    values = np.float32(RAMP)
    values[3, 4], values[5, 6] = np.nan, np.inf
    found = read_gray(saved(tmp_path, Image.fromarray(values), ".tif"))
    assert found[3, 4] == found[5, 6] == 0 and found[-1, -1] == 255
    assert reason(saved(tmp_path, Image.fromarray(np.full((SIDE, SIDE), np.nan, np.float32)), ".tif"))


@pytest.mark.parametrize("values", [np.full((SIDE, SIDE), 9000, np.uint16), np.full((SIDE, SIDE), 0.5, np.float32)])
def test_a_constant_deep_film_is_black(tmp_path: Path, values: np.ndarray) -> None:
    assert read_gray(saved(tmp_path, Image.fromarray(values), ".tif")).max() == 0


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    film = Image.fromarray(255 - GREY).convert("P")
    film.putpalette([255 - k // 3 for k in range(768)])
    np.testing.assert_array_equal(read_gray(saved(tmp_path, film)), GREY)


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    found = read_gray(saved(tmp_path, Image.fromarray(GREY > 99)))
    np.testing.assert_array_equal(found, np.where(GREY > 99, 255, 0))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_laid_on_black(tmp_path: Path, mode: str) -> None:
    film = Image.fromarray(np.full((SIDE, SIDE), 200, np.uint8)).convert(mode)
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[:, 16:] = 255
    film.putalpha(Image.fromarray(alpha))
    np.testing.assert_array_equal(read_gray(saved(tmp_path, film)), np.where(alpha, 200, 0))


def test_a_transparent_palette_entry_is_black(tmp_path: Path) -> None:
    film = Image.fromarray(np.tile(np.uint8([0, 1]), (SIDE, SIDE // 2))).convert("P")
    film.putpalette([255, 255, 255, 90, 90, 90])
    found = read_gray(saved(tmp_path, film, transparency=0))
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
        (b"just words", "not an image in a known format"),
    ],
    ids=["empty", "html", "xml", "git-lfs", "dicom", "words"],
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


def test_a_truncated_jpeg_is_called_so(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(GREY), ".jpg")
    path.write_bytes(path.read_bytes()[:-40])
    assert reason(path) == "the file is truncated"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_bytes_are_an_image_error_or_an_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (24, 24), dtype=np.uint8))
    path = tmp_path / NAME
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        buffer = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        noise.save(buffer, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}))
        for _ in range(60):
            data = bytearray(buffer.getvalue())
            for place in rng.integers(0, min(len(data), 200), 3):
                data[place] = rng.integers(256)
            path.write_bytes(data)
            try:
                assert read_gray(path).dtype == np.uint8
            except ImageError as error:
                assert NAME not in str(error)


@pytest.mark.parametrize(("size", "readable"), [((16, 16), True), ((15, 40), False), ((40, 15), False)])
def test_the_smallest_side(tmp_path: Path, size: tuple[int, int], readable: bool) -> None:
    path = saved(tmp_path, Image.fromarray(np.zeros(size, np.uint8)))
    if readable:
        assert read_gray(path).shape == size
    else:
        assert f"{size[1]} x {size[0]} px: a side is below 16 px" in reason(path)


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, Image.fromarray(GREY))
    monkeypatch.setattr(image_io, "MAX_PIXELS", SIDE * SIDE)
    assert read_gray(path).shape == GREY.shape
    monkeypatch.setattr(image_io, "MAX_PIXELS", SIDE * SIDE - 1)
    assert "more than 1,023 pixels" in reason(path)


def test_the_bomb_that_pillow_refuses_is_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, Image.fromarray(GREY))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "pixels" in reason(path)


REAL = os.environ.get("CXRCL_REAL_DATA")


@pytest.mark.skipif(not REAL, reason="CXRCL_REAL_DATA does not name a folder with awkward.csv")
def test_awkward_real_files() -> None:
    root = Path(str(REAL))
    with (root / "awkward.csv").open(newline="", encoding="utf-8") as file:
        entries = [entry for entry in csv.DictReader(file) if not entry["path"].endswith(".dcm")]
    assert entries
    for entry in entries:
        if entry["openable"] == "1":
            film = read_gray(root / entry["path"])
            assert film.dtype == np.uint8 and film.ndim == 2, entry["kind"]
        else:
            with pytest.raises(ImageError):
                read_gray(root / entry["path"])
