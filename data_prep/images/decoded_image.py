"""A decoded image and the rules that hold for every file, whatever its format."""

from __future__ import annotations

import hashlib
import re
import textwrap
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import MAX_FILE_BYTES

_MAX_SIDE = 10_000
"""Longest side accepted, in pixels; the largest radiography plates have about 5,000."""
MAX_PIXELS = 100_000_000
"""Most pixels accepted in one image."""


class TooLargeError(InputError):
    """A file or image beyond the limits, refused before memory is taken for it."""


def lower_pixel_limit(pixels: int) -> None:
    """Accept only images of fewer pixels from now on in this process, which strangers send."""
    global MAX_PIXELS
    MAX_PIXELS = min(MAX_PIXELS, pixels)


_NOISE = 0.5  # correlation of neighbours in an image larger than an icon
_ICON = 64  # px

_DECODE_COLUMNS = (
    "transfer_syntax", "decoder", "bits", "photometric", "modality_transform", "voi",
    "window_center", "window_width", "inverted", "orientation", "pixel_sha256", "warnings",
    "burned_in_annotation",
)  # fmt: skip


@dataclass(frozen=True)
class DeepPixels:
    """An image at the depth of its file, before any window."""

    # uint16, shape `(H, W)`; larger is brighter. Those of up to 8 bits stay as they are; of
    # deeper ones the lowest is 0
    values: np.ndarray = field(repr=False)
    # what is shown black by the file's own window or range; may lie outside of the values
    low: float
    high: float  # what is shown white

    @classmethod
    def of(cls, values: np.ndarray, low: float, high: float, *, negative: bool = False) -> Self:
        """Shift values so that the lowest is 0, and scale what 16 bits would not hold or tell."""
        if values.dtype == np.uint8:
            least, top, step = 0.0, 255.0, 1.0
        else:
            known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
            ends = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
            least, span = ends[0], ends[1] - ends[0]
            whole = values.dtype.kind != "f" or np.array_equal(known, np.rint(known))
            step = 1.0 if (whole and span <= _DEEPEST) or span == 0 else span / _DEEPEST
            top = span / step
        levels = np.empty(values.shape, np.uint16)
        rows = max(1, _BLOCK // max(1, values[:1].size))
        for start in range(0, len(values), rows):
            block = (values[start : start + rows].astype(np.float64) - least) / step
            block = np.rint(np.nan_to_num(block, nan=0.0, posinf=top, neginf=0.0))
            levels[start : start + rows] = top - block if negative else block
        low, high = (low - least) / step, (high - least) / step
        return cls(levels, *((top - high, top - low) if negative else (low, high)))


@dataclass(frozen=True)
class DecodedImage:
    """One image as it is displayed, and what was done to get there."""

    pixels: np.ndarray  # uint8, shape `(H, W)`, 0 is black, air is dark
    record: dict[str, Any]  # the columns of the decode table except `image_id`
    # distance between rows as the header states it, in mm; None if unknown
    spacing_row_mm: float | None = None
    spacing_col_mm: float | None = None  # distance between columns, likewise
    # `view` ('PA', 'AP', 'LL', 'other' or None), `sex` ('M', 'F', 'O' or None), `age_years`
    # (float or None), `modality` (text or None) and `maker` (a class or None) of a DICOM file; of
    # any, `synthetic`: whether it says that a program drew it. No identifiers
    header: dict[str, Any] = field(default_factory=dict)
    # by how much red, green and blue of a plain image file differ on average, 0 to 255
    colour: float = 0.0
    # PatientID after its issuer, and SOPInstanceUID, of a DICOM file; empty where unknown. They
    # serve to make pseudonyms, and are written nowhere
    patient: str = field(default="", repr=False)
    instance: str = field(default="", repr=False)
    # the same at full depth, where it was asked for
    deep: DeepPixels | None = field(default=None, repr=False)
    # why these may not be the pixels that were stored, in sentences without a full stop; they
    # stand among the record's warnings, too
    doubts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        height, width = self.pixels.shape
        return f"<DecodedImage: {width} x {height} px, view {self.header.get('view') or 'unknown'}>"

    def _repr_png_(self) -> bytes:
        """The image itself, in a notebook."""
        return bytes(cv2.imencode(".png", self.pixels)[1])


def decode_record(pixels: np.ndarray, notes: Iterable[str], **known: Any) -> dict[str, Any]:
    """Complete a record of the decode table."""
    record: dict[str, Any] = dict.fromkeys(_DECODE_COLUMNS)
    record.update(known)
    record["inverted"] = bool(known.get("inverted", False))
    record["pixel_sha256"] = _pixel_digest(pixels)
    record["warnings"] = "; ".join(dict.fromkeys(notes)) or None
    return record


def _pixel_digest(pixels: np.ndarray) -> str:
    """SHA-256 of an image's shape and values: equal images in different files agree."""
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def noise_doubts(pixels: np.ndarray) -> list[str]:
    """Doubt an image whose neighbours are not alike: they correlate by 0.9 in any radiograph.

    Of 5,220 public images a test pattern has the least, 0.73, of radiographs one with 0.92.
    """
    spread = float(cv2.meanStdDev(pixels)[1].item())
    if min(pixels.shape) < _ICON or spread < 1:
        return []
    pairs = ((pixels[1:], pixels[:-1]), (pixels[:, 1:], pixels[:, :-1]))
    unlike = max(cv2.norm(a, b, cv2.NORM_L2SQR) / a.size for a, b in pairs) / (2 * spread**2)
    return ["decodes to noise: the file seems damaged"] if 1 - unlike < _NOISE else []


def require_size(path: Path, width: int, height: int) -> None:
    """Refuse an image by the size that its header states, before memory is taken for it."""
    if min(width, height) < 1:
        raise InputError(f"{path}: its header says {width} x {height} px; not an image")
    if max(width, height) > _MAX_SIDE or width * height > MAX_PIXELS:
        raise TooLargeError(
            f"{path}: {width} x {height} px is larger than the limit of {_MAX_SIDE:,} px a side "
            f"and {MAX_PIXELS / 10**6:g} megapixels; make it smaller"
        )


def require_file(path: Path) -> int:
    """Check that a file is there and of a size worth reading."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    if not path.is_file():
        raise InputError(f"{path}: is not a file")
    if size == 0:
        raise InputError(f"{path}: is empty (0 bytes)")
    if size > MAX_FILE_BYTES:
        raise TooLargeError(
            f"{path}: {size / 2**20:,.0f} MiB is larger than the limit of "
            f"{MAX_FILE_BYTES / 2**20:,.0f} MiB"
        )
    return size


def grey_from_rgb(rgb: np.ndarray) -> np.ndarray:
    """Luma of a colour image (ITU-R BT.601), as Pillow gives it; equal channels stay."""
    grey = np.empty(rgb.shape[:2], np.uint8)
    step = max(1, _BLOCK // rgb.shape[1])
    for start in range(0, len(rgb), step):  # in blocks that stay in the processor's cache
        # Whole numbers below 2^24, which float32 holds exactly; the cast cuts the fraction off.
        sums = cv2.transform(rgb[start : start + step].astype(np.float32), _LUMA)
        grey[start : start + step] = sums * np.float32(1 / 65536)
    return grey


_BLOCK = 1 << 15  # pixels
_DEEPEST = (1 << 16) - 1
_LUMA = np.array([[19595, 38470, 7471, 32768]], np.float32)  # of 65,536, and half of it to round


GREY_AS_COLOUR = "grey stored as colour"


def colour_note(rgb: np.ndarray) -> str:
    """Say whether a three-channel image is really coloured."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return GREY_AS_COLOUR
    return "colour turned to grey"


def undecodable(path: Path, error: Exception, kind: str = "") -> InputError:
    """The refusal of a file that a library gave up."""
    reason = plain_reason(error)
    if re.search("truncat|remature|[Nn]ot enough|[Ee]nd of file", reason):
        return InputError(f"{path}: is cut short ({reason})")
    return InputError(f"{path}: cannot be decoded{kind} ({reason}); it is cut short or damaged")


def plain_reason(problem: BaseException | warnings.WarningMessage) -> str:
    r"""One short line from a library's exception or warning, without values from the file.

    Decoders quote what they stumble over, and in a DICOM header that can be a patient's name.
    """
    source = problem.message if isinstance(problem, warnings.WarningMessage) else problem
    if isinstance(source, RecursionError):
        return "its sequences are nested too deeply"
    if "'NoneType' object" in str(source):
        return "gives no image"
    lines = str(source).strip().splitlines() or [type(source).__name__]
    line = lines[-1].strip() if lines[0].endswith(":") else lines[0]
    # From the first quote to the last: what is quoted may have quotes in it, as O'Neil has.
    quoted = r"(?<!\w)b?['\"](?:.*['\"](?!\w)|.*$)"
    return textwrap.shorten(re.sub(quoted, "'...'", line), 160, placeholder=" ...")
