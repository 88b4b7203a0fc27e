"""Lines of text that are burned into an image: a patient's name, a date, a ward.

Strokes of letters are thin and stand out from what is around them, letters of a line have one
height and one baseline and follow each other closely: nothing is read, letters are counted. Side
markers (L, R) and "AP" are too short to count as a line; "PORTABLE" is one.
"""

from __future__ import annotations

import cv2
import numpy as np

TEXT_LINE_CHARACTERS = 7
"""From this `text_score` on, an image has a line of text that a person should look at."""

_SIDE = 1024  # px; larger images are shrunk to it
_STROKE = 11  # px: strokes are thinner, ribs are not
_CONTRAST = 40  # levels of a stroke above or below what is around it, at the least
_NOISE_FACTOR = 2.0  # and this many times what 95 % of the image stay under
_HEIGHTS = (5, 48)  # px of a letter
_MOST_PARTS = 600  # an image with more is noise or a mesh; the tallest are looked at


def text_score(pixels: np.ndarray) -> float:
    """Count the characters in the longest line of text.

    Example:
        >>> image = np.full((200, 400), 30, np.uint8)
        >>> text_score(image)
        0.0
        >>> named = cv2.putText(image, "DOE JANE 1957", (20, 100), 0, 1.0, 255, 2)
        >>> text_score(named) >= TEXT_LINE_CHARACTERS
        True
    """
    scale = _SIDE / max(pixels.shape)
    if scale < 1:
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    kernel = np.ones((_STROKE, _STROKE), np.uint8)
    bright, dark = (
        cv2.morphologyEx(pixels, operation, kernel)
        for operation in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT)
    )
    return max(_longest_line(_parts(strokes)) for strokes in (bright, dark))


def _parts(strokes: np.ndarray) -> np.ndarray:
    """Connected strokes that may be letters: ``x, y, width, height``, float64, ``(N, 4)``, by x."""
    noise = float(np.percentile(strokes[::7, ::7], 95))
    least = max(_CONTRAST, _NOISE_FACTOR * noise)
    mask = cv2.threshold(strokes, least, 255, cv2.THRESH_BINARY)[1]
    contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    parts = np.array([cv2.boundingRect(contour) for contour in contours], np.float64).reshape(-1, 4)
    width, height = parts[:, 2], parts[:, 3]
    low, high = _HEIGHTS
    letters = (height >= low) & (height <= high) & (width <= 3 * height) & (width >= 0.08 * height)
    parts = parts[letters]
    parts = parts[np.argsort(-parts[:, 3], kind="stable")[:_MOST_PARTS]]
    return parts[np.argsort(parts[:, 0], kind="stable")]


def _longest_line(parts: np.ndarray) -> float:
    """The most characters on a path from part to part, each to the right of the one before."""
    if not len(parts):
        return 0.0
    x, y, width, height = parts.T
    taller = np.maximum(height[:, None], height)
    gap = x - (x + width)[:, None]
    follows = (x > x[:, None]) & (gap >= -0.3 * taller) & (gap <= 1.4 * taller)
    alike = taller <= 1.6 * np.minimum(height[:, None], height)
    on_top = np.abs(y[:, None] - y) <= 0.3 * taller
    on_base = np.abs((y + height)[:, None] - (y + height)) <= 0.3 * taller
    linked = follows & alike & (on_top | on_base)
    length = np.maximum(1, np.round(width / (0.8 * height)))  # letters that touch are one part
    for part in range(1, len(parts)):
        before = length[:part][linked[:part, part]]
        if len(before):
            length[part] += before.max()
    return float(length.max())
