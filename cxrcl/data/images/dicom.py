"""Images in DICOM files -> one grey channel, uint8 [H, W].

Stored values go through the modality LUT (or slope and intercept) and the first VOI LUT or window, where there are any
(PS3.3 C.11.1 and C.11.2); MONOCHROME1 is inverted, padding becomes black. What becomes 0 .. 255 is the window, or the
range of the LUT's bits; without either, what `BitsStored` can hold, so that images keep their exposure. An image that
uses less than an eighth of more than 8 bits is scaled by its own minimum and maximum: else it would be nearly one grey.
Only a window clips. The first of several frames is read.

pydicom and the decoders of pylibjpeg are an extra: they are imported where a DICOM file is met.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from cxrcl.data.images.pixels import ImageError, check_size, luminance, to_uint8

Limits = tuple[float, float]
_INSTALL = "pip install 'cxrcl[dicom]'"
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_GREY = ("MONOCHROME1", "MONOCHROME2")
_FIRST_ELEMENTS = (0x00, 0x01, 0x05, 0x08, 0x16, 0x18)  # lengths, versions, character set, image type, SOP


def is_dicom(head: bytes) -> bool:
    """Whether the first 256 bytes of a file are those of a DICOM file; the preamble may be missing."""
    if head[128:132] == b"DICM":
        return True
    # A first element of group 2 or 8; no other format begins so.
    return head[:2] in (b"\x02\0", b"\x08\0") and len(head) > 16 and head[3] == 0 and head[2] in _FIRST_ELEMENTS


def read(file: BinaryIO) -> np.ndarray:
    """uint8 [H, W].

    Raises:
        ImageError: no image in it, its size, a compression without a decoder, damage, or pydicom is not installed.
    """
    try:
        import pydicom
    except ImportError:
        raise ImageError(f"a DICOM file: {_INSTALL}") from None
    try:
        data = pydicom.dcmread(file, force=True)
        _check(data)
        return _decode(data)
    except ImageError:
        raise
    except Exception as error:  # pydicom and its decoders answer damaged bytes with errors of any class
        reason = "truncated" if "less than expected" in str(error) else type(error).__name__
        raise ImageError(f"damaged DICOM file ({reason})") from None


def _check(data: Any) -> None:
    """Refuse a file without an image of a size that can be read, or without a decoder for it."""
    if not any(name in data for name in _PIXELS):
        kind = data.get("SOPClassUID", "")
        named = getattr(kind, "name", "")
        hint = f" ({named})" if named and named != str(kind) else ""
        raise ImageError(f"a DICOM file without an image{hint}, or cut off before it")
    missing = [name for name in ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation") if name not in data]
    if missing:
        raise ImageError(f"a DICOM file without {', '.join(missing)}")
    check_size(int(data.Columns), int(data.Rows), max(1, int(data.get("NumberOfFrames") or 1)))
    syntax = _syntax(data)
    if syntax.is_compressed and syntax.is_encapsulated:
        from pydicom.pixels import get_decoder

        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            raise ImageError(f"a DICOM file compressed as {syntax.name}: convert it") from None
        if not decoder.is_available:
            raise ImageError(f"a DICOM file compressed as {syntax.name}: {_INSTALL}")


def _syntax(data: Any) -> Any:
    """The transfer syntax; a file without its preamble may not name one."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if not hasattr(data, "file_meta"):
        data.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in data.file_meta:
        implicit = data.original_encoding[0]
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return data.file_meta.TransferSyntaxUID


def _decode(data: Any) -> np.ndarray:
    """uint8 [H, W] of the first frame."""
    from pydicom.pixels import apply_color_lut, pixel_array

    stored = pixel_array(data, index=0)
    kind = str(data.PhotometricInterpretation)
    if kind in _GREY:
        if stored.ndim != 2:
            raise ImageError(f"a DICOM file of {kind} with {stored.shape[-1]} samples a pixel")
        return _grey(stored, data, inverted=kind == "MONOCHROME1")
    if kind == "PALETTE COLOR":
        stored = apply_color_lut(stored, data)
    if stored.ndim != 3 or stored.shape[2] not in (3, 4):
        raise ImageError(f"a DICOM file of {kind}, expected grey or colour")
    colours = stored[..., :3]
    if colours.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(colours)).convert("L"))
    bits = colours.dtype.itemsize * 8 if kind == "PALETTE COLOR" else int(data.BitsStored)
    return to_uint8(luminance(colours), (0, 2**bits - 1))


def _grey(stored: np.ndarray, data: Any, inverted: bool) -> np.ndarray:
    """Stored values [H, W] -> uint8 [H, W]."""
    padding = _padding(stored, data)
    if padding is not None:
        if padding.all():
            raise ImageError("a DICOM file of nothing but padding")
        # Padding takes a value of the image, so that it does not widen the range of values.
        stored = np.where(padding, stored[~padding][0], stored)
    values, limits = _modality(stored, data)
    values, limits = _voi(values, limits, data)
    grey = to_uint8(values, limits)
    if inverted:
        grey = 255 - grey
    if padding is not None:
        grey[padding] = 0
    return grey


def _padding(stored: np.ndarray, data: Any) -> np.ndarray | None:
    """bool [H, W]: pixels that were added around the image (PS3.3 C.7.5.1.1.2); None where there are none."""
    first = data.get("PixelPaddingValue")
    if first is None:
        return None
    last = data.get("PixelPaddingRangeLimit")
    low, high = sorted((int(first), int(first if last is None else last)))
    is_padding = (stored >= low) & (stored <= high)
    return is_padding if is_padding.any() else None


def _modality(stored: np.ndarray, data: Any) -> tuple[np.ndarray, Limits | None]:
    """Values [H, W] after the modality LUT, and the range that they may take (None: the minimum and maximum)."""
    from pydicom.pixels import apply_modality_lut

    values = apply_modality_lut(stored, data)
    if data.get("ModalityLUTSequence"):
        return values, (0, 2 ** int(data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    if stored.dtype.kind == "f":
        return values, None
    bits, signed = int(data.get("BitsStored", data.BitsAllocated)), int(data.get("PixelRepresentation", 0))
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    low, high = sorted(end * slope + intercept for end in ends)
    return values, (low, high)


def _voi(values: np.ndarray, limits: Limits | None, data: Any) -> tuple[np.ndarray, Limits | None]:
    """Values [H, W] after the first VOI LUT, else the first window that shows something, else as they are."""
    if data.get("VOILUTSequence"):
        from pydicom.pixels import apply_voi

        if values.dtype.kind == "f":  # a LUT is indexed by whole numbers, which a slope of 1 has made floats
            values = np.rint(values).astype(np.int64)
        mapped = apply_voi(values, data, index=0)
        return mapped, _unless_far_wider((0, 2 ** int(data.VOILUTSequence[0].LUTDescriptor[2]) - 1), mapped)
    centre, width = (_first(data.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return values, _unless_far_wider(limits, values)
    shown = windowed(values, centre, width, str(data.get("VOILUTFunction") or "LINEAR"))
    if shown is None or (shown.min() == shown.max() and values.min() < values.max()):
        return values, _unless_far_wider(limits, values)
    return shown, (0.0, 1.0)


def _unless_far_wider(limits: Limits | None, values: np.ndarray) -> Limits | None:
    """The limits; None where they would leave less than 32 levels of grey to values [H, W] that have more."""
    if limits is None or limits[1] - limits[0] <= 255:
        return limits
    taken = float(values.max()) - float(values.min())
    return limits if 8 * taken >= limits[1] - limits[0] else None


def _first(value: Any) -> float | None:
    """A number, or the first of several that a file offers; None where it is blank."""
    first = next(iter(value if hasattr(value, "__iter__") else [value]), None)
    return None if first in (None, "") else float(first)


def windowed(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray | None:
    """Apply a window (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: numbers [H, W].
        function: LINEAR, LINEAR_EXACT or SIGMOID.

    Returns:
        float64 [H, W] in 0 .. 1; None for an impossible width.
    """
    values = values.astype(np.float64)
    if not np.isfinite([centre, width]).all() or width <= 0:
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width < 1:
        return None
    if width == 1:  # a step
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
