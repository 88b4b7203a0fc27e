"""Reading of images from files of any format, which is recognised by the content of the file."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decode_errors import decode_error, plain_reason
from cxr_compare.data_prep.images.decoded_image import DecodedImage, decode_record, noise_doubts
from cxr_compare.data_prep.images.deep_pixels import HIGH_PERCENTILE, LOW_PERCENTILE, DeepPixels
from cxr_compare.data_prep.images.grey_conversion import (
    GREY_AS_COLOUR,
    colour_note,
    grey_from_rgb,
)
from cxr_compare.data_prep.images.image_limits import TooLargeError, require_file, require_size
from cxr_compare.data_prep.images.jpeg import decode_jpeg

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF")
_FORMAT_BY_START = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF8": "GIF",
}
_JPEG_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_EXIF_ORIENTATION = 0x0112
_TIFF_PHOTOMETRIC = 0x0106
_EXIF_DESCRIPTION = 0x010E
_SYNTHETIC = "Synthetic chest X-ray"  # how the description of an image of `cxr synth` begins
_BLOCK_PIXELS = 1 << 20  # converted at a time
_COLOUR_SIDE = 64  # px of the shrunken image in which colours are measured
_ERRORS_OF_BROKEN_FILES = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
)


def read_image(path: Path | str, *, window: str | None = None, deep: bool = False) -> DecodedImage:
    """Read an image as 8-bit grey: DICOM, PNG, JPEG, TIFF, BMP, WebP, PPM or GIF.

    Camera rotation (EXIF) is applied, transparent pixels become black, colour becomes grey, and a
    TIFF whose zero is white is inverted. Values of more than 8 bits are scaled as in a DICOM file
    without a window: the 0.1 percentile of the pixels becomes black and the 99.9 percentile white.
    The record notes each of these steps. Of several frames the first is read. Colour profiles are
    ignored.

    Args:
        path: Path of the file; its extension does not matter.
        window: Name of the DICOM window to show, such as "LUNG"; None takes the first. See
            `data_prep.images.dicom.read_dicom`.
        deep: True also returns the pixels at the full bit depth of the file, before any window.

    Returns:
        The image, and facts about its decoding. Width and height are those after rotation.

    Raises:
        InputError: The file is missing, empty, cut short, or in no known image format.
        TooLargeError: A side is longer than 10,000 px, or the image has more than 100 megapixels.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (40, 30), "white").save(Path(folder, "a.png"))
        ...     image = read_image(Path(folder, "a.png"))
        >>> image.pixels.shape, image.pixels.dtype, int(image.pixels.min())
        ((30, 40), dtype('uint8'), 255)
    """
    path = Path(path)
    require_file(path)
    with path.open("rb") as file:
        start = file.read(132)
    if starts_like_dicom(start):
        from cxr_compare.data_prep.images.dicom import read_dicom  # pydicom, for DICOM files only

        return read_dicom(path, window=window, deep=deep)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return _read(path, start, caught, deep=deep)
        except InputError:
            raise
        except MemoryError:
            raise TooLargeError(f"{path}: not enough memory to decode it") from None
        except _ERRORS_OF_BROKEN_FILES as error:
            raise decode_error(path, error) from None


def _read(
    path: Path, start: bytes, caught: list[warnings.WarningMessage], *, deep: bool
) -> DecodedImage:
    try:
        return _read_by_pillow(path, caught, deep=deep)
    except UnidentifiedImageError:
        for magic, kind in _FORMAT_BY_START.items():
            if start.startswith(magic):
                raise InputError(
                    f"{path}: a {kind} file that cannot be decoded; it is cut short, damaged or "
                    "rare"
                ) from None
        raise InputError(
            f"{path}: neither DICOM nor a known image format ({', '.join(_FORMATS)})"
        ) from None
    except Image.DecompressionBombError:
        raise TooLargeError(f"{path}: is larger than the limit of 100 megapixels") from None


def _read_by_pillow(
    path: Path, caught: list[warnings.WarningMessage], *, deep: bool
) -> DecodedImage:
    # Opened here: given a name, Pillow maps the file and misreads plain TIFFs that a tag turns.
    with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
        require_size(path, *image.size)
        notes: list[str] = []
        doubts: list[str] = []
        cut_to_8_bits = _holds_deep_colour(image)
        if getattr(image, "is_animated", False):
            notes.append("first of several frames")  # to count them can take long
        kind = str(image.format)
        stored_mode = image.mode
        turn = image.getexif().get(_EXIF_ORIENTATION, 1)
        description = str(image.getexif().get(_EXIF_DESCRIPTION, ""))
        white_is_zero = kind == "TIFF" and image.getexif().get(_TIFF_PHOTOMETRIC) == 0
        if "icc_profile" in image.info:
            notes.append("colour profile ignored")
        values: np.ndarray | None = None
        colours = _JPEG_COLOURS.get(image.mode) if kind in ("JPEG", "MPO") else None
        if colours is not None:
            values = decode_jpeg(path, path.read_bytes(), colours, notes, doubts)
        decoder = f"pillow-{kind.lower()}" if values is None or colours == "CMYK" else "simplejpeg"
        if decoder != "simplejpeg":
            values = None
            image.load()
        upright = ImageOps.exif_transpose(image) if values is None else image
    if cut_to_8_bits:
        values = _deep_grey(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED))
        cut = "16-bit colour cut to 8 bits"
        notes.append(cut if values is None else "16-bit grey stored as colour")
    if turn in range(2, 9):
        notes.append("turned as its EXIF says")
    if values is None:
        grey = _grey_by_pillow(upright, notes)
    else:
        bits = 16 if cut_to_8_bits else 8
        if values.ndim == 3:
            grey = _grey_from_colour(values, notes, bits=bits, was_grey=False)
        else:
            grey = _Grey(values, bits)
        grey = replace(grey, values=_turn_upright(grey.values, turn))
    # Pillow has inverted images of the modes "1" and "L".
    negative = white_is_zero and stored_mode not in ("1", "L")
    pixels, deep_pixels = _shown(grey.values, notes, negative=negative, deep=deep)
    caught[:] = [m for m in caught if m.category is not Image.DecompressionBombWarning]
    doubts += noise_doubts(pixels)
    notes += [*doubts, *map(plain_reason, caught)]
    record = decode_record(
        notes,
        decoder=decoder,
        bits=grey.bits,
        photometric=stored_mode,
        voi="percentiles" if grey.bits > 8 else None,
        inverted=white_is_zero,
        orientation=f"exif-{turn}" if turn in range(2, 9) else None,
    )
    header = {"synthetic": True} if description.startswith(_SYNTHETIC) else {}
    return DecodedImage(
        pixels, record, header=header, colour=grey.colour, deep=deep_pixels, doubts=tuple(doubts)
    )


def _shown(
    values: np.ndarray, notes: list[str], *, negative: bool, deep: bool
) -> tuple[np.ndarray, DeepPixels | None]:
    """Return grey of any depth as 8 bits and, if requested, at full depth."""
    black = 0.0
    white = 255.0
    pixels = values
    if values.dtype != np.uint8:
        pixels, (black, white) = _scaled(values, notes)
    deep_pixels = DeepPixels.from_values(values, black, white, negative=negative) if deep else None
    return (255 - pixels if negative else pixels), deep_pixels


def _holds_deep_colour(image: Image.Image) -> bool:
    """Return True if a colour file holds 16 bits, of which Pillow keeps the upper 8."""
    coding = str([tile[3] for tile in getattr(image, "tile", [])])
    return image.mode in ("RGB", "RGBA", "RGBX", "LA") and ";16" in coding


def _deep_grey(values: np.ndarray | None) -> np.ndarray | None:
    """Return the grey of 16-bit colours, laid on black; None if they are no grey of 16 bits."""
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        return None
    if not (values[..., 0] == values[..., 1]).all() or not (values[..., 0] == values[..., 2]).all():
        return None
    grey: np.ndarray = values[..., 0]
    if values.shape[2] == 4:
        grey = (grey.astype(np.uint32) * values[..., 3] // 65535).astype(np.uint16)
    return grey


def _turn_upright(values: np.ndarray, turn: int) -> np.ndarray:
    """Turn or mirror an image as its EXIF orientation says."""
    quarters = {3: 2, 6: 3, 7: 2, 8: 1}.get(turn, 0)
    if turn in (5, 7):
        return np.ascontiguousarray(np.rot90(values, quarters).swapaxes(0, 1))
    if turn in (2, 4):
        return np.ascontiguousarray(np.flip(values, axis=1 if turn == 2 else 0))
    return np.ascontiguousarray(np.rot90(values, quarters))


@dataclass(frozen=True)
class _Grey:
    """The grey of an image file."""

    values: np.ndarray  # (H, W), of any depth
    bits: int  # bits of a value in the file
    colour: float = 0.0  # mean difference of red, green and blue, 0 to 255


def _grey_by_pillow(image: Image.Image, notes: list[str]) -> _Grey:
    if image.mode in ("L", "1"):
        if "transparency" in image.info:
            notes.append("transparency ignored")
        return _Grey(np.array(image.convert("L")), bits=1 if image.mode == "1" else 8)
    if image.mode.startswith(("I", "F")):
        bits = 16 if image.mode.startswith("I;16") else 32
        return _Grey(np.asarray(image), bits)
    was_grey = image.mode in ("LA", "La")
    if image.has_transparency_data:
        rgb = _laid_on_black(np.asarray(image.convert("RGBA")), notes)
    else:
        rgb = np.asarray(image.convert("RGB"))
    return _grey_from_colour(rgb, notes, bits=8, was_grey=was_grey)


def _grey_from_colour(rgb: np.ndarray, notes: list[str], *, bits: int, was_grey: bool) -> _Grey:
    note = colour_note(rgb)
    if not was_grey:
        notes.append(note)
    if note == GREY_AS_COLOUR:
        return _Grey(np.ascontiguousarray(rgb[..., 0]), bits)
    sides = (min(_COLOUR_SIDE, side) for side in rgb.shape[1::-1])
    small = cv2.resize(rgb, tuple(sides), interpolation=cv2.INTER_AREA)
    colour = float(np.ptp(small.astype(np.int16), axis=2).mean())
    return _Grey(grey_from_rgb(rgb), bits, colour)


def _scaled(values: np.ndarray, notes: list[str]) -> tuple[np.ndarray, tuple[float, float]]:
    """Stretch deep values to 8 bits by percentiles; 12 bits in a 16-bit file stay visible."""
    finite = values
    if np.issubdtype(values.dtype, np.floating):
        finite = values[np.isfinite(values)]
        if finite.size < values.size:
            notes.append("NaN shown black, infinite values clipped")
    low, high = _percentiles(finite.reshape(-1)) if finite.size else (0.0, 0.0)
    notes.append(f"values {low:g} to {high:g} scaled to 8 bits")
    shown = np.zeros(values.shape, dtype=np.uint8)
    if high <= low:
        return shown, (low, high)
    rows = max(1, _BLOCK_PIXELS // values.shape[1])
    for start in range(0, len(values), rows):  # in blocks: float64 takes 8 bytes a pixel
        block = (values[start : start + rows].astype(np.float64) - low) * (255 / (high - low))
        shown[start : start + rows] = np.rint(np.nan_to_num(np.clip(block, 0, 255)))
    return shown, (low, high)


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    """Return the same percentiles that `dicom_display` uses for a file without a window."""
    ranks = [
        math.ceil(max(values.size * share / 100, 1)) - 1
        for share in (LOW_PERCENTILE, HIGH_PERCENTILE)
    ]
    low, high = (float(value) for value in np.partition(values, ranks)[ranks])
    return (low, high) if high > low else (float(values.min()), float(values.max()))


def _laid_on_black(rgba: np.ndarray, notes: list[str]) -> np.ndarray:
    alpha = rgba[..., 3]
    if alpha.min() == 255:
        notes.append("opaque alpha channel dropped")
        return rgba[..., :3]
    notes.append("transparency laid on black")
    shown = np.empty((*alpha.shape, 3), np.uint8)
    rows = max(1, _BLOCK_PIXELS // alpha.shape[1])
    for start in range(0, len(rgba), rows):
        block = rgba[start : start + rows].astype(np.uint32)
        weighted = block[..., :3] * block[..., 3:] * 128 + (128 << 7)  # as Pillow rounds
        shown[start : start + rows] = ((weighted >> 8) + weighted >> 8) >> 7
    return shown


def starts_like_dicom(start: bytes) -> bool:
    """Return True if the first bytes of a file look like DICOM, with or without a preamble.

    Args:
        start: The first 132 bytes of the file.

    Example:
        >>> starts_like_dicom(bytes(128) + b"DICM"), starts_like_dicom(b"BM")
        (True, False)
    """
    return start[128:132] == b"DICM" or (
        start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")
        and (start[4:6].isalpha() or start[6:8] == b"\x00\x00")
    )
