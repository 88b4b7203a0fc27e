"""A decoded image, in the same form for all file formats, and conversions of values to grey."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from cxr_compare.data_prep.images.fingerprint import perceptual_hash

_SHOWN_PERCENTILES = (0.1, 99.9)  # become black and white in a deep image without a window
_MIN_CORRELATION = 0.5  # least correlation of neighbouring pixels in an image larger than an icon
_ICON_SIDE = 64  # px
_ROWS = 64  # that are compared at a time, so that they stay in the cache of the processor


@dataclass(frozen=True)
class DecodedImage:
    """An image as a viewer displays it, with facts about its file and its decoding.

    Attributes:
        pixels: Grey values, uint8 (H, W). 0 is black, and air is dark.
        record: How the file was decoded, by column of a data set's decode table.
        header: Facts of a DICOM header, as `dicom_header.header_facts` returns them. For any file
            ``synthetic``: True if the file says that a program drew it. There are no identifiers.
        colour: Mean difference of red, green and blue in an image file other than DICOM, 0 (grey)
            to 255.
        doubts: Reasons why the decoded pixels may differ from those that were stored in the file,
            for example because it is damaged: sentences without a full stop. They are also among
            the warnings of `record`.
    """

    pixels: np.ndarray
    record: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    colour: float = 0.0
    doubts: tuple[str, ...] = ()

    @cached_property
    def pixel_sha256(self) -> str:
        """SHA-256 of the pixels, 64 hexadecimal digits, which is the same for equal images."""
        return pixel_digest(self.pixels)

    @cached_property
    def perceptual_hash(self) -> str | None:
        """Perceptual hash, by which copies of the image are recognised; None for a single grey."""
        return perceptual_hash(self.pixels)


def joined_notes(notes: Iterable[str]) -> str | None:
    """Return notes about the decoding of an image as one text without repetition."""
    return "; ".join(dict.fromkeys(notes)) or None


def pixel_digest(pixels: np.ndarray) -> str:
    """Return the SHA-256 of the shape and values of an image, by which equal images are known."""
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def noise_doubts(pixels: np.ndarray) -> list[str]:
    """Return a warning, as a list, if an image looks like noise, as a damaged file may.

    Neighbouring pixels of noise are not alike. Their correlation in radiographs is above 0.9: among
    5,220 public images a test pattern has the lowest, 0.73; the lowest of a radiograph is 0.92.

    Examples:
        >>> noise_doubts(np.random.default_rng(0).integers(0, 256, (99, 99)).astype(np.uint8))
        ['decodes to noise: the file seems damaged']
    """
    import cv2

    spread = float(cv2.meanStdDev(pixels)[1].item())
    if min(pixels.shape) < _ICON_SIDE or spread < 1:
        return []
    neighbours = ((pixels[1:], pixels[:-1]), (pixels[:, 1:], pixels[:, :-1]))
    mean_squares = [cv2.norm(a, b, cv2.NORM_L2SQR) / a.size for a, b in neighbours]
    correlation = 1 - max(mean_squares) / (2 * spread**2)
    return ["decodes to noise: the file seems damaged"] if correlation < _MIN_CORRELATION else []


def grey_from_rgb(rgb: np.ndarray) -> np.ndarray:
    """Convert a colour image, uint8 ``(H, W, 3)``, to grey (luma of ITU-R BT.601), as Pillow does.

    Examples:
        >>> grey_from_rgb(np.array([[[10, 10, 10], [255, 0, 0]]], np.uint8)).tolist()
        [[10, 76]]
    """
    return np.array(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"))


def grey_of_equal_channels(rgb: np.ndarray) -> np.ndarray | None:
    """Return the grey of an image ``(H, W, C)`` of equal channels; None if it has colour.

    Examples:
        >>> grey_of_equal_channels(np.array([[[7, 7, 7], [9, 9, 9]]], np.uint8)).tolist()
        [[7, 9]]
    """
    import cv2

    grey = np.empty(rgb.shape[:2], rgb.dtype)
    channels: Sequence[np.ndarray] | None = None
    for top in range(0, len(rgb), _ROWS):
        channels = cv2.split(rgb[top : top + _ROWS], channels)
        red, green, blue = channels[:3]
        if cv2.norm(red, green, cv2.NORM_INF) or cv2.norm(green, blue, cv2.NORM_INF):
            return None
        grey[top : top + _ROWS] = red
    return grey


def colour_note(*, is_grey: bool) -> str:
    """Return the note on an image that is stored with colours, and has none or some."""
    return "grey stored as colour" if is_grey else "colour turned to grey"


def grey_range(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Return the values that become black and white in a deep image without a window.

    `values` are those that can occur, in ascending order, `counts` the pixels of each, ``(N,)``.

    Examples:
        >>> grey_range(np.array([0, 5, 9]), np.array([1, 9999, 1]))
        (0.0, 9.0)
    """
    up_to = np.cumsum(counts)
    ranks = [max(int(up_to[-1]) * share / 100, 1) for share in _SHOWN_PERCENTILES]
    low, high = (float(values[np.searchsorted(up_to, rank)]) for rank in ranks)
    if high > low:
        return low, high
    present = values[counts > 0]
    return float(present[0]), float(present[-1])


def by_rows(convert: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """Convert an image to 8 bits row by row: indices and floats of all pixels take much memory."""
    pixels = np.empty(values.shape, np.uint8)
    for converted, row in zip(pixels, values, strict=True):
        converted[:] = convert(row)
    return pixels
