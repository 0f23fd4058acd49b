"""Files as they are met outside: every kind of a folder of real ones where it is at hand, and damage to each format."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from encoded_images import GREY, JPEG, JPEG_2000, RAMP, RLE, deep_colour, dicom, encoded, npy, zipped
from PIL import Image

from cxrcl.data.images.image_io import ImageError, read_gray

REAL = os.environ.get("CXRCL_REAL_DATA")
NOISE = np.random.default_rng(0).integers(0, 256, (40, 36), dtype=np.uint8)
BEND = ((NOISE.astype(np.uint16) << 7) + 5).astype(np.uint16)  # 15 bits


def rows() -> list[dict[str, str]]:
    if not REAL:
        return []
    with (Path(REAL) / "awkward.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def size_said(row: dict[str, str]) -> tuple[int, int]:
    return int(row["height"]), int(row["width"])


# ------------------------------------------------------------------------------------------- a folder of real ones


@pytest.mark.skipif(not REAL, reason="CXRCL_REAL_DATA does not name a folder with awkward.csv")
def test_the_folder_lists_files() -> None:
    assert len(rows()) >= 20


@pytest.mark.parametrize("row", rows(), ids=lambda row: Path(row["path"]).name)
def test_real_files(row: dict[str, str]) -> None:
    path = Path(str(REAL)) / row["path"]
    if row["mode"].startswith("MONOCHROME"):
        pytest.importorskip("pydicom")
    if row["openable"] == "0":
        with pytest.raises(ImageError) as caught:
            read_gray(path)
        assert path.name not in str(caught.value)
        return
    found = read_gray(path)
    assert found.dtype == np.uint8
    assert found.shape == (size_said(row) if "EXIF" not in row["kind"] else found.shape)
    assert len(np.unique(found)) > 100 and (found == 255).mean() < 0.05 and (found == 0).mean() < 0.5
    expected = next(path.parent.glob("*_expected_of_gray16.png"), None)
    if row["bits_stored"] == "15" or row["mode"].startswith("I;16"):
        assert expected is not None
        reference = np.asarray(Image.open(expected)).astype(np.float64)
        same_size = cv2.resize(found, reference.shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.corrcoef(same_size.ravel(), reference.ravel())[0, 1] > 0.999  # neither inverted nor clipped
        # Files without a window are stretched to their own range.
        assert np.abs(same_size - reference).mean() < 10


@pytest.mark.skipif(not REAL, reason="CXRCL_REAL_DATA does not name a folder with awkward.csv")
def test_real_files_of_one_image_agree() -> None:
    same = [row for row in rows() if row["note"].endswith("from Hannover a4318ac9.png") and row["openable"] == "1"]
    images = {row["kind"]: read_gray(Path(str(REAL)) / row["path"]).astype(int) for row in same if row["width"] != "16"}
    whole = {kind: image for kind, image in images.items() if image.shape == images["palette PNG"].shape}
    assert len(whole) >= 6 and "EXIF rotated" in whole
    for kind, image in whole.items():
        assert np.abs(image - whole["palette PNG"]).mean() < 4, kind


# ------------------------------------------------------------------------------------------------ the same kinds


def cmyk() -> bytes:
    return encoded(Image.fromarray(NOISE).convert("RGB").convert("CMYK"), "JPEG", quality=95)


def palette() -> bytes:
    image = Image.fromarray(255 - NOISE).convert("P")
    image.putpalette([255 - k // 3 for k in range(768)])
    return encoded(image)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(np.rot90(NOISE), exif=exif)


def in_dicom(**elements: object) -> Callable[[], bytes]:
    return lambda: dicom(BEND, **{"BitsStored": 15, **elements})  # type: ignore[arg-type]


KINDS: dict[str, tuple[str, Callable[[], bytes], int]] = {  # name, content, largest difference from NOISE
    "png named jpg": ("a.jpg", lambda: encoded(Image.fromarray(NOISE).convert("RGBA")), 0),
    "no suffix": ("image", lambda: encoded(NOISE), 0),
    "jpg": ("a.jpg", lambda: encoded(NOISE, "JPEG", quality=95), 12),
    "progressive": ("a.jpg", lambda: encoded(NOISE, "JPEG", quality=95, progressive=True), 12),
    "cmyk": ("a.jpg", cmyk, 12),
    "palette": ("a.png", palette, 0),
    "grey and alpha": ("a.png", lambda: encoded(Image.fromarray(NOISE).convert("LA")), 0),
    "orientation": ("a.png", turned, 0),
    "name": ("röntgen bild (1).jpg", lambda: encoded(NOISE), 0),
    "16-bit png": ("a.png", lambda: encoded(BEND), 1),
    "16-bit tiff": ("a.tif", lambda: encoded(BEND, "TIFF"), 1),
    "16-bit colours": ("a.png", lambda: deep_colour(np.stack([BEND] * 3, axis=-1)), 1),
    "float tiff": ("a.tif", lambda: encoded(np.float32(NOISE) / 255, "TIFF"), 0),
    "jpeg 2000": ("a.jp2", lambda: encoded(NOISE, "JPEG2000"), 0),
    "webp": ("a.webp", lambda: encoded(Image.fromarray(NOISE).convert("RGB"), "WEBP", lossless=True), 0),
    "npy": ("a.npy", lambda: npy(BEND), 1),
    "dicom": ("a.dcm", in_dicom(), 1),
    "dicom, inverse": ("a", lambda: dicom((32767 - BEND).astype(np.uint16), "MONOCHROME1", BitsStored=15), 1),
    "dicom, window": ("a.dcm", in_dicom(WindowCenter=16384, WindowWidth=32768), 1),
    "dicom, JPEG 2000": ("a.dcm", in_dicom(syntax=JPEG_2000), 1),
    "dicom, RLE": ("a.dcm", in_dicom(syntax=RLE), 1),
    "dicom, JPEG": ("a", lambda: dicom(NOISE, syntax=JPEG, encapsulated=encoded(NOISE, "JPEG", quality=95)), 12),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_image(tmp_path: Path, kind: str) -> None:
    name, make, largest = KINDS[kind]
    if kind.startswith("dicom"):
        pytest.importorskip("pydicom")
    path = tmp_path / name
    path.write_bytes(make())
    (tmp_path / "all.zip").write_bytes(zipped({f"in/{name}": path.read_bytes()}))
    for where in (path, f"{tmp_path}/all.zip!/in/{name}"):
        found = read_gray(where)
        assert found.dtype == np.uint8 and found.shape == NOISE.shape
        assert np.abs(found.astype(int) - NOISE).max() <= largest


# -------------------------------------------------------------------------------------------------------- damage


def good_files() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "an image"
    colours = Image.fromarray(np.stack([NOISE, NOISE[::-1], NOISE], axis=-1))
    multi = io.BytesIO()
    Image.fromarray(GREY).save(multi, "TIFF", save_all=True, append_images=[Image.fromarray(GREY)])
    made = [make() for kind, (_, make, _) in KINDS.items() if not kind.startswith("dicom")]
    made += [encoded(colours, kind, exif=exif) for kind in ("PNG", "JPEG", "WEBP")]
    made += [encoded(colours, kind) for kind in ("BMP", "GIF", "PPM")]
    made += [encoded(BEND, "TIFF", compression=how) for how in ("tiff_lzw", "tiff_adobe_deflate", "packbits")]
    made += [multi.getvalue(), npy(RAMP / 3), encoded(NOISE > 99)]
    try:
        made += [make() for kind, (_, make, _) in KINDS.items() if kind.startswith("dicom")]
        made.append(dicom(np.stack([GREY] * 3), frames=3))
    except ImportError:
        pass
    return made


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, or with bytes changed: anywhere, or in the header, where sizes and kinds stand."""
    data = bytearray(content)
    how = rng.integers(4)
    if how == 0:
        return bytes(data[: rng.integers(len(data))])
    area = len(data) if how == 1 else min(len(data), 64 if how == 2 else 1200)
    for place in rng.integers(0, area, rng.integers(1, 9)):
        data[place] = rng.choice([0, 1, 0x7F, 0xFF, int(rng.integers(256))])
    return bytes(data)


@pytest.mark.parametrize(
    ("cases", "seed"), [(500, 0), pytest.param(10_000, 1, marks=pytest.mark.slow)], ids=["500", "10000"]
)
def test_damage_gives_an_image_or_a_reason(tmp_path: Path, cases: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    files = good_files()
    path, bad, longest = tmp_path / "Roe_Jane.png", 0, 0.0
    for case in range(cases):
        content = damaged(files[case % len(files)], rng)
        path.write_bytes(content)
        started = time.perf_counter()
        try:
            found = read_gray(path, 16)
            assert found.dtype == np.uint8 and found.ndim == 2 and min(found.shape) >= 16, case
        except ImageError as error:
            bad += 1
            assert "Roe" not in str(error) and "\n" not in str(error), case
        longest = max(longest, time.perf_counter() - started)
    assert cases / 5 < bad < cases  # the damage is damage, and not of all
    assert longest < 10
