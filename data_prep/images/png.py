"""A check that the data of a PNG image fill all of its rows."""

from __future__ import annotations

import zlib
from pathlib import Path

from PIL import Image

from cxr_compare.data_prep.base.errors import InputError

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # numbers of a pixel, by the colour type of the header
_WHOLE = ((0, 0, 1, 1),)
# First column and row, and steps to the next ones, of the seven passes of an interlaced PNG.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_PIECE = 1 << 20  # bytes that are unpacked at a time


def require_all_rows(path: Path, image: Image.Image) -> None:
    """Refuse a decoded PNG whose data end before its last row.

    Pillow leaves rows without data black and does not tell. The data are counted only where the
    last row is black or the image is interlaced, since counting takes time.
    """
    width, height = image.size
    last_row = image.crop((0, height - 1, width, height))
    if last_row.getbbox(alpha_only=False) is not None and not image.info.get("interlace"):
        return
    content = path.read_bytes()
    if content[12:16] != b"IHDR":
        return
    bits = content[24] * _SAMPLES[content[25]]
    needed = 0
    for x, y, step_x, step_y in _PASSES if content[28] else _WHOLE:
        columns = len(range(x, width, step_x))
        rows = len(range(y, height, step_y))
        if columns:
            needed += rows * (1 + (columns * bits + 7) // 8)
    if _unpacked_bytes(content, needed) < needed:
        raise InputError(f"{path}: is cut short: its PNG data end before the image")


def _unpacked_bytes(content: bytes, needed: int) -> int:
    """Count the bytes in the IDAT chunks of a PNG after decompression, up to `needed`."""
    unpacking = zlib.decompressobj()
    n_bytes, position = 0, 8
    while position < len(content) and n_bytes < needed and not unpacking.eof:
        start = position + 8
        end = start + int.from_bytes(content[position : position + 4], "big")
        packed = content[start:end] if content[position + 4 : start] == b"IDAT" else b""
        while packed and n_bytes < needed and not unpacking.eof:
            n_bytes += len(unpacking.decompress(packed, _PIECE))
            packed = unpacking.unconsumed_tail
        position = end + 4
    return n_bytes
