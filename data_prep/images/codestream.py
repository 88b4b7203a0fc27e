"""What a compressed picture states about itself, read without decoding it.

A DICOM header and the picture inside it can disagree. The header is what the size limits see, so
a file that says 64 x 64 outside and 65,535 x 65,535 inside must be caught before a decoder
allocates for it; and decoders in C write what is inside into memory of the size outside.
"""

from __future__ import annotations

from typing import NamedTuple

_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # F7: JPEG-LS
_START_OF_SCAN = 0xDA
_FIRST_SEGMENT = 0xC0
_STANDALONE = frozenset(range(0xD0, 0xDA))  # restarts, start and end: not before the scan
_JP2_BOXES = 1 << 16  # most bytes that may come before the codestream


class Codestream(NamedTuple):
    """The header of a compressed picture.

    Attributes:
        width: Columns, px.
        height: Rows, px.
        bits: Bits of one value.
        samples: Values of one pixel: 1 grey, 3 colour.
    """

    width: int
    height: int
    bits: int
    samples: int


def read_codestream(frame: bytes) -> Codestream | None:
    r"""Read the header of a JPEG, JPEG-LS or JPEG 2000 codestream.

    Args:
        frame: The encoded picture.

    Returns:
        What it says; None where no such header is found.

    Source:
        ITU-T T.81 B.2.2 (SOF), T.87 C.2.2 (JPEG-LS), T.800 A.5.1 (SIZ).

    Example:
        >>> frame = bytes([0xFF, 0xC0, 0, 11, 8, 0, 64, 0, 32, 1, 1, 17, 0])
        >>> scan = bytes([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0])
        >>> read_codestream(b"\xff\xd8" + frame + scan)
        Codestream(width=32, height=64, bits=8, samples=1)
    """
    if frame[:2] == b"\xff\xd8":
        return _read_jpeg(frame)
    start = frame.find(b"\xff\x4f\xff\x51", 0, _JP2_BOXES)  # bare, or inside JP2 boxes
    return _read_jpeg2000(frame[start : start + 64]) if start >= 0 else None


def _read_jpeg(frame: bytes) -> Codestream | None:
    """Walk from segment to segment up to the scan: GDCM ends its process where one is broken."""
    position, found = 2, None
    while position + 9 < len(frame):
        marker = frame[position + 1]
        if frame[position] != 0xFF or marker < _FIRST_SEGMENT or marker in _STANDALONE:
            return None
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == _START_OF_SCAN:
            return found
        if marker in _START_OF_FRAME:
            bits, samples = frame[position + 4], frame[position + 9]
            height = int.from_bytes(frame[position + 5 : position + 7], "big")
            width = int.from_bytes(frame[position + 7 : position + 9], "big")
            found = Codestream(width, height, bits, samples)
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return None


def _read_jpeg2000(start: bytes) -> Codestream | None:
    if len(start) < 43:
        return None
    right, bottom, left, top = (int.from_bytes(start[at : at + 4], "big") for at in (8, 12, 16, 20))
    samples = int.from_bytes(start[40:42], "big")
    return Codestream(right - left, bottom - top, (start[42] & 0x7F) + 1, samples)
