"""Reading of images from files of any format, which is recognised by the content of the file."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import (
    GREY_AS_COLOUR,
    DecodedImage,
    colour_note,
    decode_record,
    grey_from_rgb,
    noise_doubts,
)
from cxr_compare.data_prep.images.deep_pixels import DeepPixels, grey_range, in_blocks
from cxr_compare.data_prep.images.jpeg import decode_jpeg
from cxr_compare.data_prep.images.refused_files import (
    TooLargeError,
    decode_error,
    plain_reason,
    require_file,
    require_size,
)

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF")
_JPEG_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_EXIF_ORIENTATION = 0x0112
_TIFF_PHOTOMETRIC = 0x0106
_EXIF_DESCRIPTION = 0x010E
_SYNTHETIC = "Synthetic chest X-ray"  # how the description of an image of `cxr synth` begins
_COLOUR_SIDE = 64  # px of the shrunken image in which colours are measured


def read_image(path: Path | str, *, deep: bool = False) -> DecodedImage:
    """Read an image as 8-bit grey: DICOM, PNG, JPEG, TIFF, BMP, WebP, PPM or GIF.

    The extension of the file does not matter. Camera rotation (EXIF) is applied, transparent pixels
    become black, colour becomes grey, and a TIFF whose zero is white is inverted. Values of more
    than 8 bits are scaled as in a DICOM file without a window: the 0.1 percentile of the pixels
    becomes black and the 99.9 percentile white. The record notes each of these steps. Of several
    frames the first is read. Colour profiles are ignored. With `deep`, the pixels at the full bit
    depth of the file, before any window, are returned, too.

    An `InputError` says that the file is missing, empty, cut short, or in no known image format; a
    `TooLargeError` that a side is longer than 10,000 px or the image larger than 100 megapixels.

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
        is_dicom = starts_like_dicom(file.read(132))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if is_dicom:
                from cxr_compare.data_prep.images.dicom import read_dicom  # pydicom, if needed

                return read_dicom(path, caught, deep=deep)
            return _read_by_pillow(path, caught, deep=deep)
        except InputError:
            raise
        except UnidentifiedImageError:
            raise InputError(
                f"{path}: neither DICOM nor a known image format ({', '.join(_FORMATS)}), or "
                "damaged"
            ) from None
        except Image.DecompressionBombError:
            raise TooLargeError(f"{path}: is larger than the limit of 100 megapixels") from None
        except MemoryError:
            raise TooLargeError(f"{path}: not enough memory to decode it") from None
        except Exception as error:  # noqa: BLE001 - decoders raise all kinds on broken files
            raise decode_error(path, error) from None


def _read_by_pillow(
    path: Path, caught: list[warnings.WarningMessage], *, deep: bool
) -> DecodedImage:
    notes: list[str] = []
    doubts: list[str] = []
    # Opened here: given a name, Pillow maps the file and misreads plain TIFFs that a tag turns.
    with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
        require_size(path, *image.size)
        values = _read_deep_colour(path, image, notes)  # before the EXIF of a PNG is read: it loads
        if getattr(image, "is_animated", False):
            notes.append("first of several frames")  # to count them can take long
        if "icc_profile" in image.info:
            notes.append("colour profile ignored")
        kind = str(image.format)
        mode = image.mode
        exif = image.getexif()
        turn = exif.get(_EXIF_ORIENTATION, 1)
        white_is_zero = kind == "TIFF" and exif.get(_TIFF_PHOTOMETRIC) == 0
        description = str(exif.get(_EXIF_DESCRIPTION, ""))
        colours = _JPEG_COLOURS.get(mode) if kind in ("JPEG", "MPO") else None
        if colours is not None:
            values = decode_jpeg(path, path.read_bytes(), colours, notes, doubts)
        if colours == "CMYK":  # Pillow inverts the inks where Adobe did
            values = None
        stored: Image.Image = image
        if values is None or colours is None:
            image.load()
        if values is not None:
            stored = Image.fromarray(values)
            stored.getexif()[_EXIF_ORIENTATION] = turn
        upright = ImageOps.exif_transpose(stored)
    if turn in range(2, 9):
        notes.append("turned as its EXIF says")
    grey = _grey(upright, notes)
    # Pillow has inverted images of the modes "1" and "L".
    negative = white_is_zero and mode not in ("1", "L")
    pixels, deep_pixels = _shown(grey.values, notes, negative=negative, deep=deep)
    caught[:] = [m for m in caught if m.category is not Image.DecompressionBombWarning]
    doubts += noise_doubts(pixels)
    notes += [*doubts, *map(plain_reason, caught)]
    record = decode_record(
        notes,
        decoder="simplejpeg" if colours in ("GRAY", "RGB") else f"pillow-{kind.lower()}",
        bits=grey.bits,
        photometric=mode,
        voi="percentiles" if grey.bits > 8 else None,
        inverted=white_is_zero,
        orientation=f"exif-{turn}" if turn in range(2, 9) else None,
    )
    header = {"synthetic": True} if description.startswith(_SYNTHETIC) else {}
    return DecodedImage(
        pixels, record, header=header, colour=grey.colour, deep=deep_pixels, doubts=tuple(doubts)
    )


def _read_deep_colour(path: Path, image: Image.Image, notes: list[str]) -> np.ndarray | None:
    """Return the 16-bit grey of a colour file, of which Pillow keeps the upper 8 bits.

    None if the file holds no colour of 16 bits, or colours that are not grey.
    """
    coding = str([tile[3] for tile in getattr(image, "tile", [])])
    if image.mode not in ("RGB", "RGBA", "RGBX", "LA") or ";16" not in coding:
        return None
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if (
        values is None
        or values.dtype != np.uint16
        or values.ndim != 3
        or colour_note(values) != GREY_AS_COLOUR
    ):
        notes.append("16-bit colour cut to 8 bits")
        return None
    notes.append("16-bit grey stored as colour")
    if values.shape[2] == 3:
        return np.ascontiguousarray(values[..., 0])
    return (values[..., 0].astype(np.uint32) * values[..., 3] // 65535).astype(np.uint16)


@dataclass(frozen=True)
class _Grey:
    """The grey of an image file."""

    values: np.ndarray  # (H, W), of any depth
    bits: int  # bits of a value in the file
    colour: float = 0.0  # mean difference of red, green and blue, 0 to 255


def _grey(image: Image.Image, notes: list[str]) -> _Grey:
    if image.mode in ("L", "1"):
        if "transparency" in image.info:
            notes.append("transparency ignored")
        return _Grey(np.array(image.convert("L")), bits=1 if image.mode == "1" else 8)
    if image.mode.startswith(("I", "F")):
        bits = 16 if image.mode.startswith("I;16") else 32
        return _Grey(np.asarray(image), bits)
    was_grey = image.mode in ("LA", "La")
    if image.has_transparency_data:
        image = _laid_on_black(image.convert("RGBA"), notes)
    rgb = np.asarray(image.convert("RGB"))
    note = colour_note(rgb)
    if not was_grey:
        notes.append(note)
    if note == GREY_AS_COLOUR:
        return _Grey(np.ascontiguousarray(rgb[..., 0]), bits=8)
    sides = (min(_COLOUR_SIDE, side) for side in rgb.shape[1::-1])
    small = cv2.resize(rgb, tuple(sides), interpolation=cv2.INTER_AREA)
    colour = float(np.ptp(small.astype(np.int16), axis=2).mean())
    return _Grey(grey_from_rgb(rgb), 8, colour)


def _laid_on_black(image: Image.Image, notes: list[str]) -> Image.Image:
    if image.getchannel("A").getextrema()[0] == 255:
        notes.append("opaque alpha channel dropped")
        return image
    notes.append("transparency laid on black")
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)


def _shown(
    values: np.ndarray, notes: list[str], *, negative: bool, deep: bool
) -> tuple[np.ndarray, DeepPixels | None]:
    """Return grey of any depth as 8 bits and, if requested, at full depth."""
    black = 0.0
    white = 255.0
    pixels = values
    if values.dtype != np.uint8:
        pixels, black, white = _scaled(values, notes)
    deep_pixels = DeepPixels.from_values(values, black, white, negative=negative) if deep else None
    return (255 - pixels if negative else pixels), deep_pixels


def _scaled(values: np.ndarray, notes: list[str]) -> tuple[np.ndarray, float, float]:
    """Stretch deep values to 8 bits by percentiles; 12 bits in a 16-bit file stay visible."""
    finite = values.ravel()
    if np.issubdtype(values.dtype, np.floating):
        finite = finite[np.isfinite(finite)]
        if finite.size < values.size:
            notes.append("NaN shown black, infinite values clipped")
    low = high = 0.0
    if values.dtype == np.uint16:  # faster to count than to sort
        low, high = grey_range(np.arange(1 << 16), np.bincount(finite, minlength=1 << 16))
    elif finite.size:
        low, high = grey_range(*np.unique(finite, return_counts=True))
    notes.append(f"values {low:g} to {high:g} scaled to 8 bits")
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8), low, high

    def stretch(block: np.ndarray) -> np.ndarray:
        greys = (block.astype(np.float64) - low) * (255 / (high - low))
        return np.rint(np.nan_to_num(np.clip(greys, 0, 255)))

    return in_blocks(stretch, values, np.uint8), low, high


def starts_like_dicom(start: bytes) -> bool:
    """Return True if the first 132 bytes of a file look like DICOM, with or without a preamble.

    Example:
        >>> starts_like_dicom(bytes(128) + b"DICM"), starts_like_dicom(b"BM")
        (True, False)
    """
    return start[128:132] == b"DICM" or (
        start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")
        and (start[4:6].isalpha() or start[6:8] == b"\x00\x00")
    )
