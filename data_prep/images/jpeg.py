"""Decoding of 8-bit JPEG images, with a check that no data are missing.

Decoders fill missing parts with grey, and most of them do so without a message.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import simplejpeg

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.codestream import (
    HUFFMAN_TABLES,
    PROGRESSIVE,
    RESTART_INTERVAL,
    SCAN,
    SEQUENTIAL,
    START_OF_FRAME,
    read_codestream,
    segments,
)
from cxr_compare.data_prep.images.image_limits import TooLargeError

_ARITHMETIC_CODING = 0xCC
_QUANTISATION_TABLES = 0xDB
_IMAGE_MARKERS = START_OF_FRAME | {
    HUFFMAN_TABLES,
    _ARITHMETIC_CODING,
    _QUANTISATION_TABLES,
    RESTART_INTERVAL,
    SCAN,
}
MAX_SCANS = 64
"""Most scans of a progressive JPEG: each goes over the whole image; encoders write ten."""
_MAX_PADDING_BYTES = 64
_NO_BIT = 99  # lowest bit of a coefficient of which none has arrived


def decode_jpeg(
    path: Path, frame: bytes, colours: str, notes: list[str], doubts: list[str]
) -> np.ndarray | None:
    """Decode an 8-bit JPEG, and refuse an image that is cut short or damaged.

    The pixels equal those of Pillow. Pillow uses the same libjpeg-turbo, but does not tell which
    parts the library had to make up.

    Args:
        path: Path of the file, for messages.
        frame: Bytes of the compressed image.
        colours: Colour space of the result: ``GRAY``, ``RGB`` or ``CMYK``.
        notes: List to which warnings of libjpeg-turbo are appended.
        doubts: List to which reasons are appended why some data may be missing.

    Returns:
        Values, uint8, shape ``(H, W)`` or ``(H, W, C)``; None if libjpeg-turbo cannot read the
        image directly, although Pillow perhaps can.

    Raises:
        InputError: The image is cut short or damaged.
    """
    try:
        doubts += _missing_scans(path, frame)
    except InputError:
        raise
    except (IndexError, KeyError, ValueError):
        raise InputError(f"{path}: is damaged: its JPEG has a scan of no channel") from None
    try:
        return _decode(frame, colours)
    except ValueError as error:
        complaint = str(error)
    # libjpeg-turbo tells its first complaint alone: try again without the harmless ones.
    try:
        _decode(_without_metadata(frame), colours)
    except ValueError as error:
        complaint = str(error)
        if "remature end" in complaint:
            raise InputError(f"{path}: is cut short: its JPEG data end before the image") from None
        if complaint.startswith("Corrupt") and "extraneous" not in complaint:
            raise InputError(f"{path}: is damaged ({complaint})") from None
        # Before the end, padding is harmless, unless parts of the image may be skipped.
        padding = re.search(r" (\d+) extraneous bytes before marker 0xd9", complaint)
        restarts = any(marker == RESTART_INTERVAL for marker, _, _ in segments(frame))
        if padding is None or restarts or int(padding[1]) > _MAX_PADDING_BYTES:
            doubts.append(f"some of its JPEG data may be missing ({complaint})")
    notes.append(complaint)
    try:
        return _decode(frame, colours, strict=False)
    except ValueError:
        return None


def _decode(frame: bytes, colours: str, *, strict: bool = True) -> np.ndarray:
    pixels: np.ndarray = simplejpeg.decode_jpeg(frame, colours, strict=strict)
    return pixels[..., 0] if colours == "GRAY" else pixels


def _without_metadata(frame: bytes) -> bytes:
    """Return the segments of a JPEG that hold its image, with an end marker."""
    header = read_codestream(frame)
    is_sequential = header is not None and header.process in SEQUENTIAL
    parts = [b"\xff\xd8"]
    for marker, body, data in segments(frame):
        if marker not in _IMAGE_MARKERS:
            continue
        if marker == SCAN and is_sequential:
            body = body[:-3] + b"\x00\x3f\x00"  # other values have no meaning here
        parts += [struct.pack(">BBH", 0xFF, marker, len(body) + 2), body]
        if marker == SCAN:
            parts.append(data)
    return b"".join(parts) + b"\xff\xd9"


def _missing_scans(path: Path, frame: bytes) -> list[str]:
    """Refuse a JPEG of too many scans, or without one for a channel; doubt a coarse one.

    A scan brings coefficients of channels, down to a bit (ITU-T T.81 B.2.3 and G.1.1.1).
    """
    # The lowest bit of each coefficient that has arrived, by channel.
    lowest_bits: dict[int, list[int]] = {}
    scans = 0
    is_progressive = False
    for marker, body, _ in segments(frame):
        if marker in START_OF_FRAME:
            is_progressive = marker in PROGRESSIVE
            lowest_bits = {channel: [_NO_BIT] * 64 for channel in body[6::3]}
        if marker != SCAN:
            continue
        scans += 1
        if scans > MAX_SCANS:
            raise TooLargeError(f"{path}: a JPEG of more than {MAX_SCANS} scans; save it anew")
        first, last, bits = body[-3:] if is_progressive else (0, 63, 0)
        for channel in body[1:-3:2]:
            lowest_bits[channel][first : last + 1] = [bits & 15] * (last + 1 - first)
    channels = len(lowest_bits)
    present = sum(bits[0] != _NO_BIT for bits in lowest_bits.values())
    if present < max(1, channels):
        raise InputError(f"{path}: is cut short: {present} of {channels} channels are there")
    coarse = sum(bit > 0 for bits in lowest_bits.values() for bit in bits) / (64 * channels)
    if not coarse:
        return []
    return [f"a progressive JPEG cut short: {coarse:.0%} of its coefficients are missing or coarse"]
