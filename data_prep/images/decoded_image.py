"""A decoded image, in the same form for all file formats."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from cxr_compare.data_prep.images.deep_pixels import DeepPixels
from cxr_compare.data_prep.images.fingerprint import perceptual_hash

_MIN_CORRELATION = 0.5  # least correlation of neighbouring pixels in an image larger than an icon
_ICON_SIDE = 64  # px
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
    "pixel_sha256",
    "warnings",
    "burned_in_annotation",
)
"""Columns of the decode table about decoding and display."""


@dataclass(frozen=True)
class DecodedImage:
    """An image as a viewer displays it, with a record of how it was decoded.

    Example:
        >>> DecodedImage(np.zeros((4, 6), np.uint8), {}).pixels.shape
        (4, 6)
    """

    pixels: np.ndarray  # uint8, shape `(H, W)`; 0 is black, air is dark
    record: dict[str, Any]  # columns of the decode table except `image_id`
    spacing_row_mm: float | None = None  # distance between rows as the header states it
    spacing_col_mm: float | None = None  # distance between columns
    # Facts of a DICOM header: `view` ('PA', 'AP', 'LL', 'other' or None), `sex` ('M', 'F', 'O' or
    # None), `age_years` (float or None), `modality` (text or None) and `maker` (a class or None).
    # Of any file `synthetic`: whether it says that a program drew it. No identifiers.
    header: dict[str, Any] = field(default_factory=dict)
    # Mean difference of red, green and blue in a plain image file, 0 to 255.
    colour: float = 0.0
    # Identifiers in a DICOM file: PatientID after its issuer, and SOPInstanceUID; empty where
    # unknown. They serve to make pseudonyms, and are never written.
    patient: str = field(default="", repr=False)
    instance: str = field(default="", repr=False)
    deep: DeepPixels | None = field(default=None, repr=False)  # at full depth, if requested
    # Reasons why these may not be the stored pixels, as sentences without a full stop. They are
    # also among the warnings of the record.
    doubts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        height, width = self.pixels.shape
        return f"<DecodedImage: {width} x {height} px, view {self.header.get('view') or 'unknown'}>"

    @property
    def pixel_sha256(self) -> str:
        """Digest of the pixels, which equal images share."""
        return str(self.record.get("pixel_sha256") or pixel_digest(self.pixels))

    @cached_property
    def perceptual_hash(self) -> str | None:
        """Fingerprint of the image, which its copies share; None if it has a single grey level."""
        return perceptual_hash(self.pixels)

    def _repr_png_(self) -> bytes:
        """Return the image for a notebook."""
        return bytes(cv2.imencode(".png", self.pixels)[1])


def decode_record(pixels: np.ndarray, notes: Iterable[str], **facts: Any) -> dict[str, Any]:
    """Return the row of the decode table for an image.

    Args:
        pixels: The displayed image, uint8, shape ``(H, W)``.
        notes: Notes and warnings about the decoding, which are stored without repetition.
        **facts: Values of further columns of the table.

    Returns:
        The values of all columns except ``image_id``; None for a column without a value.

    Example:
        >>> decode_record(np.zeros((2, 2), np.uint8), ["turned"], bits=8)["warnings"]
        'turned'
    """
    record: dict[str, Any] = dict.fromkeys(DECODE_COLUMNS)
    record.update(facts)
    record["inverted"] = bool(facts.get("inverted", False))
    record["pixel_sha256"] = pixel_digest(pixels)
    record["warnings"] = "; ".join(dict.fromkeys(notes)) or None
    return record


def pixel_digest(pixels: np.ndarray) -> str:
    """Return the SHA-256 of the shape and values of an image, by which equal images are recognised.

    Args:
        pixels: Grey levels, uint8, shape ``(H, W)``.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def noise_doubts(pixels: np.ndarray) -> list[str]:
    """Return a doubt about an image whose neighbouring pixels are not alike, as in noise.

    The correlation of neighbouring pixels in radiographs is above 0.9. Among 5,220 public images a
    test pattern has the lowest correlation, 0.73; the lowest of a radiograph is 0.92.

    Args:
        pixels: Grey levels, uint8, shape ``(H, W)``.

    Returns:
        A list with one sentence; empty if there is no doubt.

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
