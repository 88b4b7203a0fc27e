"""PNG, JPEG, TIFF, BMP and WebP by OpenCV, for machines where Pillow is not installed.

The same pixels as Pillow gives, or a line that says to install it: OpenCV alone would turn, cut
short or guess without a word, so headers are read here first.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data_prep.contracts.errors import InputError
from data_prep.images.decoded_image import plain_reason, require_size
from data_prep.images.dicom_frames import read_codestream

_KINDS = {
    b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"RIFF": "WEBP",
    b"II*\0": "TIFF", b"MM\0*": "TIFF",
}  # fmt: skip
_OTHER_KINDS = {b"GIF8": "GIF", b"P5": "PPM", b"P6": "PPM", b"II+\0": "TIFF", b"MM\0+": "TIFF"}
_START_OF_SCAN, _EXIF_SEGMENT, _PROFILE_SEGMENT = 0xDA, 0xE1, 0xE2
_GREY, _PALETTE, _GREY_ALPHA = 0, 3, 4  # colour types of PNG
_ORIENTATION = 0x0112
_NO_NOTES: tuple[str, ...] = ()
_PROFILE_IGNORED: tuple[str, ...] = ("colour profile ignored",)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}  # bytes of a TIFF value by its type


class StoredImage(NamedTuple):
    """An image as its file holds it, not turned yet.

    Attributes:
        values: ``(H, W)`` grey, or ``(H, W, 3 or 4)`` red, green, blue and alpha; uint8 or uint16.
        kind: Of the file, such as ``PNG``.
        turn: Its EXIF orientation, 1 to 8.
        white_is_zero: Whether its zero is white: OpenCV has then inverted 8 bits, but not 16.
        grey: Whether it was stored as grey, though it has an alpha channel.
        notes: What else is worth a remark.
    """

    values: np.ndarray
    kind: str
    turn: int = 1
    white_is_zero: bool = False
    grey: bool = False
    notes: tuple[str, ...] = ()


class _Header(NamedTuple):
    width: int
    height: int
    turn: int = 1
    white_is_zero: bool = False
    grey: bool = False
    notes: tuple[str, ...] = ()


def read_by_opencv(path: Path) -> StoredImage:
    """Read a file that is no DICOM file.

    Raises:
        InputError: It is damaged, cut short, too large, no known image, or of a kind that needs
            Pillow, which the message then says.
    """
    content = path.read_bytes()
    kind = next((name for magic, name in _KINDS.items() if content.startswith(magic)), None)
    if kind is None:
        other = [name for magic, name in _OTHER_KINDS.items() if content.startswith(magic)]
        if other:
            raise _needs_pillow(path, f"a {other[0]} file of this kind")
        raise InputError(f"{path}: neither DICOM nor a known image format ({', '.join(_READERS)})")
    try:
        header = _READERS[kind](path, content)
    except (struct.error, IndexError, KeyError):
        raise InputError(f"{path}: a {kind} file that cannot be decoded; it is damaged") from None
    try:
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InputError(f"{path}: cannot be decoded ({plain_reason(error)})") from None
    if values is None or values.shape[:2] != (header.height, header.width):
        raise InputError(
            f"{path}: a {kind} file that cannot be decoded; it is damaged or of a rare kind"
        )
    if values.dtype not in (np.uint8, np.uint16):
        raise _needs_pillow(path, f"a {kind} file of {values.dtype} values")
    if values.ndim == 3:
        to_rgb = cv2.COLOR_BGRA2RGBA if values.shape[2] == 4 else cv2.COLOR_BGR2RGB
        values = cv2.cvtColor(values, to_rgb)
    return StoredImage(np.asarray(values), kind, *header[2:])


def _needs_pillow(path: Path, what: str) -> InputError:
    return InputError(f"{path}: {what} needs Pillow, which is not installed: pip install pillow")


def _cut_short(path: Path) -> InputError:
    return InputError(f"{path}: cannot be decoded (image file is truncated)")


def _png(path: Path, content: bytes) -> _Header:
    width, height, depth, colour = struct.unpack(">IIBB", content[16:26])
    require_size(path, width, height)
    chunks = dict(_png_chunks(path, content))
    if b"IHDR" not in chunks or b"IDAT" not in chunks:
        raise _cut_short(path)
    if b"acTL" in chunks:
        raise _needs_pillow(path, "an animated PNG file")
    notes = _PROFILE_IGNORED if b"iCCP" in chunks else ()
    if b"tRNS" in chunks and colour == _GREY:
        if depth == 16:
            raise _needs_pillow(path, "a PNG file with a transparent grey of 16 bits")
        notes += ("transparency ignored",)
    turn = _orientation(chunks.get(b"eXIf", b""))
    return _Header(width, height, turn, grey=colour in (_GREY, _GREY_ALPHA), notes=notes)


def _png_chunks(path: Path, content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each chunk up to the last one; refuses a file without it."""
    place = 8
    while True:
        if place + 12 > len(content):
            raise _cut_short(path)
        length, name = struct.unpack(">I4s", content[place : place + 8])
        chunk = content[place + 8 : place + 8 + length]
        checksum = content[place + 8 + length : place + 12 + length]
        if len(checksum) < 4:
            raise _cut_short(path)
        if struct.unpack(">I", checksum)[0] != zlib.crc32(name + chunk):
            raise InputError(f"{path}: cannot be decoded (broken PNG file)")
        yield name, chunk
        if name == b"IEND":
            return
        place += 12 + length


def _jpeg(path: Path, content: bytes) -> _Header:
    inside = read_codestream(content)
    if inside is None:
        raise InputError(f"{path}: a JPEG file that cannot be decoded; it is damaged")
    require_size(path, inside.width, inside.height)
    if inside.samples not in (1, 3) or inside.bits != 8:
        raise _needs_pillow(path, f"a JPEG file of {inside.samples} colours, {inside.bits} bits")
    turn, notes = 1, _NO_NOTES
    for marker, segment in _jpeg_segments(content):
        if marker == _EXIF_SEGMENT and segment.startswith(b"Exif\0\0"):
            turn = _orientation(segment[6:])
        if marker == _PROFILE_SEGMENT and segment.startswith(b"ICC_PROFILE\0"):
            notes = _PROFILE_IGNORED
    return _Header(inside.width, inside.height, turn, notes=notes)


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment before the scan, behind which an end must come."""
    place = 2
    while content[place + 1] != _START_OF_SCAN:
        if content[place + 1] == 0xFF:  # a fill byte
            place += 1
            continue
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        yield content[place + 1], content[place + 4 : place + 2 + length]
        place += 2 + length
    if content.find(b"\xff\xd9", place) < 0:
        raise struct.error("no end")


def _bmp(path: Path, content: bytes) -> _Header:
    start, header = struct.unpack("<II", content[10:18])
    if header < 40:
        raise _needs_pillow(path, "a BMP file of OS/2")
    width, height, _, bits, packing = struct.unpack("<iiHHI", content[18:34])
    height = abs(height)
    require_size(path, width, height)
    if bits not in (1, 4, 8, 24) or packing != 0:
        raise _needs_pillow(path, f"a BMP file of {bits} bits a pixel, packed as {packing},")
    if len(content) < start + (width * bits + 31) // 32 * 4 * height:
        raise _cut_short(path)
    return _Header(width, height)


def _webp(path: Path, content: bytes) -> _Header:
    if content[8:12] != b"WEBP":
        raise InputError(f"{path}: neither DICOM nor a known image format ({', '.join(_READERS)})")
    if len(content) < 8 + struct.unpack("<I", content[4:8])[0]:
        raise _cut_short(path)
    chunks = dict(_webp_chunks(content))
    if b"ANIM" in chunks:
        raise _needs_pillow(path, "an animated WebP file")
    if b"VP8X" in chunks:
        width = int.from_bytes(chunks[b"VP8X"][4:7], "little") + 1
        height = int.from_bytes(chunks[b"VP8X"][7:10], "little") + 1
    elif b"VP8L" in chunks:
        bits = int.from_bytes(chunks[b"VP8L"][1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", chunks[b"VP8 "][6:10]))
    require_size(path, width, height)
    notes = _PROFILE_IGNORED if b"ICCP" in chunks else ()
    turn = _orientation(chunks.get(b"EXIF", b"").removeprefix(b"Exif\0\0"))
    return _Header(width, height, turn, notes=notes)


def _webp_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 12
    while place + 8 <= len(content):
        name, length = struct.unpack("<4sI", content[place : place + 8])
        yield name, content[place + 8 : place + 8 + length]
        place += 8 + length + length % 2


def _tiff(path: Path, content: bytes) -> _Header:
    tags = _tags(content)
    width, height = tags[256], tags[257]
    require_size(path, width, height)
    bits, samples = tags.get(258, 1), tags.get(277, 1)
    photometric, turn = tags.get(262, 1), tags.get(_ORIENTATION, 1)
    plain = tags.get(339, 1) == 1 and turn == 1 and tags.get(317, 1) in (1, 2)
    grey = samples == 1 and bits in (8, 16) and photometric in (0, 1)
    colour = samples == 3 and bits == 8 and photometric == 2
    if not (plain and (grey or colour)) or _END_OF_TAGS not in tags or tags[_END_OF_TAGS]:
        raise _needs_pillow(path, "a TIFF file of this kind")
    notes = _PROFILE_IGNORED if 34675 in tags else ()
    return _Header(width, height, white_is_zero=photometric == 0, notes=notes)


_END_OF_TAGS = -1


def _tags(content: bytes) -> dict[int, int]:
    """First value of each tag of a TIFF file, as far as it is a whole number.

    Where the tags end, at `_END_OF_TAGS`, the place of the next image's tags: 0 without one.
    """
    order = {b"II": "<", b"MM": ">"}[content[:2]]
    (place,) = struct.unpack(order + "I", content[4:8])
    (count,) = struct.unpack(order + "H", content[place : place + 2])
    tags = {}
    for start in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind, number, offset = struct.unpack(order + "HHII", content[start : start + 12])
        if kind not in (1, 3, 4):
            tags[tag] = 0
            continue
        at = start + 8 if _SIZES[kind] * number <= 4 else offset
        value = content[at : at + _SIZES[kind]]
        (tags[tag],) = struct.unpack(order + {1: "B", 3: "H", 4: "I"}[kind], value)
    end = place + 2 + 12 * count
    (tags[_END_OF_TAGS],) = struct.unpack(order + "I", content[end : end + 4])
    return tags


def _orientation(exif: bytes) -> int:
    """How EXIF says an image is to be turned, 1 where it does not."""
    try:
        return _tags(exif).get(_ORIENTATION, 1)
    except (struct.error, KeyError):
        return 1


_READERS = {"PNG": _png, "JPEG": _jpeg, "TIFF": _tiff, "BMP": _bmp, "WEBP": _webp}
