"""Open the images of a data set and shrink them for the page."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from cxr_compare.data_prep.audit.problem import Problem, Severity
from cxr_compare.data_prep.duplicates.image_reader import ImageReader, open_reader
from cxr_compare.data_prep.store.dataset import DataSet

THUMBNAIL_PX = 166
ILLEGIBLE_PX = 72
"""Longest side of an image that may show a name; lines of text cannot be read at this size."""
_QUALITY = 72


def open_images(dataset: DataSet) -> tuple[ImageReader | None, Problem | None]:
    """Find out where the images can be read: from a pixel store, else from their files."""
    n_paths = int(dataset.images["path"].notna().sum())
    if not n_paths:
        text = "the set has no images, so tables only were checked"
        return None, Problem("pictures_none", "info", text, len(dataset.images))
    read, lacking = open_reader(dataset)
    if lacking is None:
        return read, None
    text = lacking.text + ("; tables only were checked" if read is None else "")
    severity: Severity = "warning" if lacking.lost else "info"
    return read, Problem("pictures_gone", severity, text, n_paths, (), lacking.advice)


def thumbnail(pixels: np.ndarray, longest: int = THUMBNAIL_PX) -> str:
    """A small copy of an image for a page."""
    height, width = pixels.shape
    scale = min(longest / max(height, width), 1.0)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
