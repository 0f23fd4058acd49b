"""Small images in memory, as files of every format."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import cv2
import numpy as np
from PIL import Image

SIDE = 32
RAMP = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)  # 0 .. 1023
GREY = (RAMP // 4).astype(np.uint8)
SCALED = np.rint(RAMP * (255 / RAMP.max())).astype(np.uint8)
RLE = "1.2.840.10008.1.2.5"
JPEG = "1.2.840.10008.1.2.4.50"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """An image file of Pillow."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def deep_colour(values: np.ndarray, suffix: str = ".png") -> bytes:
    """uint16 [H, W, 3 or 4] (red, green, blue, alpha) -> a file with 16 bits a colour."""
    order = [2, 1, 0, 3][: values.shape[2]]
    return cv2.imencode(suffix, np.ascontiguousarray(values[..., order]))[1].tobytes()


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def dicom(
    pixels: np.ndarray | None,
    photometric: str = "MONOCHROME2",
    syntax: str = EXPLICIT,
    frames: int | None = None,
    encapsulated: bytes | None = None,
    **elements: Any,
) -> bytes:
    """A DICOM file.

    Args:
        pixels: [H, W], [H, W, 3] or [frames, H, W]; None for a file without an image.
        encapsulated: the compressed image; else RLE and JPEG 2000 are compressed here.
        elements: by keyword, laid over those that `pixels` asks for.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    native = syntax in (IMPLICIT, EXPLICIT, BIG_ENDIAN) or encapsulated is not None
    data.file_meta.TransferSyntaxUID = syntax if native else ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    data.PatientName = "Roe^Jane"
    if pixels is not None:
        colours = pixels.ndim == 3 and frames is None
        data.Rows, data.Columns = pixels.shape[-2:] if frames else pixels.shape[:2]
        data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
        data.SamplesPerPixel, data.PhotometricInterpretation = (3 if colours else 1), photometric
        if colours:
            data.PlanarConfiguration = 0
        if frames is not None:
            data.NumberOfFrames = frames
        data.PixelRepresentation = int(pixels.dtype.kind == "i")
    signed = pixels is not None and pixels.dtype.kind == "i"
    for name, value in elements.items():
        setattr(data, name, value)
        if name.startswith("PixelPadding"):
            data[name].VR = "SS" if signed else "US"
    if pixels is not None:
        data.HighBit = data.BitsStored - 1
        order = ">" if syntax == BIG_ENDIAN else "<"
        plain = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        data.PixelData = encapsulate([encapsulated]) if encapsulated is not None else plain + b"\0" * (len(plain) % 2)
        data["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 or encapsulated is not None else "OW"
    if not native:
        data.compress(syntax, generate_instance_uid=False)
    buffer = io.BytesIO()
    data.save_as(
        buffer,
        enforce_file_format=True,
        implicit_vr=syntax == IMPLICIT,
        little_endian=syntax != BIG_ENDIAN,
    )
    return buffer.getvalue()


def lut(first: int, values: list[int], bits: int) -> Any:
    """A sequence with one lookup table of 16-bit entries, for values from `first` on."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    table = Dataset()
    table.add_new("LUTDescriptor", "US", [len(values), first, bits])
    table.add_new("LUTData", "US", values)
    return Sequence([table])
