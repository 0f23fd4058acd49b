"""DICOM images: from stored values to grey, in the order of the standard, and one plain reason where that fails."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from encoded_images import (
    BIG_ENDIAN,
    EXPLICIT,
    GREY,
    IMPLICIT,
    JPEG,
    JPEG_2000,
    RAMP,
    RLE,
    SCALED,
    SIDE,
    dicom,
    encoded,
    lut,
    zipped,
)
from PIL import Image

from cxrcl.data.images import pixels
from cxrcl.data.images.dicom import windowed
from cxrcl.data.images.image_io import ImageError, read_gray

pydicom = pytest.importorskip("pydicom")
DEEP = (RAMP * 4).astype(np.uint16)  # 0 .. 4092 of 12 bits
OF_12_BITS = np.rint(DEEP * (255 / 4095)).astype(np.uint8)


def read(tmp_path: Path, content: bytes) -> np.ndarray:
    path = tmp_path / "Roe_Jane.png"
    path.write_bytes(content)
    found = read_gray(path)
    assert found.dtype == np.uint8 and found.ndim == 2
    return found


def reason(tmp_path: Path, content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read(tmp_path, content)
    assert "Roe" not in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def image(values: np.ndarray = DEEP, **elements: Any) -> bytes:
    return dicom(values, **{"BitsStored": 12, **elements})


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, RLE, JPEG_2000])
def test_the_range_is_that_of_the_bits_stored_whatever_the_encoding(tmp_path: Path, syntax: str) -> None:
    np.testing.assert_array_equal(read(tmp_path, image(syntax=syntax)), OF_12_BITS)


def test_the_range_does_not_depend_on_the_image(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, image(DEEP // 2)), np.rint(DEEP // 2 * (255 / 4095)))
    np.testing.assert_array_equal(read(tmp_path, image(BitsStored=14)), np.rint(DEEP * (255 / 16383)))


def test_an_image_that_would_be_all_but_one_grey_is_scaled_by_its_own_range(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, image(BitsStored=16)), SCALED)
    np.testing.assert_array_equal(read(tmp_path, image(DEEP + 20000, BitsStored=16)), SCALED)
    faint = dicom(GREY // 16 + 100)  # 8 bits are left as they are
    np.testing.assert_array_equal(read(tmp_path, faint), GREY // 16 + 100)


def test_8_bits_are_left_as_they_are(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, dicom(GREY // 2)), GREY // 2)


def test_signed_values_start_at_their_lowest(tmp_path: Path) -> None:
    signed = (DEEP.astype(np.int32) - 2048).astype(np.int16)
    np.testing.assert_array_equal(read(tmp_path, image(signed)), OF_12_BITS)


def test_bits_above_those_stored_are_an_overlay_and_no_grey(tmp_path: Path) -> None:
    drawn = DEEP + np.uint16(4096) * (RAMP % 2).astype(np.uint16)
    np.testing.assert_array_equal(read(tmp_path, image(drawn)), OF_12_BITS)


def test_slope_and_intercept_move_the_range_too(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, image(RescaleSlope=2, RescaleIntercept=-1000)), OF_12_BITS)
    np.testing.assert_array_equal(read(tmp_path, image(RescaleSlope=-1, RescaleIntercept=4095)), 255 - OF_12_BITS)


def test_monochrome1_is_inverted_once(tmp_path: Path) -> None:
    inverse = image(photometric="MONOCHROME1", PresentationLUTShape="INVERSE")
    np.testing.assert_array_equal(read(tmp_path, inverse), 255 - OF_12_BITS)


# ------------------------------------------------------------------------------------------------- windows


def test_a_window_is_in_rescaled_values_and_fills_the_range(tmp_path: Path) -> None:
    found = read(tmp_path, image(RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000, WindowWidth=2001))
    expected = np.clip((DEEP * 2.0 - 1000 - 999.5) / 2000 + 0.5, 0, 1) * 255
    np.testing.assert_array_equal(found, np.rint(expected))
    assert found.min() == 0 and found.max() == 255


def test_the_first_of_several_windows_is_taken(tmp_path: Path) -> None:
    one = read(tmp_path, image(WindowCenter=1000, WindowWidth=500))
    several = read(tmp_path, image(WindowCenter=[1000, 3000], WindowWidth=[500, 100]))
    np.testing.assert_array_equal(one, several)


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_the_function_of_the_window_is_obeyed(tmp_path: Path, function: str) -> None:
    found = read(tmp_path, image(WindowCenter=2000, WindowWidth=1000, VOILUTFunction=function))
    x = (DEEP - 2000.0) / 1000
    expected = np.clip(x + 0.5, 0, 1) if function == "LINEAR_EXACT" else 1 / (1 + np.exp(-4 * x))
    # The range of a sigmoid is open: 0 and 1 are never reached, and not stretched to.
    np.testing.assert_array_equal(found, np.rint(expected * 255))


def test_the_window_is_that_of_the_standard() -> None:
    values = np.array([0, 1, 2, 3, 4, 5])
    np.testing.assert_allclose(windowed(values, 2.5, 5), [0, 0.25, 0.5, 0.75, 1, 1])  # C.11.2.1.2: c - .5 is the middle
    np.testing.assert_allclose(windowed(values, 3, 1), [0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(windowed(values, 2.5, 5, "LINEAR_EXACT"), values / 5)
    assert windowed(values, 3, 0.5) is None and windowed(values, 3, 0, "SIGMOID") is None


@pytest.mark.parametrize("window", [(2000, 0), (2000, -5), (60000, 10), (-3000, 100)])
def test_a_window_that_shows_nothing_is_not_used(tmp_path: Path, window: tuple[int, int]) -> None:
    np.testing.assert_array_equal(read(tmp_path, image(WindowCenter=window[0], WindowWidth=window[1])), OF_12_BITS)


def test_a_voi_lut_goes_before_a_window(tmp_path: Path) -> None:
    table = lut(0, [4095 - k for k in range(4096)], 12)
    found = read(tmp_path, image(VOILUTSequence=table, WindowCenter=1000, WindowWidth=50))
    np.testing.assert_array_equal(found, 255 - OF_12_BITS)


def test_a_lut_that_holds_more_than_it_says_is_not_clipped(tmp_path: Path) -> None:
    found = read(tmp_path, image(VOILUTSequence=lut(0, list(range(4096)), 10)))
    np.testing.assert_array_equal(found, SCALED)


def test_a_voi_lut_is_looked_up_by_rescaled_values(tmp_path: Path) -> None:
    table = lut(100, [0] * 2000 + [1023] * 2096, 10)
    found = read(tmp_path, image(VOILUTSequence=table, RescaleSlope=1, RescaleIntercept=100))
    np.testing.assert_array_equal(found, np.where(DEEP >= 2000, 255, 0))


def test_a_modality_lut_brings_its_own_range(tmp_path: Path) -> None:
    found = read(tmp_path, image(ModalityLUTSequence=lut(0, [k * 16 for k in range(4096)], 16), ModalityLUTType="US"))
    np.testing.assert_array_equal(found, np.rint(DEEP * 16 * (255 / 65535.0)))


# ------------------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_widens_no_range(tmp_path: Path, photometric: str) -> None:
    signed = (DEEP.astype(np.int32) - 2048).astype(np.int16)
    signed[:4] = -32768
    found = read(tmp_path, image(signed, photometric=photometric, BitsStored=16, PixelPaddingValue=-32768))
    assert found[:4].max() == 0
    rest = np.rint((DEEP[4:] - 512) * (255 / (4092 - 512)))
    np.testing.assert_array_equal(found[4:], rest if photometric == "MONOCHROME2" else 255 - rest)


def test_padding_may_be_a_range(tmp_path: Path) -> None:
    found = read(tmp_path, image(photometric="MONOCHROME1", PixelPaddingValue=0, PixelPaddingRangeLimit=40))
    np.testing.assert_array_equal(found, np.where(DEEP <= 40, 0, 255 - OF_12_BITS))


def test_nothing_but_padding_is_no_image(tmp_path: Path) -> None:
    assert "nothing but padding" in reason(tmp_path, image(DEEP * 0, PixelPaddingValue=0))


# ----------------------------------------------------------------------------------------- frames and colours


def test_of_several_frames_the_first_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, dicom(np.stack([GREY, 255 - GREY, GREY // 2]), frames=3))
    np.testing.assert_array_equal(found, GREY)


def test_colours_become_luminance(tmp_path: Path) -> None:
    colours = np.stack([GREY, GREY[::-1], GREY.T], axis=-1)
    expected = np.asarray(Image.fromarray(colours).convert("L"))
    np.testing.assert_array_equal(read(tmp_path, dicom(colours, "RGB")), expected)
    deep = np.stack([DEEP] * 3, axis=-1)
    np.testing.assert_allclose(read(tmp_path, image(deep, photometric="RGB")), OF_12_BITS, atol=1)


def test_ybr_is_read_as_colours(tmp_path: Path) -> None:
    ybr = np.asarray(Image.fromarray(np.stack([GREY] * 3, axis=-1)).convert("YCbCr"))
    np.testing.assert_allclose(read(tmp_path, dicom(ybr, "YBR_FULL")).astype(int), GREY, atol=1)


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    tables: dict[str, Any] = {}
    for colour in ("Red", "Green", "Blue"):
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tables[f"{colour}PaletteColorLookupTableData"] = np.arange(65535, -1, -257, dtype="<u2").tobytes()
    np.testing.assert_allclose(read(tmp_path, dicom(GREY, "PALETTE COLOR", **tables)).astype(int), 255 - GREY, atol=1)


def test_jpeg_inside_dicom(tmp_path: Path) -> None:
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    content = dicom(smooth, syntax=JPEG, encapsulated=encoded(smooth, "JPEG", quality=95))
    assert np.abs(read(tmp_path, content).astype(int) - smooth).max() <= 4


# -------------------------------------------------------------------------------------- what cannot be read


def test_files_without_the_preamble_are_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, image()[132:]), OF_12_BITS)
    meta = pydicom.filereader.read_file_meta_info
    path = tmp_path / "whole.dcm"
    path.write_bytes(image(syntax=IMPLICIT))
    start = 144 + meta(path).FileMetaInformationGroupLength  # group 2 left out as well
    np.testing.assert_array_equal(read(tmp_path, path.read_bytes()[start:]), OF_12_BITS)


def test_a_dicom_file_in_a_zip_file(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"b/c": image()}))
    np.testing.assert_array_equal(read_gray(tmp_path / "a.zip!/b/c"), OF_12_BITS)


def test_a_report_has_no_image(tmp_path: Path) -> None:
    found = reason(tmp_path, dicom(None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11"))
    assert found == "a DICOM file without an image (Basic Text SR Storage), or cut off before it"


def test_truncated_pixels(tmp_path: Path) -> None:
    assert "DICOM" in reason(tmp_path, image()[:-300])
    assert "DICOM" in reason(tmp_path, image(syntax=RLE)[:-300])


def test_sizes_are_checked_before_pixels_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "15 x 32 px: a side is below 16 px" in reason(tmp_path, dicom(GREY[:, :15].copy()))
    three = dicom(np.stack([GREY] * 3), frames=3)
    monkeypatch.setattr(pixels, "MAX_PIXELS", 3 * SIDE * SIDE)
    assert read(tmp_path, three).shape == GREY.shape
    monkeypatch.setattr(pixels, "MAX_PIXELS", 3 * SIDE * SIDE - 1)
    monkeypatch.setattr(pydicom.pixels, "pixel_array", None)  # would be a damaged file
    assert reason(tmp_path, three) == "32 x 32 px x 3 frames is more than 3,071 pixels"


def test_a_decoder_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = image(syntax=JPEG_2000)
    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda _: SimpleNamespace(is_available=False))
    said = reason(tmp_path, content)
    assert "JPEG 2000" in said and "cxrcl[dicom]" in said


def test_a_compression_that_nothing_decodes_is_named(tmp_path: Path) -> None:
    video = dicom(GREY, syntax="1.2.840.10008.1.2.4.100", encapsulated=b"12")
    assert "MPEG2" in reason(tmp_path, video)


def test_pydicom_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = image()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert reason(tmp_path, content) == "a DICOM file: pip install 'cxrcl[dicom]'"


def test_elements_that_are_missing_are_named(tmp_path: Path) -> None:
    data = pydicom.dcmread(io.BytesIO(image()))
    del data.PhotometricInterpretation
    buffer = io.BytesIO()
    data.save_as(buffer)
    assert reason(tmp_path, buffer.getvalue()) == "a DICOM file without PhotometricInterpretation"
