"""Decoding of 8-bit JPEG images that refuses damaged ones."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.refused_files import TooLargeError

MAX_SCANS = 64
"""Most scans of a progressive JPEG: each goes over the whole image; encoders write ten."""
_START_OF_SCAN = b"\xff\xda"
_MAX_PADDING_BYTES = 64
_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}


def decode_jpeg(
    path: Path, frame: bytes, colours: str, notes: list[str], doubts: list[str]
) -> np.ndarray:
    """Decode an 8-bit JPEG to uint8 ``(H, W)`` or ``(H, W, C)``; refuse a damaged or cut one.

    The pixels equal those of Pillow, which uses the same libjpeg-turbo, fills missing parts with
    grey and does not tell. simplejpeg tells the first complaint of the library: a harmless one is
    appended to `notes`, another, behind which damage may hide, to `doubts`. `colours` is ``GRAY``,
    ``RGB`` or ``CMYK``. An image of too many scans is a `TooLargeError`.
    """
    if frame.count(_START_OF_SCAN) > MAX_SCANS:
        raise TooLargeError(f"{path}: a JPEG of more than {MAX_SCANS} scans; save it anew")
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(frame, colours, strict=True)
        return pixels[..., 0] if colours == "GRAY" else pixels
    except ValueError as error:
        complaint = str(error)
    if "remature end" in complaint:
        raise InputError(f"{path}: is cut short: its JPEG data end before the image")
    padding = re.search(r" (\d+) extraneous bytes before marker 0xd9", complaint)
    if padding is not None and int(padding[1]) <= _MAX_PADDING_BYTES:
        notes.append(complaint)
    elif complaint.startswith("Corrupt"):
        raise InputError(f"{path}: is damaged ({complaint})")
    else:
        doubts.append(f"its JPEG may be damaged ({complaint})")
    with Image.open(BytesIO(frame), formats=["JPEG"]) as image:
        return np.array(image.convert(_MODES[colours]))
