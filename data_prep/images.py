"""Pictures from files of any format, recognised by their content and never by their name."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data_prep.decoded import (
    DecodedImage,
    colour_note,
    decode_record,
    grey_from_rgb,
    plain_reason,
    require_file,
    require_size,
)
from data_prep.dicom import read_dicom
from data_prep.errors import InputError

__all__ = ["DecodedImage", "read_image"]

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF")
_EXIF_ORIENTATION = 0x0112
_BLOCK = 1 << 20  # pixels
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError,
           KeyError, TypeError, AttributeError, OverflowError)  # fmt: skip


def read_image(path: Path | str) -> DecodedImage:
    """Read a picture as 8-bit grey: DICOM, PNG, JPEG, TIFF, BMP, WebP, PPM or GIF.

    Camera rotation (EXIF) is applied, transparency laid on black, colour turned to grey, and
    more than 8 bits are scaled by the picture's own range; each is noted in the record. Of
    several frames the first is read.

    Args:
        path: The file; its extension does not matter.

    Returns:
        The picture and its record. Width and height are those after rotation.

    Raises:
        InputError: The file is missing, empty, truncated, no known picture, or larger than
            10,000 px a side or 100 megapixels.
    """
    path = Path(path)
    require_file(path)
    with path.open("rb") as file:
        start = file.read(132)
    if _looks_like_dicom(start):
        return read_dicom(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return _read(path, caught)
        except InputError:
            raise
        except MemoryError:
            raise InputError(f"{path}: not enough memory to decode it") from None
        except UnidentifiedImageError:
            raise InputError(
                f"{path}: neither DICOM nor a known picture format ({', '.join(_FORMATS)})"
            ) from None
        except (*_BROKEN, Image.DecompressionBombError) as error:
            reason = plain_reason(error)
            raise InputError(f"{path}: cannot be decoded ({reason})") from None


def _looks_like_dicom(start: bytes) -> bool:
    """Preamble, or a first element of group 2 or 8 as in files without one."""
    return start[128:] == b"DICM" or (
        start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")
        and (start[4:6].isalpha() or start[6:8] == b"\x00\x00")
    )


def _read(path: Path, caught: list[warnings.WarningMessage]) -> DecodedImage:
    with Image.open(path, formats=_FORMATS) as picture:
        require_size(path, *picture.size)
        notes = []
        frames = getattr(picture, "n_frames", 1)
        if frames > 1:
            notes.append(f"first of {frames} frames")
        kind, stored_mode = str(picture.format), picture.mode
        turn = picture.getexif().get(_EXIF_ORIENTATION, 1)
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    turned = turn in range(2, 9)
    if turned:
        notes.append("turned as its EXIF says")
    pixels, bits = _grey(upright, notes)
    caught[:] = [m for m in caught if m.category is not Image.DecompressionBombWarning]
    record = decode_record(
        pixels,
        notes + [plain_reason(message) for message in caught],
        decoder=f"pillow-{kind.lower()}",
        bits=bits,
        photometric=stored_mode,
        voi="image_range" if bits > 8 else None,
        orientation=f"exif-{turn}" if turned else None,
    )
    return DecodedImage(pixels, record, header={})


def _grey(picture: Image.Image, notes: list[str]) -> tuple[np.ndarray, int]:
    """8-bit grey pixels and the bits per value of the source."""
    if picture.mode in ("L", "1"):
        if "transparency" in picture.info:
            notes.append("transparency ignored")
        return np.array(picture.convert("L")), 1 if picture.mode == "1" else 8
    if picture.mode.startswith(("I", "F")):
        return _scaled(np.asarray(picture), notes), 16 if picture.mode.startswith("I;16") else 32
    if picture.has_transparency_data:
        picture = _on_black(picture, notes)
    rgb = np.asarray(picture.convert("RGB"))
    notes.append(colour_note(rgb))
    return grey_from_rgb(rgb), 8


def _scaled(values: np.ndarray, notes: list[str]) -> np.ndarray:
    """Stretch deep values to 8 bits by their own range; 12 bits in a 16-bit file stay visible."""
    known = values
    if np.issubdtype(values.dtype, np.floating):
        known = values[np.isfinite(values)]
        if known.size < values.size:
            notes.append("NaN shown black, infinite values clipped")
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    notes.append(f"values {low:g} to {high:g} scaled to 8 bits")
    shown = np.zeros(values.shape, dtype=np.uint8)
    if high <= low:
        return shown
    step = max(1, _BLOCK // values.shape[1])
    for start in range(0, len(values), step):  # in blocks: float64 takes 8 bytes a pixel
        block = (values[start : start + step].astype(np.float64) - low) * (255 / (high - low))
        shown[start : start + step] = np.rint(np.nan_to_num(np.clip(block, 0, 255)))
    return shown


def _on_black(picture: Image.Image, notes: list[str]) -> Image.Image:
    layered = picture.convert("RGBA")
    if layered.getchannel("A").getextrema() == (255, 255):
        notes.append("opaque alpha channel dropped")
        return layered.convert("RGB")
    notes.append("transparency laid on black")
    ground = Image.new("RGBA", layered.size, (0, 0, 0, 255))
    return Image.alpha_composite(ground, layered).convert("RGB")
