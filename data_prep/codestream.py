"""The size that a compressed picture states about itself, read without decoding it.

A DICOM header and the picture inside it can disagree. The header is what the size limits see, so
a file that says 64 x 64 outside and 65,535 x 65,535 inside must be caught before a decoder
allocates for it.
"""

from __future__ import annotations

_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # F7: JPEG-LS
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """Read width and height from a JPEG, JPEG-LS or JPEG 2000 codestream.

    Args:
        frame: The encoded picture.

    Returns:
        Width and height in px; None where no such header is found.

    Source:
        ITU-T T.81 B.2.2 (SOF), T.87 C.2.2 (JPEG-LS), T.800 A.5.1 (SIZ).

    Example:
        >>> sof = bytes([0xFF, 0xD8, 0xFF, 0xC0, 0, 11, 8, 0, 64, 0, 32, 1, 1, 17, 0])
        >>> codestream_size(sof)
        (32, 64)
    """
    if frame[:2] == b"\xff\xd8":
        return _jpeg_size(frame)
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)  # bare, or inside JP2 boxes
    return _jpeg2000_size(frame[start:]) if start >= 0 else None


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    position = 2
    while position + 9 < len(frame):
        if frame[position] != 0xFF:
            return None
        marker = frame[position + 1]
        if marker == 0xFF or marker in _STANDALONE:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _START_OF_FRAME:
            height = int.from_bytes(frame[position + 5 : position + 7], "big")
            width = int.from_bytes(frame[position + 7 : position + 9], "big")
            return width, height
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return None


def _jpeg2000_size(frame: bytes) -> tuple[int, int] | None:
    if len(frame) < 24:
        return None
    right, bottom, left, top = (int.from_bytes(frame[at : at + 4], "big") for at in (8, 12, 16, 20))
    return right - left, bottom - top
