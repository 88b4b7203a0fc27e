"""Uploads as images: detection of their type, and decoding.

Only pixels and a few facts come out of an upload; its bytes are never sent back. A file that other
programs would read as something else, such as an archive or a web page, is refused.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.image import read_image, starts_like_dicom
from cxr_compare.data_prep.images.refused_files import TooLargeError
from cxr_compare.serving.guard import Warned, file_warnings
from cxr_compare.serving.web.schemas import Refused

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_KINDS = ((_PNG, "PNG"), (_JPEG, "JPEG"), *((start, "TIFF") for start in _TIFFS))
_OTHERS = (
    (b"PK", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"%PDF", "a PDF file"),
    (b"GIF8", "a GIF file"),
    (b"BM", "a BMP file"),
    (b"RIFF", "a WebP or other RIFF file"),
    (b"P5", "a PPM file"),
    (b"P6", "a PPM file"),
    (b"MZ", "a program"),
    (b"\x7fELF", "a program"),
    (b"#!", "a program"),
)
_MARKUP = re.compile(rb"<\s*(!doctype|\?xml|html|svg|script|body|head|iframe|\?php)", re.IGNORECASE)
_BEHIND = re.compile(rb"PK\x03\x04|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|%PDF-|\x7fELF")
_ZIP_END = b"PK\x05\x06"
_ZIP_ENTRY = b"PK\x01\x02"
_ZIP_TAIL = 22 + 65535  # bytes from which a zip archive can be found, with its comment
_PDF_START = 1024  # bytes within which readers of PDF look for its start
_GIVE = "give a DICOM, PNG, JPEG or TIFF file"


@dataclass(frozen=True)
class Decoded:
    """An uploaded image after decoding.

    Attributes:
        image: The decoded image.
        format: File format, such as ``DICOM`` or ``PNG``.
        bits: Number of bits of a stored pixel value, such as 12.
        warnings: Warnings of `serving.guard.file_warnings` about the file.
    """

    image: DecodedImage
    format: str
    bits: int
    warnings: tuple[Warned, ...]


def detect_format(content: bytes) -> str:
    """Return the file type of an upload, such as ``DICOM``, detected from its bytes alone.

    Args:
        content: Bytes of the upload.

    Raises:
        Refused: The content is empty, is no still image, or could be read as another type as well.
    """
    if not content:
        raise Refused(400, "empty", f"the file is empty; {_GIVE}")
    if starts_like_dicom(content[:132]):
        kind = "DICOM"
        other = _other_kind(content[:128])
        if other is not None and not content.startswith(_TIFFS):
            raise _refuse(f"a DICOM file that starts as {other} is refused")
    else:
        kinds = [name for start, name in _KINDS if content.startswith(start)]
        if not kinds:
            other = _other_kind(content)
            raise _refuse(f"{other} is no image" if other else "this is no image that is known")
        kind = kinds[0]
    _refuse_hidden(content, kind)
    return kind


def _refuse(reason: str) -> Refused:
    return Refused(415, "type", f"{reason}; {_GIVE}")


def _other_kind(content: bytes) -> str | None:
    for start, name in _OTHERS:
        if content.startswith(start):
            return name
    return "text or markup" if _MARKUP.search(content, 0, 1024) else None


def _refuse_hidden(content: bytes, kind: str) -> None:
    """Refuse what other programs would open as something else."""
    if _is_zip(content):
        raise _refuse("an image that is a zip archive as well is refused")
    if content.find(b"%PDF-", 0, _PDF_START) >= 0:
        raise _refuse("an image that is a PDF file as well is refused")
    end = len(content)
    if kind == "PNG":
        end, is_animated = _png_end(content)
        if is_animated:
            raise _refuse("an animated PNG file is refused")
    elif kind == "JPEG":
        end = content.rfind(b"\xff\xd9") + 2
    if end >= 2 and (_MARKUP.search(content, end) or _BEHIND.search(content, end)):
        raise _refuse(f"a {kind} file with another file behind its image is refused")


def _is_zip(content: bytes) -> bool:
    """Return True if programs that read zip archives would find one."""
    end = content.rfind(_ZIP_END, max(0, len(content) - _ZIP_TAIL))
    if end < 0 or end + 22 > len(content):
        return False
    entries, size, _, comment = struct.unpack("<HIIH", content[end + 10 : end + 22])
    if end + 22 + comment > len(content):
        return False
    start = end - size
    return entries == 0 or (start >= 0 and content[start : start + 4] == _ZIP_ENTRY)


def _png_end(content: bytes) -> tuple[int, bool]:
    """Return the end of a PNG image, and whether it is animated; the decoder finds damage."""
    position = len(_PNG)
    is_animated = False
    while position + 12 <= len(content):
        length, name = struct.unpack(">I4s", content[position : position + 8])
        position += 12 + length
        is_animated |= name == b"acTL"
        if name == b"IEND":
            return position, is_animated
    return len(content), is_animated


def decode_upload(content: bytes, *, deep: bool = False) -> Decoded:
    """Decode an uploaded file to 8-bit grey, as a viewer would show the image.

    Args:
        content: Bytes of the upload.
        deep: True also returns the pixels with all bits, before any window.

    Returns:
        The decoded image with its warnings.

    Raises:
        Refused: The upload is no image, is damaged, or has too many pixels.
    """
    kind = detect_format(content)
    with _file_in_memory(content) as path:
        try:
            image = read_image(path, deep=deep)
        except InputError as error:
            reason = str(error).removeprefix(f"{path}: ").replace(str(path), "the file")
            if isinstance(error, TooLargeError):
                raise Refused(413, "too_large", reason) from None
            raise Refused(422, "unreadable", reason) from None
        bits = int(image.record["bits"] or 8)
        return Decoded(image, kind, bits, file_warnings(path, image))


@contextmanager
def _file_in_memory(content: bytes) -> Iterator[Path]:
    """Give the path of a file that is on no disk."""
    with os.fdopen(os.memfd_create("upload"), "wb") as file:
        file.write(content)
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")
