"""Uploads as images: detection of their type, and decoding.

Only pixels and a few facts come out of an upload; its bytes are never sent back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.image import read_image, starts_like_dicom
from cxr_compare.data_prep.images.refused_files import TooLargeError
from cxr_compare.serving.guard import Warned, file_warnings
from cxr_compare.serving.web.schemas import Refused

_FORMATS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
}


@dataclass(frozen=True)
class Decoded:
    """An uploaded image after decoding.

    `format` is that of the file, such as ``DICOM``; `bits` is the number of bits of a stored pixel
    value; `warnings` are those of `serving.guard.file_warnings`.
    """

    image: DecodedImage
    format: str
    bits: int
    warnings: tuple[Warned, ...]


def detect_format(content: bytes) -> str:
    """Return the file type of an upload, such as ``DICOM``, detected from its first bytes alone.

    Raises Refused if it is another type than those that are decoded.
    """
    if starts_like_dicom(content[:132]):
        return "DICOM"
    for start, name in _FORMATS.items():
        if content.startswith(start):
            return name
    raise Refused(415, "type", "this is no image; give a DICOM, PNG, JPEG or TIFF file")


def decode_upload(content: bytes, *, deep: bool = False) -> Decoded:
    """Decode an uploaded file to 8-bit grey, as a viewer would show the image.

    `deep` also returns the pixels with all bits, before any window. Raises Refused if the upload is
    no image, is damaged, or has too many pixels.
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
    """Give the path of a file that is on no disk; a Mac has none, and gets a temporary file."""
    if not hasattr(os, "memfd_create"):
        with TemporaryDirectory() as folder:
            path = Path(folder, "upload")
            path.write_bytes(content)
            yield path
        return
    with os.fdopen(os.memfd_create("upload"), "wb") as file:
        file.write(content)
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")
