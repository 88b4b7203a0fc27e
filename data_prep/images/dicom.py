"""DICOM pixels: one frame, decoded and displayed as PS3.3 C.11 says, in 8 bits."""

from __future__ import annotations

import logging
import mmap
import warnings
import zlib
from pathlib import Path
from typing import Any

import pydicom
from pydicom import uid
from pydicom.dataset import FileDataset

from data_prep.contracts.errors import InputError
from data_prep.images.decoded_image import (
    MAX_FILE_BYTES,
    DecodedImage,
    DeepPixels,
    TooLargeError,
    decode_record,
    plain_reason,
    require_file,
    require_size,
)
from data_prep.images.dicom_display import deep_grey, show_colour, show_grey
from data_prep.images.dicom_frames import decode_first_frame
from data_prep.images.dicom_header import (
    burned_in_annotation,
    deflated_start,
    has_preamble,
    header_facts,
    orientation,
    pixel_spacing,
)

_FRAME_GROUPS = (
    "PixelValueTransformationSequence", "FrameVOILUTSequence", "PixelMeasuresSequence",
)  # fmt: skip
_STEP = 1 << 22  # bytes that are inflated at a time
_DEFLATED = str(uid.DeflatedExplicitVRLittleEndian).encode()

# What pydicom logs it also gives as warnings, which the record keeps without the values quoted.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def read_dicom(path: Path | str, *, window: str | None = None, deep: bool = False) -> DecodedImage:
    """Read one DICOM file as the 8-bit image that a viewer would show first.

    Modality LUT or rescale; the first VOI LUT, else the first window, else a range (all that 8
    bits can hold, of deeper images the 0.1 to 99.9 percentiles without padding); presentation
    LUT; MONOCHROME1 and inverse presentation LUTs inverted once; padding black. So an 8-bit
    MONOCHROME2 file without LUT or window keeps its values. Of several frames the first is
    read; colour becomes grey; overlays are left out. That is noted in ``record["warnings"]``,
    as is what the libraries complain of.

    Args:
        path: The file. A missing preamble or meta header is tolerated and noted.
        window: Explanation of the VOI LUT or window to use instead of the first, such as
            ``"LUNG"``; case does not matter, and a file without it is read as without.
        deep: Whether to give the pixels before the window as well, with the modality LUT or
            rescale applied; of colour, the 8-bit grey.

    Returns:
        The image and its record.

    Raises:
        InputError: Not DICOM, no image in it, larger than the limits, truncated, or no
            decoder reads it.

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
            reason = plain_reason(error)
            raise InputError(f"{path}: cannot be decoded as DICOM ({reason})") from None
    return image


def _read(
    path: Path, window: str | None, caught: list[warnings.WarningMessage], *, deep: bool
) -> DecodedImage:
    header, notes = _open(path)
    if "PixelData" not in header and any("End of file" in str(m.message) for m in caught):
        raise InputError(f"{path}: is cut short: its pixels are missing or incomplete")
    _require_image(path, header, notes)
    _bring_up_frame_groups(header)
    values, decoder, photometric = decode_first_frame(path, header, notes)
    if int(header.get("NumberOfFrames") or 1) > 1:
        notes.append(f"first of {int(header.NumberOfFrames)} frames")
    known: dict[str, Any] = {}
    if values.ndim == 3 or photometric == "PALETTE COLOR":
        pixels = show_colour(values, photometric, header, notes)
        whole_depth = DeepPixels.of(pixels, 0, 255) if deep else None
    else:
        pixels, known = show_grey(values, header, notes, window)
        whole_depth = deep_grey(values, header, window) if deep else None
    tags = list(header.keys())
    if any(0x6000 <= tag.group <= 0x60FF and tag.element == 0x3000 for tag in tags):
        notes.append("overlay left out")
    turned = orientation(header)
    if turned is not None and turned.startswith("R"):
        notes.append("mirrored: rows run to the patient's right")
    row_mm, column_mm = pixel_spacing(header)
    facts = header_facts(header)
    record = decode_record(
        pixels,
        notes + [plain_reason(message) for message in caught],
        transfer_syntax=str(header.file_meta.TransferSyntaxUID),
        decoder=decoder,
        bits=int(header.BitsStored),
        photometric=str(header.PhotometricInterpretation),
        orientation=turned,
        burned_in_annotation=burned_in_annotation(header),
        **known,
    )
    return DecodedImage(pixels, record, row_mm, column_mm, facts, deep=whole_depth)


def _open(path: Path) -> tuple[FileDataset, list[str]]:
    """Read the data set; where the meta header is missing, take pydicom's guess and say so."""
    notes: list[str] = []
    if not has_preamble(path):
        notes.append("no DICOM preamble")
    _refuse_inflation(path)
    header = pydicom.dcmread(path, force=True)
    if not hasattr(header, "file_meta"):
        header.file_meta = pydicom.dataset.FileMetaDataset()
    if "TransferSyntaxUID" not in header.file_meta:
        implicit, little = header.original_encoding
        guess = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
        header.file_meta.TransferSyntaxUID = guess if little else uid.ExplicitVRBigEndian
        notes.append(f"no transfer syntax, {header.file_meta.TransferSyntaxUID.name} assumed")
    return header, notes


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


def _require_inflated(where: object, deflated: bytes, most: int) -> None:
    """Refuse content that is more than `most` bytes inside, without holding it."""
    inflater, inflated, pending = zlib.decompressobj(-zlib.MAX_WBITS), 0, deflated
    while pending and not inflater.eof:
        inflated += len(inflater.decompress(pending, _STEP))
        pending = inflater.unconsumed_tail
        if inflated > most:
            raise TooLargeError(f"{where}: inflates to more than {most >> 20} MiB")


def _require_image(path: Path, header: FileDataset, notes: list[str]) -> None:
    if "PixelData" not in header:
        if header.preamble is None and "SOPClassUID" not in header:
            raise InputError(f"{path}: is not a DICOM file")
        kind = header_facts(header)["modality"]
        floats = "FloatPixelData" in header or "DoubleFloatPixelData" in header
        what = "floating-point values, not an image" if floats else "no image"
        raise InputError(f"{path}: holds {what}" + (f" (modality {kind})" if kind else ""))
    for keyword in ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation"):
        if header.get(keyword) in (None, ""):
            raise InputError(f"{path}: its header lacks {keyword}")
    require_size(path, int(header.Columns), int(header.Rows))
    bits, samples = int(header.BitsAllocated), int(header.get("SamplesPerPixel") or 1)
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
    """Put what an enhanced object says of its first frame where plain objects say it."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (header.get(groups) or ())[:1]:
            for name in _FRAME_GROUPS:
                for item in (group.get(name) or ())[:1]:
                    header.update(item)
