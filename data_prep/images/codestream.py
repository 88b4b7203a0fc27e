"""Headers and segments of compressed images (JPEG, JPEG-LS, JPEG 2000)."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Markers that begin a frame of JPEG; 0xF7 is JPEG-LS."""
HUFFMAN_TABLES = 0xC4
"""Marker of Huffman tables."""
SCAN = 0xDA
"""Marker of a scan."""
RESTART_INTERVAL = 0xDD
"""Marker of the restart interval."""
LOSSLESS = 0xC3
"""Process of lossless JPEG."""
SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC9})
"""Processes of sequential JPEG."""
PROGRESSIVE = frozenset({0xC2, 0xCA})
"""Processes of progressive JPEG."""
_END_OF_IMAGE = 0xD9
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # neither a stuffed byte nor a restart
_START_OF_JPEG2000 = b"\xff\x4f\xff\x51"
_JP2_BOXES_BYTES = 1 << 16  # most bytes that may come before a JPEG 2000 codestream


class Codestream(NamedTuple):
    """Facts in the header of compressed JPEG or JPEG 2000 data.

    They may differ from those in the header of the DICOM file that contains the data.

    Attributes:
        width: Number of columns, px.
        height: Number of rows, px.
        bits: Number of bits of one value.
        samples: Number of values of one pixel: 1 for grey, 3 for colour.
        process: Marker of the start of frame, which names the JPEG process; 0 for JPEG 2000.
        tiles: Number of tiles of a JPEG 2000 image; 0 for other formats.
    """

    width: int
    height: int
    bits: int
    samples: int
    process: int = 0
    tiles: int = 0

    @property
    def is_read_by_libjpeg(self) -> bool:
        """True for a JPEG of 8 bits that the library libjpeg-turbo can decode."""
        return self.bits == 8 and self.process in SEQUENTIAL | PROGRESSIVE


def read_codestream(frame: bytes) -> Codestream | None:
    """Read the header of a compressed image in JPEG, JPEG-LS or JPEG 2000.

    Args:
        frame: Bytes of the compressed image.

    Returns:
        The header; None if the bytes are damaged or in another format.

    Source:
        ITU-T T.81 B.2.2 (SOF), T.87 C.2.2 (JPEG-LS) and T.800 A.5.1 (SIZ).
    """
    if frame[:2] == b"\xff\xd8":
        return _read_jpeg(frame)
    start = find_jpeg2000(frame)
    return _read_jpeg2000(frame[start : start + 43]) if start >= 0 else None


def _read_jpeg(frame: bytes) -> Codestream | None:
    """Walk from segment to segment up to the scan: GDCM ends its process where one is broken."""
    position = 2
    header = None
    for marker, body, _ in segments(frame):
        while frame[position : position + 2] == b"\xff\xff":  # a fill byte
            position += 1
        marker_bytes = frame[position : position + 2]
        if marker_bytes != bytes((0xFF, marker)) or marker == SCAN:
            return header if marker_bytes == b"\xff\xda" else None
        if marker in START_OF_FRAME:
            bits, height, width, samples = struct.unpack_from(">BHHB", body)
            header = Codestream(width, height, bits, samples, marker)
        position += 4 + len(body)
    return None


def _read_jpeg2000(start: bytes) -> Codestream | None:
    if len(start) < 43:
        return None
    right, bottom, left, top, *tile, samples, depth = struct.unpack_from(">8IHB", start, 8)
    columns = math.ceil((right - tile[2]) / max(tile[0], 1))
    rows = math.ceil((bottom - tile[3]) / max(tile[1], 1))
    bits = (depth & 0x7F) + 1
    return Codestream(right - left, bottom - top, bits, samples, tiles=columns * rows)


def find_jpeg2000(frame: bytes) -> int:
    """Return the byte at which a JPEG 2000 codestream begins, also inside a JP2 file.

    Args:
        frame: Bytes of the codestream or of the JP2 file.

    Returns:
        Position from 0; -1 if there is no codestream.
    """
    return frame.find(_START_OF_JPEG2000, 0, _JP2_BOXES_BYTES)


class Segment(NamedTuple):
    """A segment of a JPEG: its marker, its parameters and the data that follow.

    Attributes:
        marker: Second byte of the marker, which names the kind of segment.
        body: Bytes of the parameters.
        data: Entropy-coded bytes that follow the parameters.
    """

    marker: int
    body: bytes
    data: bytes


def segments(frame: bytes) -> Iterator[Segment]:
    """Yield the segments (marker, parameters and data) of a JPEG up to its end marker.

    Args:
        frame: Bytes of the JPEG file.
    """
    match = _MARKER.search(frame, 2)
    while match and frame[match.end() - 1] != _END_OF_IMAGE:
        start = match.end()
        end = start + int.from_bytes(frame[start : start + 2], "big")
        match = _MARKER.search(frame, end)
        yield Segment(
            marker=frame[start - 1],
            body=frame[start + 2 : end],
            data=frame[end : match.start() if match else None],
        )
