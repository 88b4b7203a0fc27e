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

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.codestream import decode_jpeg
from cxr_compare.data_prep.images.decoded_image import (
    GREY_AS_COLOUR,
    DecodedImage,
    DeepPixels,
    TooLargeError,
    colour_note,
    decode_record,
    grey_from_rgb,
    noise_doubts,
    plain_reason,
    require_file,
    require_size,
    undecodable,
)
from cxr_compare.data_prep.images.dicom import read_dicom
from cxr_compare.data_prep.images.dicom_display import HIGH_PERCENTILE, LOW_PERCENTILE
from cxr_compare.data_prep.images.dicom_header import starts_like_dicom

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF")
_MAGIC = {
    b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF",
    b"II+\0": "TIFF", b"MM\0+": "TIFF", b"GIF8": "GIF",
}  # fmt: skip
_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_EXIF_ORIENTATION = 0x0112
_TIFF_PHOTOMETRIC = 0x0106
_EXIF_DESCRIPTION = 0x010E
_SYNTHETIC = "Synthetic chest X-ray"  # how the description of an image of `cxr synth` begins
_BLOCK = 1 << 20  # pixels
_COLOUR_SIDE = 64  # px at which colours are measured
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError,
           KeyError, TypeError, AttributeError, OverflowError)  # fmt: skip


def read_image(path: Path | str, *, window: str | None = None, deep: bool = False) -> DecodedImage:
    """Read an image as 8-bit grey: DICOM, PNG, JPEG, TIFF, BMP, WebP, PPM or GIF.

    Camera rotation (EXIF) is applied, transparency laid on black, colour turned to grey, a TIFF
    whose zero is white inverted. More than 8 bits are scaled as in a DICOM file without window:
    0.1 percentile of the pixels to black, 99.9 to white. Each is noted in the record. Of several
    frames the first is read; colour profiles are ignored.

    Args:
        path: The file; its extension does not matter.
        window: Name of the window to use of DICOM files; see `data_prep.images.dicom.read_dicom`.
        deep: Whether to give the pixels at full depth as well.

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
        return read_dicom(path, window=window, deep=deep)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return _read(path, start, caught, deep=deep)
        except InputError:
            raise
        except MemoryError:
            raise TooLargeError(f"{path}: not enough memory to decode it") from None
        except _BROKEN as error:
            raise undecodable(path, error) from None


def _read(
    path: Path, start: bytes, caught: list[warnings.WarningMessage], *, deep: bool
) -> DecodedImage:
    try:
        return _read_by_pillow(path, caught, deep=deep)
    except UnidentifiedImageError:
        kinds = [kind for magic, kind in _MAGIC.items() if start.startswith(magic)]
        raise InputError(
            f"{path}: a {kinds[0]} file that cannot be decoded; it is cut short, damaged or rare"
            if kinds
            else f"{path}: neither DICOM nor a known image format ({', '.join(_FORMATS)})"
        ) from None
    except Image.DecompressionBombError:
        raise TooLargeError(f"{path}: is larger than the limit of 100 megapixels") from None


def _read_by_pillow(
    path: Path, caught: list[warnings.WarningMessage], *, deep: bool
) -> DecodedImage:
    # Not by name: Pillow would map the file and misread plain TIFFs whose tag turns them.
    with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
        require_size(path, *image.size)
        notes: list[str] = []
        doubts: list[str] = []
        cut_to_8_bits = _holds_deep_colour(image)
        if getattr(image, "is_animated", False):
            notes.append("first of several frames")  # to count them can take long
        kind, stored_mode = str(image.format), image.mode
        turn = image.getexif().get(_EXIF_ORIENTATION, 1)
        described = str(image.getexif().get(_EXIF_DESCRIPTION, ""))
        white_is_zero = kind == "TIFF" and image.getexif().get(_TIFF_PHOTOMETRIC) == 0
        if "icc_profile" in image.info:
            notes.append("colour profile ignored")
        values: np.ndarray | None = None
        colours = _COLOURS.get(image.mode) if kind in ("JPEG", "MPO") else None
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
    bits, colour = 16 if cut_to_8_bits else 8, 0.0
    if values is None:
        values, bits, colour = _grey(upright, notes)
    else:
        if values.ndim == 3:
            values, colour = _luma(values, notes, was_grey=False)
        values = _turn_upright(values, turn)
    negative = white_is_zero and stored_mode not in ("1", "L")  # those, Pillow has inverted
    pixels, whole_depth = _shown(values, notes, negative=negative, deep=deep)
    caught[:] = [m for m in caught if m.category is not Image.DecompressionBombWarning]
    doubts += noise_doubts(pixels)
    notes += [*doubts, *map(plain_reason, caught)]
    record = decode_record(
        pixels,
        notes,
        decoder=decoder,
        bits=bits,
        photometric=stored_mode,
        voi="percentiles" if bits > 8 else None,
        inverted=white_is_zero,
        orientation=f"exif-{turn}" if turn in range(2, 9) else None,
    )
    header = {"synthetic": True} if described.startswith(_SYNTHETIC) else {}
    return DecodedImage(
        pixels, record, header=header, colour=colour, deep=whole_depth, doubts=tuple(doubts)
    )


def _shown(
    values: np.ndarray, notes: list[str], *, negative: bool, deep: bool
) -> tuple[np.ndarray, DeepPixels | None]:
    """Grey of any depth as 8 bits and, where asked for, as it is."""
    ends = (0.0, 255.0)
    pixels = values
    if values.dtype != np.uint8:
        pixels, ends = _scaled(values, notes)
    whole_depth = DeepPixels.of(values, *ends, negative=negative) if deep else None
    return (255 - pixels if negative else pixels), whole_depth


def _holds_deep_colour(image: Image.Image) -> bool:
    """Whether a colour file holds 16 bits, of which Pillow keeps the upper 8."""
    coding = str([tile[3] for tile in getattr(image, "tile", [])])
    return image.mode in ("RGB", "RGBA", "RGBX", "LA") and ";16" in coding


def _deep_grey(values: np.ndarray | None) -> np.ndarray | None:
    """The grey of 16-bit colours, laid on black; None where they are no grey of 16 bits."""
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


def _grey(image: Image.Image, notes: list[str]) -> tuple[np.ndarray, int, float]:
    """Grey pixels, the bits per value of the source, and how coloured it is."""
    if image.mode in ("L", "1"):
        if "transparency" in image.info:
            notes.append("transparency ignored")
        return np.array(image.convert("L")), 1 if image.mode == "1" else 8, 0.0
    if image.mode.startswith(("I", "F")):
        bits = 16 if image.mode.startswith("I;16") else 32
        return np.asarray(image), bits, 0.0
    was_grey = image.mode in ("LA", "La")
    if image.has_transparency_data:
        rgb = _laid_on_black(np.asarray(image.convert("RGBA")), notes)
    else:
        rgb = np.asarray(image.convert("RGB"))
    pixels, colour = _luma(rgb, notes, was_grey=was_grey)
    return pixels, 8, colour


def _luma(rgb: np.ndarray, notes: list[str], *, was_grey: bool) -> tuple[np.ndarray, float]:
    """Grey of a colour image, and by how much its channels differ."""
    note = colour_note(rgb)
    if not was_grey:
        notes.append(note)
    if note == GREY_AS_COLOUR:
        return np.ascontiguousarray(rgb[..., 0]), 0.0
    sides = (min(_COLOUR_SIDE, side) for side in rgb.shape[1::-1])
    small = cv2.resize(rgb, tuple(sides), interpolation=cv2.INTER_AREA)
    return grey_from_rgb(rgb), float(np.ptp(small.astype(np.int16), axis=2).mean())


def _scaled(values: np.ndarray, notes: list[str]) -> tuple[np.ndarray, tuple[float, float]]:
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
        return shown, (low, high)
    step = max(1, _BLOCK // values.shape[1])
    for start in range(0, len(values), step):  # in blocks: float64 takes 8 bytes a pixel
        block = (values[start : start + step].astype(np.float64) - low) * (255 / (high - low))
        shown[start : start + step] = np.rint(np.nan_to_num(np.clip(block, 0, 255)))
    return shown, (low, high)


def _ends(values: np.ndarray) -> tuple[float, float]:
    """The same two pixels' values that `dicom_display` takes where a DICOM file has no window."""
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
    step = max(1, _BLOCK // alpha.shape[1])
    for start in range(0, len(rgba), step):
        block = rgba[start : start + step].astype(np.uint32)
        weighed = block[..., :3] * block[..., 3:] * 128 + (128 << 7)  # as Pillow rounds
        shown[start : start + step] = ((weighed >> 8) + weighed >> 8) >> 7
    return shown
