"""Compressed images inside files: what their headers say, and whether all of their data are there.

Decoders fill up with grey what is missing, most of them without a word.
"""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import TooLargeError

_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # F7: JPEG-LS
_CODES, _SCAN, _END, _RESTARTS = 0xC4, 0xDA, 0xD9, 0xDD
LOSSLESS, _SEQUENTIAL, _PROGRESSIVE = 0xC3, frozenset({0xC0, 0xC1, 0xC9}), frozenset({0xC2, 0xCA})
_OF_THE_IMAGE = _START_OF_FRAME | {_CODES, 0xCC, 0xDB, _RESTARTS, _SCAN}  # and of no metadata
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # neither stuffed nor a restart
_JP2_BOXES = 1 << 16  # most bytes that may come before the codestream
_START_OF_JPEG2000, _START_OF_TILE = b"\xff\x4f\xff\x51", b"\xff\x90"
_MOST_SCANS = 64  # of a progressive JPEG: each goes over the whole image; encoders write ten
_MOST_PADDING = 64  # bytes
_FIRST_OF_HALVES = 5  # of the predictors
_NOTHING = 99  # lowest bit of a coefficient of which none has arrived
_BLOCK = 1 << 16  # pixels
_NO_CODE = 200  # bits of a difference that the encoder cannot have met
_UNREAD = 1 / 1000  # of a lossless image's data: more than any padding
_PREDICTORS: dict[int, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    1: lambda left, above, corner: left,
    2: lambda left, above, corner: above,
    3: lambda left, above, corner: corner,
    4: lambda left, above, corner: left + above - corner,
    5: lambda left, above, corner: left + ((above - corner) >> 1),
    6: lambda left, above, corner: above + ((left - corner) >> 1),
    7: lambda left, above, corner: (left + above) >> 1,
}


class Codestream(NamedTuple):
    """The header of a compressed image."""

    width: int  # columns, px
    height: int  # rows, px
    bits: int  # bits of one value
    samples: int  # values of one pixel: 1 grey, 3 colour
    process: int = 0  # marker that says which JPEG it is; 0 of JPEG 2000
    tiles: int = 0  # of JPEG 2000

    @property
    def by_libjpeg(self) -> bool:
        """Whether it is JPEG of 8 bits of the kinds that libjpeg-turbo reads."""
        return self.bits == 8 and self.process in _SEQUENTIAL | _PROGRESSIVE


def read_codestream(frame: bytes) -> Codestream | None:
    """Read the header of a JPEG, JPEG-LS or JPEG 2000 codestream."""
    # ITU-T T.81 B.2.2 (SOF), T.87 C.2.2 (JPEG-LS), T.800 A.5.1 (SIZ)
    if frame[:2] == b"\xff\xd8":
        return _read_jpeg(frame)
    start = frame.find(_START_OF_JPEG2000, 0, _JP2_BOXES)  # bare, or inside JP2 boxes
    return _read_jpeg2000(frame[start : start + 43]) if start >= 0 else None


def _read_jpeg(frame: bytes) -> Codestream | None:
    """Walk from segment to segment up to the scan: GDCM ends its process where one is broken."""
    at, found = 2, None
    for marker, body, _ in _segments(frame):
        while frame[at : at + 2] == b"\xff\xff":  # a fill byte
            at += 1
        if frame[at : at + 2] != bytes((0xFF, marker)) or marker == _SCAN:
            return found if frame[at : at + 2] == b"\xff\xda" else None
        if marker in _START_OF_FRAME:
            bits, height, width, samples = struct.unpack_from(">BHHB", body)
            found = Codestream(width, height, bits, samples, marker)
        at += 4 + len(body)
    return None


def _read_jpeg2000(start: bytes) -> Codestream | None:
    if len(start) < 43:
        return None
    right, bottom, left, top, *tile, samples, depth = struct.unpack_from(">8IHB", start, 8)
    columns = math.ceil((right - tile[2]) / max(tile[0], 1))
    rows = math.ceil((bottom - tile[3]) / max(tile[1], 1))
    bits = (depth & 0x7F) + 1
    return Codestream(right - left, bottom - top, bits, samples, tiles=columns * rows)


def require_whole_jpeg2000(path: Path, frame: bytes, tiles: int) -> list[str]:
    """Refuse a JPEG 2000 image that lacks tiles, parts or bytes of one; doubt one without end."""
    # ITU-T T.800 A.4.2 (SOT), B.3
    at = frame.find(_START_OF_JPEG2000, 0, _JP2_BOXES) + 2
    parts, announced = Counter[int](), Counter[int]()
    while frame[at : at + 2] != _START_OF_TILE and at + 4 <= len(frame):
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    while frame[at : at + 2] == _START_OF_TILE and at + 12 <= len(frame):
        tile, length, _, of = struct.unpack_from(">HIBB", frame, at + 4)
        parts[tile] += 1
        announced[tile] = max(announced[tile], of)
        at = at + length if length >= 12 else len(frame)  # 0: up to the end
    whole = sum(count >= announced[tile] for tile, count in parts.items())
    if at > len(frame):
        raise InputError(f"{path}: is cut short: {at - len(frame):,} bytes of a tile are missing")
    if whole < tiles:
        raise InputError(f"{path}: is cut short: {whole:,} of {tiles:,} tiles are there")
    has_end = frame.rfind(b"\xff\xd9") >= at - 2
    return [] if has_end else ["its JPEG 2000 data have no end marker: some may be missing"]


def _segments(frame: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Each marker of a JPEG up to its end, what it says, and the entropy-coded data after it."""
    match = _MARKER.search(frame, 2)
    while match and frame[match.end() - 1] != _END:
        start = match.end()
        end = start + int.from_bytes(frame[start : start + 2], "big")
        match = _MARKER.search(frame, end)
        yield (
            frame[start - 1],
            frame[start + 2 : end],
            frame[end : match.start() if match else None],
        )


def decode_jpeg(
    path: Path, frame: bytes, colours: str, notes: list[str], doubts: list[str]
) -> np.ndarray | None:
    """Decode a JPEG of 8 bits, ``GRAY``, ``RGB`` or ``CMYK``; refuse one cut short or damaged.

    The pixels are those of Pillow, which has the same libjpeg-turbo but does not tell what that
    had to make up. None where libjpeg-turbo can read it through Pillow at best.
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
    try:  # libjpeg-turbo tells its first complaint alone: again, without what may be harmless
        _decode(_bare(frame), colours)
    except ValueError as error:
        complaint = str(error)
        if "remature end" in complaint:
            raise InputError(f"{path}: is cut short: its JPEG data end before the image") from None
        if complaint.startswith("Corrupt") and "extraneous" not in complaint:
            raise InputError(f"{path}: is damaged ({complaint})") from None
        # Before the end, padding is harmless, unless parts of the image may be skipped.
        padding = re.search(r" (\d+) extraneous bytes before marker 0xd9", complaint)
        restarts = any(marker == _RESTARTS for marker, _, _ in _segments(frame))
        if padding is None or restarts or int(padding[1]) > _MOST_PADDING:
            doubts.append(f"some of its JPEG data may be missing ({complaint})")
    notes.append(complaint)
    try:
        return _decode(frame, colours, strict=False)
    except ValueError:
        return None


def _decode(frame: bytes, colours: str, *, strict: bool = True) -> np.ndarray:
    pixels: np.ndarray = simplejpeg.decode_jpeg(frame, colours, strict=strict)
    return pixels[..., 0] if colours == "GRAY" else pixels


def _bare(frame: bytes) -> bytes:
    """The segments of a JPEG that hold its image, with an end."""
    kept, inside = [b"\xff\xd8"], read_codestream(frame)
    for marker, body, data in _segments(frame):
        if marker == _SCAN and inside and inside.process in _SEQUENTIAL:
            body = body[:-3] + b"\x00\x3f\x00"  # what else stands there has no meaning
        if marker in _OF_THE_IMAGE:
            kept += struct.pack(">BBH", 0xFF, marker, len(body) + 2), body
            kept += [data] * (marker == _SCAN)
    return b"".join(kept) + b"\xff\xd9"


def _missing_scans(path: Path, frame: bytes) -> list[str]:
    """Refuse a JPEG of too many scans, or without one for a channel; doubt a coarse one."""
    # ITU-T T.81 B.2.3 and G.1.1.1: a scan brings coefficients of channels, down to a bit
    lowest: dict[int, list[int]] = {}  # bit of each coefficient that has arrived, by channel
    scans, progressive = 0, False
    for marker, body, _ in _segments(frame):
        if marker in _START_OF_FRAME:
            progressive = marker in _PROGRESSIVE
            lowest = {channel: [_NOTHING] * 64 for channel in body[6::3]}
        if marker != _SCAN:
            continue
        scans += 1
        if scans > _MOST_SCANS:
            raise TooLargeError(f"{path}: a JPEG of more than {_MOST_SCANS} scans; save it anew")
        first, last, bits = body[-3:] if progressive else (0, 63, 0)
        for channel in body[1:-3:2]:
            lowest[channel][first : last + 1] = [bits & 15] * (last + 1 - first)
    there = sum(bits[0] != _NOTHING for bits in lowest.values())
    if there < max(1, len(lowest)):
        raise InputError(f"{path}: is cut short: {there} of {len(lowest)} channels are there")
    coarse = sum(bit > 0 for bits in lowest.values() for bit in bits) / (64 * len(lowest))
    words = f"a progressive JPEG cut short: {coarse:.0%} of its coefficients are missing or coarse"
    return [words] if coarse else []


def lossless_doubts(path: Path, frame: bytes, values: np.ndarray) -> list[str]:
    """Hold decoded pixels against a lossless JPEG's data: they tell how many bits it must have.

    Refuses one cut short, whose last rows are the decoder's, each like the row above it.
    """
    try:
        needed, present, runs = _lossless_bits(frame, values)
    except (ArithmeticError, IndexError, KeyError, ValueError):
        return ["whether all data of its lossless JPEG are there cannot be checked"]
    rows = int(np.searchsorted(np.cumsum(needed), present, side="right"))
    if rows < len(needed) and len(set(needed[rows + 2 :].tolist())) <= 1:
        raise InputError(f"{path}: is cut short: {rows:,} of {len(needed):,} rows are there")
    missing = (int(needed.sum()) - present) / max(present, 1)
    if missing <= 0 and -missing * present <= 8 * runs + _UNREAD * present:
        return []
    return [
        f"its lossless JPEG seems damaged: the pixels decoded are {abs(missing):.1%} "
        f"{'more' if missing > 0 else 'less'} than its data hold"
    ]


def _lossless_bits(frame: bytes, values: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Bits that each row needs, bits that are there, and parts that each end with a whole byte."""
    # ITU-T T.81 H.1.2, H.2 (prediction, differences modulo 65,536, restarts), F.1.2.1 (codes)
    planes = values.reshape(*values.shape[:2], -1)
    height, width = planes.shape[:2]
    costs: dict[int, np.ndarray] = {}
    needed, present, runs, restart = np.zeros(height, np.int64), 0, 1, height
    for marker, body, data in _segments(frame):
        if marker == LOSSLESS:
            depth, channels = body[0], body[6::3]
            if len(channels) != planes.shape[2] or len(set(body[7::3])) > 1:
                raise ValueError("channels of several sizes")
        elif marker == _CODES:
            costs |= _bits_of_differences(body)
        elif marker == _RESTARTS and any(body):
            restart = int.from_bytes(body, "big") // width
            runs = math.ceil(height / restart)
        elif marker == _SCAN:
            predictor, shift = body[-3], body[-1] & 15
            for channel, table in zip(body[1:-3:2], body[2:-3:2], strict=True):
                image: np.ndarray = planes[..., channels.index(channel)].astype(np.uint16)
                if shift or values.dtype.kind == "i":
                    image = (image & np.uint16((1 << depth) - 1)) >> shift
                middle = 1 << (depth - shift - 1)
                needed += _bits_of_rows(image, costs[table >> 4], predictor, middle, restart)
            coded = np.frombuffer(data, np.uint8)
            stuffed = int(np.count_nonzero((coded[:-1] == 0xFF) & (coded[1:] == 0)))
            present += 8 * (len(data) - stuffed - 2 * (runs - 1))
    return needed, present, runs


def _bits_of_rows(
    image: np.ndarray, cost: np.ndarray, predictor: int, middle: int, restart: int
) -> np.ndarray:
    """Bits that each row needs: uint16, by differences, the first after each restart apart."""
    bits = np.zeros(len(image), np.int64)
    predict, step = _PREDICTORS[predictor], max(1, _BLOCK // image.shape[1])
    # Differences count modulo 65,536, and so may sums; halves must be of whole numbers.
    number: Any = np.uint16 if predictor < _FIRST_OF_HALVES else np.int32
    for top in range(0, len(image) - 1, step):
        block: np.ndarray = image[top : top + step + 1].astype(number, copy=False)
        here, above = block[1:], block[:-1]
        differences = np.empty_like(here)
        np.subtract(here[:, 0], above[:, 0], out=differences[:, 0])
        predicted = predict(here[:, :-1], above[:, 1:], above[:, :-1])
        np.subtract(here[:, 1:], predicted, out=differences[:, 1:])
        lengths = np.take(cost, differences.astype(np.uint16, copy=False))
        sums = cv2.reduce(lengths, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
        bits[top + 1 : top + 1 + len(here)] = sums[:, 0]
    first = image[::restart]
    before = np.hstack([np.full_like(first[:, :1], middle), first[:, :-1]])
    bits[::restart] = np.take(cost, first - before).sum(1, dtype=np.int64)
    return bits


def _bits_of_differences(body: bytes) -> dict[int, np.ndarray]:
    """How many bits tables of codes give to each difference modulo 65,536."""
    costs, at = {}, 0
    while at < len(body):
        counts = list(body[at + 1 : at + 17])
        bits = np.full(17, _NO_CODE)
        kinds = list(body[at + 17 : at + 17 + sum(counts)])
        bits[kinds] = np.repeat(np.arange(1, 17), counts) + np.array(kinds) % 16  # of 16, no more
        costs[body[at]] = np.take(bits.astype(np.uint8), _KINDS)
        at += 17 + sum(counts)
    return costs


_KINDS = np.frexp(np.minimum(np.arange(1 << 16), np.arange(1 << 16, 0, -1)))[1].astype(np.uint8)
"""Of each difference modulo 65,536 how many bits its size has: 0 to 16."""
