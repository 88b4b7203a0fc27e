"""A decoded image, in the same form for all file formats, and the conversion of colour to grey."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from PIL import Image

from cxr_compare.data_prep.images.deep_pixels import DeepPixels
from cxr_compare.data_prep.images.fingerprint import perceptual_hash

_MIN_CORRELATION = 0.5  # least correlation of neighbouring pixels in an image larger than an icon
_ICON_SIDE = 64  # px
GREY_AS_COLOUR = "grey stored as colour"
"""Note about an image whose three channels are equal."""
DECODE_COLUMNS = (
    "transfer_syntax",
    "decoder",
    "bits",
    "photometric",
    "modality_transform",
    "voi",
    "window_center",
    "window_width",
    "inverted",
    "orientation",
    "warnings",
    "burned_in_annotation",
)
"""Columns of the decode table about decoding and display."""


@dataclass(frozen=True)
class DecodedImage:
    """An image as a viewer displays it, with facts about its file and its decoding.

    Attributes:
        pixels: Grey values, uint8 (H, W). 0 is black, and air is dark.
        record: How the file was decoded (bits, window, warnings and others): values by name of
            the columns `DECODE_COLUMNS`.
        spacing_row_mm: Distance between rows in mm as the header states it; None if it states none.
        spacing_col_mm: Likewise between columns.
        header: Facts of a DICOM header, as `dicom_header.header_facts` returns them. For any file
            ``synthetic``: True if the file says that a program drew it. There are no identifiers.
        colour: Mean difference of red, green and blue in an image file other than DICOM, 0 (grey)
            to 255.
        patient: PatientID of a DICOM file with its issuer, from which a pseudonym is made; empty if
            unknown. It is not written to any file.
        instance: SOPInstanceUID of a DICOM file; empty if unknown. It is not written to any file.
        deep: The image at the full bit depth of its file; None if it was not requested.
        doubts: Reasons why the decoded pixels may differ from those that were stored in the file,
            for example because it is damaged: sentences without a full stop. They are also among
            the warnings of `record`.
    """

    pixels: np.ndarray
    record: dict[str, Any]
    spacing_row_mm: float | None = None
    spacing_col_mm: float | None = None
    header: dict[str, Any] = field(default_factory=dict)
    colour: float = 0.0
    patient: str = field(default="", repr=False)
    instance: str = field(default="", repr=False)
    deep: DeepPixels | None = field(default=None, repr=False)
    doubts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        height, width = self.pixels.shape
        return f"<DecodedImage: {width} x {height} px, view {self.header.get('view') or 'unknown'}>"

    @cached_property
    def pixel_sha256(self) -> str:
        """SHA-256 of the pixels, 64 hexadecimal digits, which is the same for equal images."""
        return pixel_digest(self.pixels)

    @cached_property
    def perceptual_hash(self) -> str | None:
        """Perceptual hash of the image, by which its copies are recognised.

        64 hexadecimal digits; None if the image has a single grey level.
        """
        return perceptual_hash(self.pixels)

    def _repr_png_(self) -> bytes:
        """Return the image for a notebook."""
        return bytes(cv2.imencode(".png", self.pixels)[1])


def decode_record(notes: Iterable[str], **facts: Any) -> dict[str, Any]:
    """Return facts about the decoding of an image, as a row of a data set's decode table.

    Notes are stored without repetition; a column without a value is None.

    Example:
        >>> decode_record(["turned"], bits=8)["warnings"]
        'turned'
    """
    record: dict[str, Any] = dict.fromkeys(DECODE_COLUMNS)
    record.update(facts)
    record["inverted"] = bool(facts.get("inverted", False))
    record["warnings"] = "; ".join(dict.fromkeys(notes)) or None
    return record


def pixel_digest(pixels: np.ndarray) -> str:
    """Return the SHA-256 of the shape and values of an image, by which equal images are known."""
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def noise_doubts(pixels: np.ndarray) -> list[str]:
    """Return a warning, as a list, if an image looks like noise, as a damaged file may.

    Neighbouring pixels of noise are not alike. Their correlation in radiographs is above 0.9: among
    5,220 public images a test pattern has the lowest, 0.73; the lowest of a radiograph is 0.92.

    Example:
        >>> noise_doubts(np.random.default_rng(0).integers(0, 256, (99, 99)).astype(np.uint8))
        ['decodes to noise: the file seems damaged']
    """
    spread = float(cv2.meanStdDev(pixels)[1].item())
    if min(pixels.shape) < _ICON_SIDE or spread < 1:
        return []
    neighbours = ((pixels[1:], pixels[:-1]), (pixels[:, 1:], pixels[:, :-1]))
    mean_squares = [cv2.norm(a, b, cv2.NORM_L2SQR) / a.size for a, b in neighbours]
    correlation = 1 - max(mean_squares) / (2 * spread**2)
    return ["decodes to noise: the file seems damaged"] if correlation < _MIN_CORRELATION else []


def grey_from_rgb(rgb: np.ndarray) -> np.ndarray:
    """Convert a colour image, uint8 ``(H, W, 3)``, to grey (luma of ITU-R BT.601), as Pillow does.

    Example:
        >>> grey_from_rgb(np.array([[[10, 10, 10], [255, 0, 0]]], np.uint8)).tolist()
        [[10, 76]]
    """
    return np.array(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"))


def colour_note(rgb: np.ndarray) -> str:
    """Return a phrase that says whether an image with three channels ``(H, W, C)`` has any colour.

    Example:
        >>> colour_note(np.zeros((2, 2, 3), np.uint8))
        'grey stored as colour'
    """
    red = rgb[..., 0]
    green = rgb[..., 1]
    blue = rgb[..., 2]
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return GREY_AS_COLOUR
    return "colour turned to grey"
