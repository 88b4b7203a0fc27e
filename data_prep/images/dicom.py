"""Reading of a DICOM file: one frame, decoded and displayed in 8 bits as PS3.3 C.11 says."""

from __future__ import annotations

import io
import logging
import mmap
import warnings
import zlib
from pathlib import Path
from typing import Any

import pydicom
from pydicom import uid
from pydicom.dataset import FileDataset

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import MAX_FILE_BYTES
from cxr_compare.data_prep.images.decoded_image import DecodedImage, decode_record, noise_doubts
from cxr_compare.data_prep.images.deep_pixels import DeepPixels
from cxr_compare.data_prep.images.dicom_display import show_colour, show_grey
from cxr_compare.data_prep.images.dicom_frame import decode_first_frame
from cxr_compare.data_prep.images.dicom_header import (
    burned_in_annotation,
    deflated_start,
    has_preamble,
    header_facts,
    ids_of,
    orientation,
    pixel_spacing,
)
from cxr_compare.data_prep.images.refused_files import TooLargeError, plain_reason, require_size

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


def read_dicom(
    path: Path, caught: list[warnings.WarningMessage], *, deep: bool = False
) -> DecodedImage:
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
    header is accepted. ``record["warnings"]`` says which of these happened, and quotes the
    libraries' warnings, which the caller records in `caught`. With `deep`, the pixels after step 1
    are returned, too; for a colour image these are the 8-bit grey levels.

    An `InputError` says that the file is no DICOM image, damaged or cut short, and a
    `TooLargeError` that it is beyond the limits. Decoders raise all kinds of errors as well.

    Source:
        DICOM PS3.3 C.7.6.3, C.7.6.16, C.8.11.3 and C.11.
    """
    header, notes = _open(path)
    if "PixelData" not in header and any("End of file" in str(m.message) for m in caught):
        raise InputError(f"{path}: is cut short: its pixels are missing or incomplete")
    _require_image(path, header, notes)
    _bring_up_frame_groups(header)
    doubts: list[str] = []
    frame = decode_first_frame(path, header, notes, doubts)
    if int(header.get("NumberOfFrames") or 1) > 1:
        notes.append(f"first of {int(header.NumberOfFrames)} frames")
    display_facts: dict[str, Any] = {}
    deep_pixels = None
    if frame.values.ndim == 3 or frame.photometric == "PALETTE COLOR":
        pixels = show_colour(frame.values, frame.photometric, header, notes)
        if deep:
            deep_pixels = DeepPixels.from_values(pixels, 0, 255)
    else:
        shown = show_grey(frame.values, header, notes, deep=deep)
        pixels = shown.pixels
        display_facts = shown.facts
        deep_pixels = shown.deep
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
