"""Reading of a DICOM file: one frame, decoded and displayed in 8 bits as PS3.3 C.11 says."""

from __future__ import annotations

import io
import logging
import mmap
import warnings
import zlib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import MAX_FILE_BYTES
from cxr_compare.data_prep.images.codestream import LOSSLESS, Codestream, read_codestream
from cxr_compare.data_prep.images.decode_errors import decode_error, plain_reason
from cxr_compare.data_prep.images.decoded_image import DecodedImage, decode_record, noise_doubts
from cxr_compare.data_prep.images.deep_pixels import DeepPixels
from cxr_compare.data_prep.images.dicom_display import deep_grey, show_colour, show_grey
from cxr_compare.data_prep.images.dicom_header import (
    burned_in_annotation,
    deflated_start,
    has_preamble,
    header_facts,
    ids_of,
    orientation,
    pixel_spacing,
)
from cxr_compare.data_prep.images.image_limits import TooLargeError, require_file, require_size
from cxr_compare.data_prep.images.jpeg import decode_jpeg
from cxr_compare.data_prep.images.jpeg2000 import require_whole_jpeg2000
from cxr_compare.data_prep.images.lossless_jpeg import lossless_doubts

_FRAME_GROUPS = (
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "PixelMeasuresSequence",
)
_INFLATED_BYTES = 1 << 22  # at a time
MAX_HEADER_READS = 1_000_000
"""Most reads that a header may take; one of 10,000 frames takes some 300,000."""
_DEFLATED = str(uid.DeflatedExplicitVRLittleEndian).encode()

# What pydicom logs it also gives as warnings, which the record keeps without the values quoted.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def read_dicom(path: Path | str, *, window: str | None = None, deep: bool = False) -> DecodedImage:
    """Read one DICOM file as the 8-bit image that a viewer would show first.

    These steps are applied in order:

    1. the modality LUT or rescale;
    2. the first VOI LUT, else the first window, else a range: all that 8 bits can hold, and in
       deeper images the 0.1 to 99.9 percentiles without padding;
    3. the presentation LUT;
    4. one inversion, for MONOCHROME1 and inverse presentation LUTs;
    5. black padding.

    An 8-bit MONOCHROME2 file without LUT or window therefore keeps its values. Of several frames
    the first is read. Colour becomes grey, overlays are ignored, and a missing preamble or meta
    header is accepted. ``record["warnings"]`` says which of these happened, and quotes warnings of
    the libraries.

    Args:
        path: Path of the file.
        window: Explanation of the VOI LUT or window to use instead of the first, such as "LUNG".
            Upper and lower case do not matter. If the file has no window of this name, the first is
            used. None uses the first.
        deep: True also returns the pixels before the window, after the modality LUT or rescale. For
            a colour image these are the 8-bit grey levels.

    Returns:
        The image, and facts about its decoding.

    Raises:
        InputError: The file is missing, no DICOM image, damaged or cut short.
        TooLargeError: The file or image is beyond the limits.

    Source:
        DICOM PS3.3 C.7.6.3, C.7.6.16, C.8.11.3 and C.11.
    """
    path = Path(path)
    require_file(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            image = _read(path, window, caught, deep=deep)
        except InputError:
            raise
        except MemoryError:
            raise TooLargeError(f"{path}: not enough memory to decode it") from None
        except Exception as error:  # noqa: BLE001 - decoders raise all kinds on broken files
            raise decode_error(path, error, " as DICOM") from None
    return image


def _read(
    path: Path, window: str | None, caught: list[warnings.WarningMessage], *, deep: bool
) -> DecodedImage:
    header, notes = _open(path)
    if "PixelData" not in header and any("End of file" in str(m.message) for m in caught):
        raise InputError(f"{path}: is cut short: its pixels are missing or incomplete")
    _require_image(path, header, notes)
    _bring_up_frame_groups(header)
    doubts: list[str] = []
    frame = _decode_first_frame(path, header, notes, doubts)
    if int(header.get("NumberOfFrames") or 1) > 1:
        notes.append(f"first of {int(header.NumberOfFrames)} frames")
    display_facts: dict[str, Any] = {}
    deep_pixels = None
    if frame.values.ndim == 3 or frame.photometric == "PALETTE COLOR":
        pixels = show_colour(frame.values, frame.photometric, header, notes)
        if deep:
            deep_pixels = DeepPixels.from_values(pixels, 0, 255)
    else:
        pixels, display_facts = show_grey(frame.values, header, notes, window)
        if deep:
            deep_pixels = deep_grey(frame.values, header, window)
    tags = list(header.keys())
    if any(0x6000 <= tag.group <= 0x60FF and tag.element == 0x3000 for tag in tags):
        notes.append("overlay left out")
    directions = orientation(header)
    if directions is not None and directions.startswith("R"):
        notes.append("mirrored: rows run to the patient's right")
    row_mm, column_mm = pixel_spacing(header)
    doubts += noise_doubts(pixels)
    record = decode_record(
        [*notes, *doubts, *map(plain_reason, caught)],
        transfer_syntax=str(header.file_meta.TransferSyntaxUID),
        decoder=frame.decoder,
        bits=int(header.BitsStored),
        photometric=str(header.PhotometricInterpretation),
        orientation=directions,
        burned_in_annotation=burned_in_annotation(header),
        **display_facts,
    )
    patient, instance = ids_of(header)
    return DecodedImage(
        pixels,
        record,
        spacing_row_mm=row_mm,
        spacing_col_mm=column_mm,
        header=header_facts(header),
        patient=patient,
        instance=instance,
        deep=deep_pixels,
        doubts=tuple(doubts),
    )


def _open(path: Path) -> tuple[FileDataset, list[str]]:
    """Read the data set; if the meta header is missing, assume pydicom's guess and note that."""
    notes: list[str] = []
    if not has_preamble(path):
        notes.append("no DICOM preamble")
    _refuse_inflation(path)
    with _LimitedReads(io.FileIO(str(path))) as file:
        header = pydicom.dcmread(file, force=True)
    if not hasattr(header, "file_meta"):
        header.file_meta = pydicom.dataset.FileMetaDataset()
    if "TransferSyntaxUID" not in header.file_meta:
        implicit, little = header.original_encoding
        guess = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
        header.file_meta.TransferSyntaxUID = guess if little else uid.ExplicitVRBigEndian
        notes.append(f"no transfer syntax, {header.file_meta.TransferSyntaxUID.name} assumed")
    return header, notes


class _LimitedReads(io.BufferedReader):
    """A file that refuses a header of too many elements; each of them takes a read."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_HEADER_READS:
            raise TooLargeError(f"{self.name}: its header has too many elements for a radiograph's")
        return super().read(size)


def _refuse_inflation(path: Path) -> None:
    """Refuse a deflated file that would inflate beyond the limit, before pydicom inflates it."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(_DEFLATED) < 0:  # cheaper than to read its header twice
            return
    start = deflated_start(path)
    if start is None:
        return
    with path.open("rb") as file:
        file.seek(start)
        _require_inflated(path, file.read(), MAX_FILE_BYTES)


def _require_inflated(path: Path, deflated: bytes, max_bytes: int) -> None:
    """Refuse content that inflates to more bytes, without keeping it in memory."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = 0
    pending = deflated
    while pending and not inflater.eof:
        inflated += len(inflater.decompress(pending, _INFLATED_BYTES))
        pending = inflater.unconsumed_tail
        if inflated > max_bytes:
            raise TooLargeError(f"{path}: inflates to more than {max_bytes >> 20} MiB")


def _require_image(path: Path, header: FileDataset, notes: list[str]) -> None:
    if "PixelData" not in header:
        if header.preamble is None and "SOPClassUID" not in header:
            raise InputError(f"{path}: is not a DICOM file")
        kind = header_facts(header)["modality"]
        floats = "FloatPixelData" in header or "DoubleFloatPixelData" in header
        what = "floating-point values, not an image" if floats else "no image"
        suffix = f" (modality {kind})" if kind else ""
        raise InputError(f"{path}: holds {what}{suffix}")
    if not header.PixelData:
        raise InputError(f"{path}: is cut short: its pixel data are empty")
    for keyword in ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation"):
        if header.get(keyword) in (None, ""):
            raise InputError(f"{path}: its header lacks {keyword}")
    require_size(path, int(header.Columns), int(header.Rows))
    bits = int(header.BitsAllocated)
    samples = int(header.get("SamplesPerPixel") or 1)
    if bits not in (8, 16):
        raise InputError(f"{path}: {bits} bits per value are no X-ray image; 8 or 16 are read")
    if samples not in (1, 3):
        raise InputError(f"{path}: {samples} values per pixel; 1 (grey) or 3 (colour) are read")
    greys = header.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    if greys != (samples == 1):
        raise InputError(
            f"{path}: its header says {samples} values per pixel, which its photometric "
            f"interpretation cannot be"
        )
    assumed = {"SamplesPerPixel": samples, "BitsStored": bits, "PixelRepresentation": 0}
    if samples > 1:
        assumed["PlanarConfiguration"] = 0
    for keyword, value in assumed.items():
        if header.get(keyword) is None:
            setattr(header, keyword, value)
            notes.append(f"no {keyword}, {value} assumed")


def _bring_up_frame_groups(header: FileDataset) -> None:
    """Copy the elements of an enhanced object's first frame to where plain objects have them."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (header.get(groups) or ())[:1]:
            for name in _FRAME_GROUPS:
                for item in (group.get(name) or ())[:1]:
                    header.update(item)


DECODERS: dict[str, tuple[str, ...]] = {
    uid.JPEGBaseline8Bit: ("simplejpeg", "pillow", "gdcm"),
    uid.JPEGExtended12Bit: ("simplejpeg", "pillow", "gdcm-12bit"),
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

Libraries differ by a grey level or two. libjpeg-turbo, behind simplejpeg and Pillow, is four times
as fast as the others; simplejpeg is used for grey images.
"""

# Images of these have no bits beyond their depth, and pydicom gives them their sign.
_SYNTAXES_OF_EXACT_DEPTH = frozenset({*uid.JPEG2000TransferSyntaxes, *uid.JPEGLSTransferSyntaxes})


@dataclass(frozen=True)
class _Frame:
    """A decoded frame."""

    values: np.ndarray  # (H, W) or (H, W, C)
    decoder: str
    photometric: str  # photometric interpretation of the values


def _decode_first_frame(
    path: Path, header: FileDataset, notes: list[str], doubts: list[str]
) -> _Frame:
    syntax = header.file_meta.TransferSyntaxUID
    is_standard = syntax in uid.UID_dictionary and syntax.is_transfer_syntax
    if is_standard and not syntax.is_encapsulated:
        return _read_uncompressed(path, header, notes)
    if syntax not in DECODERS:
        name = syntax.name if is_standard else "its transfer syntax"
        raise InputError(f"{path}: {name} is not read; store it uncompressed")
    return _decompress(path, header, notes, doubts)


def _read_uncompressed(path: Path, header: FileDataset, notes: list[str]) -> _Frame:
    if header["PixelData"].is_undefined_length:
        raise InputError(
            f"{path}: its pixels are compressed and its header does not say how; give it its "
            f"transfer syntax"
        )
    _require_whole(path, header)
    values, photometric = _by_pydicom(header, "")
    return _Frame(_significant_bits(values, header, notes), "native", photometric)


def _decompress(path: Path, header: FileDataset, notes: list[str], doubts: list[str]) -> _Frame:
    """Decode a compressed frame by the first decoder of its syntax that is able to."""
    syntax = header.file_meta.TransferSyntaxUID
    frame, inside = _require_matching_frame(path, header)
    is_read_by_libjpeg = inside is not None and inside.is_read_by_libjpeg
    if inside is not None and inside.process == 0:
        doubts += require_whole_jpeg2000(path, frame, inside.tiles)
    if is_read_by_libjpeg:
        grey = decode_jpeg(path, frame, "GRAY", notes, doubts)
        if grey is not None and _is_plain_grey(header):
            return _Frame(grey, "simplejpeg", str(header.PhotometricInterpretation))
    depth: dict[str, Any] = {}
    if inside is not None and inside.process == LOSSLESS:  # GDCM clears what lies above the depth
        depth = {"bits_stored": max(inside.bits, int(header.BitsStored))}
    reasons: list[str] = []
    for name in DECODERS[syntax]:
        if name == "simplejpeg" or (name == "pillow" and not is_read_by_libjpeg):
            continue
        try:
            decode = _by_gdcm_12_bit if name == "gdcm-12bit" else _by_pydicom
            values, photometric = decode(header, name, **depth)
        except Exception as error:  # noqa: BLE001 - the next decoder may do better
            reasons.append(f"{name}: {plain_reason(error).removeprefix(f'{name}: ')}")
            continue
        if depth:
            coded = values
            if values.ndim == 3:
                coded, _ = _by_pydicom(header, name, as_rgb=False, **depth)
            doubts += lossless_doubts(path, frame, coded)
        if name == "gdcm-12bit" and _reads_beyond_end(header, frame, values):
            raise InputError(f"{path}: is cut short: its JPEG data end before the image")
        if syntax not in _SYNTAXES_OF_EXACT_DEPTH:
            values = _significant_bits(values, header, notes)
        return _Frame(values, name, photometric)
    tried = "; ".join(reasons)
    raise InputError(
        f"{path}: {syntax.name} cannot be decoded ({tried}); it is cut short, damaged or rare: "
        f"send it again, or store it uncompressed"
    )


def _by_pydicom(header: FileDataset, name: str, **changed: Any) -> tuple[np.ndarray, str]:
    decoder = get_decoder(header.file_meta.TransferSyntaxUID)
    if name and name not in decoder.available_plugins:
        raise ModuleNotFoundError("is not installed")
    # Where an Adobe marker names the colours, Pillow gives RGB; pydicom would turn it once more.
    is_rgb_by_pillow = (
        name == "pillow"
        and header.SamplesPerPixel == 3
        and b"\xff\xee\x00\x0eAdobe" in _first_frame(header)[0]
    )
    options: dict[str, Any] = {
        "correct_unused_bits": False,
        "as_rgb": not is_rgb_by_pillow,
        **changed,
    }
    values, facts = decoder.as_array(header, index=0, decoding_plugin=name, **options)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    photometric = "RGB" if is_rgb_by_pillow else str(facts["photometric_interpretation"])
    return np.ascontiguousarray(values), photometric


def _is_plain_grey(header: FileDataset) -> bool:
    """Return True for grey of 8 bits without sign, as in the large public data sets."""
    return (
        header.SamplesPerPixel == 1
        and (header.BitsAllocated, header.BitsStored, header.PixelRepresentation) == (8, 8, 0)
        and header.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2")
    )


def _reads_beyond_end(header: FileDataset, frame: bytes, values: np.ndarray) -> bool:
    """Return True if GDCM reads on in bytes behind a 12-bit JPEG, whose data then lack some."""
    end = frame.rfind(b"\xff\xd9")
    try:
        longer, _ = _by_gdcm_12_bit(header, "", frame[:end] + b"\x55" * 16 + frame[end:])
    except Exception:  # noqa: BLE001 - where it is strict, it would have refused less as well
        return False
    return not np.array_equal(values, longer)


def _by_gdcm_12_bit(header: FileDataset, name: str, frame: bytes = b"") -> tuple[np.ndarray, str]:
    """Decode 12-bit extended JPEG, which gdcm can and pydicom does not let it."""
    whole, inside = _first_frame(header)
    frame = frame or whole
    if inside is None or inside.samples != 1 or not 8 < inside.bits <= 12:
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
    image.SetDimensions((inside.width, inside.height, 1))
    image.SetDataElement(element)
    photometric = str(header.PhotometricInterpretation)
    kind = gdcm.PhotometricInterpretation.GetPIType(photometric)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    syntax = gdcm.TransferSyntax.GetTSType(str(uid.JPEGExtended12Bit))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    # 12 allocated: gdcm tries the codec of the allocated depth first, and prints that it failed.
    image.SetPixelFormat(gdcm.PixelFormat(1, 12, 12, 11, 0))
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")
    values = np.frombuffer(buffer, "<u2").reshape(inside.height, inside.width)
    if header.PixelRepresentation:
        return values.astype(np.int16), photometric
    # The loss can overshoot the depth; cutting off that bit would turn white into black.
    return np.minimum(values, (1 << int(header.BitsStored)) - 1).astype(np.uint16), photometric


def _first_frame(header: Dataset) -> tuple[bytes, Codestream | None]:
    frames = int(header.get("NumberOfFrames") or 1)
    frame = get_frame(header.PixelData, 0, number_of_frames=frames)
    return frame, read_codestream(frame)


def _require_whole(path: Path, header: Dataset) -> None:
    """Refuse uncompressed pixels that are fewer than the header announces."""
    pixels = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames") or 1)
    expected = pixels * header.SamplesPerPixel * int(header.BitsAllocated) // 8
    if header.PhotometricInterpretation == "YBR_FULL_422":  # two pixels share their colour
        expected = expected * 2 // 3
    present = len(header.PixelData)
    if present < expected:
        raise InputError(f"{path}: is cut short: {present:,} of {expected:,} bytes of pixels")


def _require_matching_frame(path: Path, header: Dataset) -> tuple[bytes, Codestream | None]:
    """Refuse a compressed image other than the header announces.

    Returns the first frame and its header, which is None for RLE.
    """
    frame, inside = _first_frame(header)
    samples = int(header.get("SamplesPerPixel") or 1)
    bits = int(header.BitsAllocated)
    announced = Codestream(int(header.Columns), int(header.Rows), bits, samples)
    if len(frame) > 2 * samples * bits // 8 * announced.width * announced.height + (1 << 20):
        raise InputError(f"{path}: its compressed data are larger than the image; it is damaged")
    if header.file_meta.TransferSyntaxUID == uid.RLELossless:
        return frame, None
    if inside is None:
        raise InputError(f"{path}: its pixel data hold no compressed image; it is damaged")
    if inside[:2] != announced[:2] or inside.samples != samples or inside.bits > bits:
        raise InputError(
            f"{path}: the image inside is {_description(inside)}, the header says "
            f"{_description(announced)}"
        )
    # GDCM gives no image without its end, and CharLS reads on through foreign memory to find it.
    has_end = frame.rfind(b"\xff\xd9") > frame.find(b"\xff\xda")
    if inside.process and not inside.is_read_by_libjpeg and not has_end:
        raise InputError(f"{path}: is cut short: its JPEG image has no end")
    return frame, inside


def _description(image: Codestream) -> str:
    colour = {1: "grey", 3: "colour"}.get(image.samples, f"{image.samples} channels")
    return f"{image.width} x {image.height} px, {colour}, {image.bits} bits"


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
