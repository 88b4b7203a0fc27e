"""Check that no data of a JPEG 2000 image are missing.

Decoders fill missing parts with grey, and most of them do so without a message.
"""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.codestream import find_jpeg2000

_START_OF_TILE = b"\xff\x90"


def require_whole_jpeg2000(path: Path, frame: bytes, tiles: int) -> list[str]:
    """Check that no tile or byte of a JPEG 2000 image is missing.

    Args:
        path: Path of the file, for the message.
        frame: Bytes of the compressed image.
        tiles: Number of tiles that the header states.

    Returns:
        Warnings as sentences without a full stop, if the image has no end marker and may lack data;
        an empty list otherwise.

    Raises:
        InputError: A tile, a part of a tile, or some of its bytes are missing.

    Source:
        ITU-T T.800 A.4.2 (SOT) and B.3.
    """
    position = find_jpeg2000(frame) + 2
    parts = Counter[int]()
    announced_parts = Counter[int]()
    while frame[position : position + 2] != _START_OF_TILE and position + 4 <= len(frame):
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    while frame[position : position + 2] == _START_OF_TILE and position + 12 <= len(frame):
        tile, length, _, total_parts = struct.unpack_from(">HIBB", frame, position + 4)
        parts[tile] += 1
        announced_parts[tile] = max(announced_parts[tile], total_parts)
        position = position + length if length >= 12 else len(frame)  # 0: up to the end
    whole_tiles = sum(count >= announced_parts[tile] for tile, count in parts.items())
    if position > len(frame):
        raise InputError(
            f"{path}: is cut short: {position - len(frame):,} bytes of a tile are missing"
        )
    if whole_tiles < tiles:
        raise InputError(f"{path}: is cut short: {whole_tiles:,} of {tiles:,} tiles are there")
    has_end = frame.rfind(b"\xff\xd9") >= position - 2
    return [] if has_end else ["its JPEG 2000 data have no end marker: some may be missing"]
