"""Opening and shrinking of images for the page of an audit."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from cxr_compare.data_prep.audit.problem import Problem, Severity
from cxr_compare.data_prep.duplicates.image_reader import ImageReader, open_reader
from cxr_compare.data_prep.store.dataset import DataSet

THUMBNAIL_PX = 166
ILLEGIBLE_PX = 72
"""Longest side of images that may show a name, px; text cannot be read at this size."""
_QUALITY = 72


def open_images(dataset: DataSet) -> tuple[ImageReader | None, Problem | None]:
    """Open the images of a data set for making thumbnails.

    Args:
        dataset: A prepared data set.

    Returns:
        Two values: the reader of the images (None if no image can be read), and a problem for the
        report if files cannot be read (else None).
    """
    n_paths = int(dataset.images["path"].notna().sum())
    if not n_paths:
        text = "the data set has no images, so only the tables were checked"
        return None, Problem("images_none", "info", text, len(dataset.images))
    read, lacking = open_reader(dataset)
    if lacking is None:
        return read, None
    text = lacking.text
    if read is None:
        text += "; only the tables were checked"
    severity: Severity = "warning" if lacking.lost else "info"
    return read, Problem("images_gone", severity, text, n_paths, (), lacking.advice)


def thumbnail(pixels: np.ndarray, longest: int = THUMBNAIL_PX) -> str:
    """Shrink an image, and return it as a ``data:`` URL for an HTML page.

    Args:
        pixels: Image, uint8 ``(H, W)``.
        longest: Length of the longer side of the thumbnail, px.
    """
    height, width = pixels.shape
    scale = min(longest / max(height, width), 1.0)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
