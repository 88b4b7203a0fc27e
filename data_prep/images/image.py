"""Images from files of any format, recognised by their content and never by their name."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data_prep.contracts.errors import InputError
from data_prep.images.decoded_image import (
    DecodedImage,
    colour_note,
    decode_record,
    grey_from_rgb,
    plain_reason,
    require_file,
    require_size,
)
from data_prep.images.dicom import read_dicom
from data_prep.images.dicom_display import HIGH_PERCENTILE, LOW_PERCENTILE
from data_prep.images.dicom_header import starts_like_dicom

__all__ = ["DecodedImage", "read_image"]

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF")
_MAGIC = {
    b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF",
    b"II+\0": "TIFF", b"MM\0+": "TIFF", b"GIF8": "GIF",
}  # fmt: skip
_EXIF_ORIENTATION = 0x0112
_TIFF_PHOTOMETRIC = 0x0106
_BLOCK = 1 << 20  # pixels
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError,
           KeyError, TypeError, AttributeError, OverflowError)  # fmt: skip


def read_image(path: Path | str, *, window: str | None = None) -> DecodedImage:
    """Read an image as 8-bit grey: DICOM, PNG, JPEG, TIFF, BMP, WebP, PPM or GIF.

    Camera rotation (EXIF) is applied, transparency laid on black, colour turned to grey, a TIFF
    whose zero is white inverted. More than 8 bits are scaled as in a DICOM file without window:
    0.1 percentile of the pixels to black, 99.9 to white. Each is noted in the record. Of several
    frames the first is read; colour profiles are ignored.

    Args:
        path: The file; its extension does not matter.
        window: Name of the window to use of DICOM files; see `data_prep.images.dicom.read_dicom`.

    Returns:
        The image and its record. Width and height are those after rotation.

    Raises:
        InputError: The file is missing, empty, truncated, no known image, or larger than
            10,000 px a side or 100 megapixels.
    """
    path = Path(path)
    require_file(path)
    with path.open("rb") as file:
        start = file.read(132)
    if starts_like_dicom(start):
        return read_dicom(path, window=window)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return _read(path, caught)
        except InputError:
            raise
        except MemoryError:
            raise InputError(f"{path}: not enough memory to decode it") from None
        except UnidentifiedImageError:
            kinds = [kind for magic, kind in _MAGIC.items() if start.startswith(magic)]
            raise InputError(
                f"{path}: a {kinds[0]} file that cannot be decoded; it is damaged or of a rare kind"
                if kinds
                else f"{path}: neither DICOM nor a known image format ({', '.join(_FORMATS)})"
            ) from None
        except Image.DecompressionBombError:
            raise InputError(f"{path}: is larger than the limit of 100 megapixels") from None
        except _BROKEN as error:
            reason = plain_reason(error)
            raise InputError(f"{path}: cannot be decoded ({reason})") from None


def _read(path: Path, caught: list[warnings.WarningMessage]) -> DecodedImage:
    # Not by name: Pillow would map the file and misread plain TIFFs whose tag turns them.
    with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
        require_size(path, *image.size)
        notes = []
        cut_to_8_bits = _holds_deep_colour(image)
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            notes.append(f"first of {frames} frames")
        kind, stored_mode = str(image.format), image.mode
        turn = image.getexif().get(_EXIF_ORIENTATION, 1)
        white_is_zero = kind == "TIFF" and image.getexif().get(_TIFF_PHOTOMETRIC) == 0
        if "icc_profile" in image.info:
            notes.append("colour profile ignored")
        image.load()
        upright = ImageOps.exif_transpose(image)
    if cut_to_8_bits:
        upright = _deep_grey(path, turn) or upright
        notes.append(_DEEP_GREY if upright.mode == "I;16" else "16-bit colour cut to 8 bits")
    turned = turn in range(2, 9)
    if turned:
        notes.append("turned as its EXIF says")
    pixels, bits = _grey(upright, notes)
    if white_is_zero and stored_mode not in ("1", "L"):  # those, Pillow has inverted
        pixels = 255 - pixels
    caught[:] = [m for m in caught if m.category is not Image.DecompressionBombWarning]
    record = decode_record(
        pixels,
        notes + [plain_reason(message) for message in caught],
        decoder=f"pillow-{kind.lower()}",
        bits=bits,
        photometric=stored_mode,
        voi="percentiles" if bits > 8 else None,
        inverted=white_is_zero,
        orientation=f"exif-{turn}" if turned else None,
    )
    return DecodedImage(pixels, record, header={})


_DEEP_GREY = "16-bit grey stored as colour"


def _holds_deep_colour(image: Image.Image) -> bool:
    """Whether a colour file holds 16 bits, of which Pillow keeps the upper 8."""
    coding = str([tile[3] for tile in getattr(image, "tile", [])])
    return image.mode in ("RGB", "RGBA", "RGBX", "LA") and ";16" in coding


def _deep_grey(path: Path, turn: int) -> Image.Image | None:
    """Read a 16-bit PNG in colour; None unless it is grey, and opaque or laid on black."""
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        return None
    if not (values[..., 0] == values[..., 1]).all() or not (values[..., 0] == values[..., 2]).all():
        return None
    grey = values[..., 0]
    if values.shape[2] == 4:
        grey = (grey.astype(np.uint32) * values[..., 3] // 65535).astype(np.uint16)
    image = Image.fromarray(grey)
    image.getexif()[_EXIF_ORIENTATION] = turn
    return ImageOps.exif_transpose(image)


def _grey(image: Image.Image, notes: list[str]) -> tuple[np.ndarray, int]:
    """8-bit grey pixels and the bits per value of the source."""
    if image.mode in ("L", "1"):
        if "transparency" in image.info:
            notes.append("transparency ignored")
        return np.array(image.convert("L")), 1 if image.mode == "1" else 8
    if image.mode.startswith(("I", "F")):
        return _scaled(np.asarray(image), notes), 16 if image.mode.startswith("I;16") else 32
    was_grey = image.mode in ("LA", "La")
    if image.has_transparency_data:
        image = _on_black(image, notes)
    rgb = np.asarray(image.convert("RGB"))
    if not was_grey:
        notes.append(colour_note(rgb))
    return grey_from_rgb(rgb), 8


def _scaled(values: np.ndarray, notes: list[str]) -> np.ndarray:
    """Stretch deep values to 8 bits by percentiles; 12 bits in a 16-bit file stay visible."""
    known = values
    if np.issubdtype(values.dtype, np.floating):
        known = values[np.isfinite(values)]
        if known.size < values.size:
            notes.append("NaN shown black, infinite values clipped")
    low, high = _ends(known.reshape(-1)) if known.size else (0.0, 0.0)
    notes.append(f"values {low:g} to {high:g} scaled to 8 bits")
    shown = np.zeros(values.shape, dtype=np.uint8)
    if high <= low:
        return shown
    step = max(1, _BLOCK // values.shape[1])
    for start in range(0, len(values), step):  # in blocks: float64 takes 8 bytes a pixel
        block = (values[start : start + step].astype(np.float64) - low) * (255 / (high - low))
        shown[start : start + step] = np.rint(np.nan_to_num(np.clip(block, 0, 255)))
    return shown


def _ends(values: np.ndarray) -> tuple[float, float]:
    """The same two pixels' values that `dicom_display` takes where a DICOM file has no window."""
    ranks = [
        math.ceil(max(values.size * share / 100, 1)) - 1
        for share in (LOW_PERCENTILE, HIGH_PERCENTILE)
    ]
    low, high = (float(value) for value in np.partition(values, ranks)[ranks])
    return (low, high) if high > low else (float(values.min()), float(values.max()))


def _on_black(image: Image.Image, notes: list[str]) -> Image.Image:
    layered = image.convert("RGBA")
    if layered.getchannel("A").getextrema() == (255, 255):
        notes.append("opaque alpha channel dropped")
        return layered.convert("RGB")
    notes.append("transparency laid on black")
    ground = Image.new("RGBA", layered.size, (0, 0, 0, 255))
    return Image.alpha_composite(ground, layered).convert("RGB")
