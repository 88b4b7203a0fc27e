"""Decoding of the first frame of a DICOM file to its stored values."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.jpeg import decode_jpeg
from cxr_compare.data_prep.images.refused_files import plain_reason

DECODERS: dict[str, tuple[str, ...]] = {
    uid.JPEGBaseline8Bit: ("pillow", "gdcm"),
    uid.JPEGExtended12Bit: ("pillow", "gdcm-12bit"),
    uid.JPEGLossless: ("gdcm",),
    uid.JPEGLosslessSV1: ("gdcm",),
    uid.JPEGLSLossless: ("pyjpegls", "gdcm"),
    uid.JPEGLSNearLossless: ("pyjpegls", "gdcm"),
    uid.JPEG2000Lossless: ("pylibjpeg", "gdcm"),
    uid.JPEG2000: ("pylibjpeg", "gdcm"),
    uid.HTJ2KLossless: ("pylibjpeg",),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg",),
    uid.HTJ2K: ("pylibjpeg",),
    uid.RLELossless: ("pydicom",),
}
"""Decoders by transfer syntax, in the order in which they are tried.

The order is fixed because libraries differ by a grey level or two. Grey of 8 bits in JPEG is
decoded by simplejpeg before any of these.
"""
# Images of these have no bits beyond their depth, and pydicom gives them their sign.
_SYNTAXES_OF_EXACT_DEPTH = frozenset({*uid.JPEG2000TransferSyntaxes, *uid.JPEGLSTransferSyntaxes})
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # 0xF7: JPEG-LS
_READ_BY_LIBJPEG = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_LOSSLESS = 0xC3
_START_OF_SCAN = 0xDA
_WITHOUT_LENGTH = range(0xD0, 0xDA)  # restarts, start and end: none belongs into a header
_END_OF_IMAGE = b"\xff\xd9"
_START_OF_JPEG2000 = b"\xff\x4f\xff\x51"


@dataclass(frozen=True)
class Frame:
    """A decoded frame.

    Attributes:
        values: Stored values, shape ``(H, W)`` or ``(H, W, 3)``.
        decoder: Library that decoded it.
        photometric: Photometric interpretation of the values.
    """

    values: np.ndarray
    decoder: str
    photometric: str


def decode_first_frame(
    path: Path, header: FileDataset, notes: list[str], doubts: list[str]
) -> Frame:
    """Decode the first frame, without bits that are no part of the values.

    Notes are appended to `notes`, and reasons why data may be missing to `doubts`. A transfer
    syntax that is not read is refused, as are pixel data that are cut short, damaged, or another
    image than the header says.
    """
    syntax = header.file_meta.TransferSyntaxUID
    is_standard = syntax in uid.UID_dictionary and syntax.is_transfer_syntax
    if is_standard and not syntax.is_encapsulated:
        _require_whole(path, header)
        values, photometric = _by_pydicom(header, "", int(header.BitsStored))
        return Frame(_significant_bits(values, header, notes), "native", photometric)
    if syntax not in DECODERS:
        name = syntax.name if is_standard else "its transfer syntax"
        raise InputError(f"{path}: {name} is not read; store it uncompressed")
    return _decompress(path, header, notes, doubts)


def _require_whole(path: Path, header: Dataset) -> None:
    """Refuse uncompressed pixels that are compressed or fewer than the header announces."""
    if header["PixelData"].is_undefined_length:
        raise InputError(
            f"{path}: its pixels are compressed and its header does not say how; give it its "
            f"transfer syntax"
        )
    pixels = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames") or 1)
    expected = pixels * header.SamplesPerPixel * int(header.BitsAllocated) // 8
    if header.PhotometricInterpretation == "YBR_FULL_422":  # two pixels share their colour
        expected = expected * 2 // 3
    present = len(header.PixelData)
    if present < expected:
        raise InputError(f"{path}: is cut short: {present:,} of {expected:,} bytes of pixels")


def _decompress(path: Path, header: FileDataset, notes: list[str], doubts: list[str]) -> Frame:
    """Decode a compressed frame by the first decoder of its syntax that is able to."""
    syntax = header.file_meta.TransferSyntaxUID
    coded = _require_matching_frame(path, header)
    is_8_bit_jpeg = coded is not None and coded.bits == 8 and coded.process in _READ_BY_LIBJPEG
    if is_8_bit_jpeg:
        grey = decode_jpeg(path, _first_frame(header), "GRAY", notes, doubts)
        if _is_plain_grey(header):
            return Frame(grey, "simplejpeg", str(header.PhotometricInterpretation))
    depth = int(header.BitsStored)
    if coded is not None and coded.process == _LOSSLESS:  # GDCM clears what lies above the depth
        depth = max(coded.bits, depth)
    reasons: list[str] = []
    for name in DECODERS[syntax]:
        if name == "pillow" and not is_8_bit_jpeg:
            continue
        decoder = _by_gdcm_12_bit if name == "gdcm-12bit" else _by_pydicom
        decode = partial(decoder, name=name, depth=depth)
        try:
            values, photometric = decode(header)
        except Exception as error:  # noqa: BLE001 - the next decoder may do better
            reasons.append(f"{name}: {plain_reason(error).removeprefix(f'{name}: ')}")
            continue
        if name.startswith("gdcm") and _reads_beyond_end(header, values, decode):
            raise InputError(f"{path}: is cut short: its data end before the image")
        if syntax not in _SYNTAXES_OF_EXACT_DEPTH:
            values = _significant_bits(values, header, notes)
        return Frame(values, name, photometric)
    raise InputError(
        f"{path}: {syntax.name} cannot be decoded ({'; '.join(reasons)}); it is cut short, damaged "
        f"or rare: send it again, or store it uncompressed"
    )


def _by_pydicom(header: FileDataset, name: str, depth: int) -> tuple[np.ndarray, str]:
    decoder = get_decoder(header.file_meta.TransferSyntaxUID)
    if name and name not in decoder.available_plugins:
        raise ModuleNotFoundError("is not installed")
    # Where an Adobe marker names the colours, Pillow gives RGB; pydicom would turn it once more.
    is_rgb_by_pillow = (
        name == "pillow"
        and header.SamplesPerPixel == 3
        and b"\xff\xee\x00\x0eAdobe" in _first_frame(header)
    )
    options: dict[str, Any] = {
        "bits_stored": depth,
        "correct_unused_bits": False,
        "as_rgb": not is_rgb_by_pillow,
    }
    values, facts = decoder.as_array(header, index=0, decoding_plugin=name, **options)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    photometric = "RGB" if is_rgb_by_pillow else str(facts["photometric_interpretation"])
    return np.ascontiguousarray(values), photometric


def _by_gdcm_12_bit(header: FileDataset, name: str, depth: int) -> tuple[np.ndarray, str]:
    """Decode 12-bit extended JPEG, which gdcm can and pydicom does not let it."""
    frame = _first_frame(header)
    coded = _read_jpeg_header(frame)
    if coded is None or coded.samples != 1 or not 8 < coded.bits <= 12:
        raise ValueError("not grey of 9 to 12 bits")
    gdcm: Any = import_module("gdcm")  # its names come from C, unknown to mypy
    fragment = gdcm.Fragment()
    fragments = gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(frame)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((coded.width, coded.height, 1))
    image.SetDataElement(element)
    photometric = str(header.PhotometricInterpretation)
    kind = gdcm.PhotometricInterpretation.GetPIType(photometric)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    syntax = gdcm.TransferSyntax.GetTSType(str(uid.JPEGExtended12Bit))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    # 12 allocated: gdcm tries the codec of the allocated depth first, and prints that it failed.
    image.SetPixelFormat(gdcm.PixelFormat(1, 12, 12, 11, 0))
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")
    values = np.frombuffer(buffer, "<u2").reshape(coded.height, coded.width)
    if header.PixelRepresentation:
        return values.astype(np.int16), photometric
    # The loss can overshoot the depth; cutting off that bit would turn white into black.
    return np.minimum(values, (1 << depth) - 1).astype(np.uint16), photometric


def _reads_beyond_end(
    header: FileDataset,
    values: np.ndarray,
    decode: Callable[[FileDataset], tuple[np.ndarray, str]],
) -> bool:
    """Return True if bytes behind the data change the image, so that the data lack some.

    GDCM fills what is missing and does not tell.
    """
    frame = _first_frame(header)
    end = frame.rfind(_END_OF_IMAGE)
    longer = copy.copy(header)
    longer.PixelData = encapsulate([frame[:end] + b"\x55" * 16 + frame[end:]])
    longer.NumberOfFrames = 1
    longer.pop("ExtendedOffsetTable", None)
    try:
        return not np.array_equal(values, decode(longer)[0])
    except Exception:  # noqa: BLE001 - where it is strict, it would have refused less as well
        return False


def _first_frame(header: Dataset) -> bytes:
    frames = int(header.get("NumberOfFrames") or 1)
    return get_frame(header.PixelData, 0, number_of_frames=frames)


def _is_plain_grey(header: FileDataset) -> bool:
    """Return True for grey of 8 bits without sign, as in the large public data sets."""
    depth = (header.BitsAllocated, header.BitsStored, header.PixelRepresentation)
    is_grey = header.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2")
    return is_grey and header.SamplesPerPixel == 1 and depth == (8, 8, 0)


class _Coded(NamedTuple):
    """Image size and depth by the header of compressed JPEG, JPEG-LS or JPEG 2000 data."""

    width: int
    height: int
    samples: int
    bits: int
    process: int = 0  # marker of the start of frame; 0 for JPEG 2000

    def __str__(self) -> str:
        colour = {1: "grey", 3: "colour"}.get(self.samples, f"{self.samples} channels")
        return f"{self.width} x {self.height} px, {colour}, {self.bits} bits"


def _require_matching_frame(path: Path, header: Dataset) -> _Coded | None:
    """Refuse a compressed image other than the header announces, before it is decoded.

    Returns the header of the first frame; None for RLE, which has none.
    """
    frame = _first_frame(header)
    samples = int(header.SamplesPerPixel)
    bits = int(header.BitsAllocated)
    announced = _Coded(int(header.Columns), int(header.Rows), samples, bits)
    if len(frame) > 2 * samples * bits // 8 * announced.width * announced.height + (1 << 20):
        raise InputError(f"{path}: its compressed data are larger than the image; it is damaged")
    if header.file_meta.TransferSyntaxUID == uid.RLELossless:
        return None
    coded = _read_jpeg_header(frame) or _read_jpeg_2000_header(frame)
    if coded is None:
        raise InputError(f"{path}: its pixel data hold no compressed image; it is damaged")
    if coded[:3] != announced[:3] or coded.bits > bits:
        raise InputError(f"{path}: the image inside is {coded}, the header says {announced}")
    # GDCM gives no image without its end, and CharLS reads on through foreign memory to find it.
    if frame.rfind(_END_OF_IMAGE) < 0:
        raise InputError(f"{path}: is cut short: its compressed image has no end")
    return coded


def _read_jpeg_header(frame: bytes) -> _Coded | None:
    """Walk from segment to segment up to the scan: GDCM ends its process where one is broken."""
    coded = None
    position = 2
    while frame[:2] == b"\xff\xd8" and position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == _START_OF_SCAN:
            return coded
        if marker < 0xC0 or marker in _WITHOUT_LENGTH:
            return None
        if marker in _START_OF_FRAME and position + 10 <= len(frame):
            bits, height, width, samples = struct.unpack_from(">BHHB", frame, position + 4)
            coded = _Coded(width, height, samples, bits, marker)
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return None


def _read_jpeg_2000_header(frame: bytes) -> _Coded | None:
    start = frame.find(_START_OF_JPEG2000, 0, 1 << 16)  # behind the boxes of a JP2 file
    if start < 0 or len(frame) < start + 43:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    samples, depth = struct.unpack_from(">HB", frame, start + 40)
    return _Coded(right - left, bottom - top, samples, (depth & 0x7F) + 1)


def _significant_bits(values: np.ndarray, header: Dataset, notes: list[str]) -> np.ndarray:
    """Keep the bits that the header calls stored: overlays may lie in the others."""
    # DICOM PS3.5 8.1.1; older editions let the high bit lie above the stored bits
    allocated = values.dtype.itemsize * 8
    stored = int(header.BitsStored)
    if stored >= allocated:
        return values
    high = header.get("HighBit")
    lowest = int(high) + 1 - stored if isinstance(high, int) else 0
    if not 0 <= lowest <= allocated - stored:
        notes.append(f"HighBit {high} cannot be and was ignored")
        lowest = 0
    elif lowest:
        used = int(np.bitwise_or.reduce(values, axis=None)) & ((1 << allocated) - 1)
        if used < 1 << stored and used & ((1 << lowest) - 1):
            notes.append(f"HighBit {high} is not true of the values and was ignored")
            lowest = 0
    # Up against the sign bit and back: clears what is above, and extends the sign.
    left = allocated - stored - lowest
    return (values << left) >> (allocated - stored)
