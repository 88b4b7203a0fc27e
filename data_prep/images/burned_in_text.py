"""Lines of text that are burned into an image: a patient's name, a date, a ward.

Strokes of letters are thin and stand out from what is around them, letters of a line have one
height and one baseline and follow each other closely: nothing is read, letters are counted. Side
markers (L, R) and "AP" are too short to count as a line; "PORTABLE" is one. Letters that touch are
one part, and count as many as its rows cross strokes: the lead of a pacemaker is as wide as
several letters, and a row crosses it once or twice.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

TEXT_LINE_CHARACTERS = 7
"""From this many characters on, an image has a line of text that a person should look at."""

_SIDE = 1024  # px; larger images are shrunk to it
_STROKE = 11  # px: strokes are thinner, ribs are not
_CONTRAST = 40  # levels of a stroke above or below what is around it, at the least
_NOISE_FACTOR = 2.0  # and this many times what 95 % of the image stay under
_HEIGHTS = (5, 48)  # px of a letter
_MOST_PARTS = 600  # an image with more is noise or a mesh; the tallest are looked at
_MOST_CROSSED = 0.9  # quantile of a part's rows by the strokes that they cross


class TextLine(NamedTuple):
    """The longest line of text on an image.

    Attributes:
        characters: How many it seems to have.
        box: ``x1, y1, x2, y2`` around them, px of the image; None without a character.
    """

    characters: float
    box: tuple[float, float, float, float] | None


def find_text_line(pixels: np.ndarray) -> TextLine:
    """Find the longest line of text, whatever it says.

    Args:
        pixels: uint8, shape ``(H, W)``.

    Returns:
        The line. One of fewer than `TEXT_LINE_CHARACTERS` may be bones, wires or a side marker.

    Example:
        >>> image = np.full((200, 400), 30, np.uint8)
        >>> find_text_line(image)
        TextLine(characters=0.0, box=None)
        >>> named = cv2.putText(image, "DOE JANE 1957", (20, 100), 0, 1.0, 255, 2)
        >>> line = find_text_line(named)
        >>> line.characters >= TEXT_LINE_CHARACTERS, line.box
        (True, (26.0, 79.0, 218.0, 100.0))
    """
    scale = min(_SIDE / max(pixels.shape), 1.0)
    height, width = pixels.shape
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    kernel = np.ones((_STROKE, _STROKE), np.uint8)
    bright, dark = (
        _longest_line(*_parts(cv2.morphologyEx(pixels, operation, kernel)))
        for operation in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT)
    )
    line = max(bright, dark, key=lambda line: line.characters)
    if line.box is None:
        return line
    x1, y1, x2, y2 = (edge / scale for edge in line.box)
    return line._replace(box=(x1, y1, min(x2, float(width)), min(y2, float(height))))


def _parts(strokes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected strokes that may be letters, by x, and how many letters each may be."""
    noise = _percentile(strokes[::7, ::7], 0.95)
    least = max(_CONTRAST, _NOISE_FACTOR * noise)
    mask = cv2.threshold(strokes, least, 255, cv2.THRESH_BINARY)[1]
    contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    parts = np.array([cv2.boundingRect(contour) for contour in contours], np.float64).reshape(-1, 4)
    width, height = parts[:, 2], parts[:, 3]
    low, high = _HEIGHTS
    letters = (height >= low) & (height <= high) & (width <= 3 * height) & (width >= 0.08 * height)
    parts = parts[letters]
    parts = parts[np.argsort(-parts[:, 3], kind="stable")[:_MOST_PARTS]]
    parts = parts[np.argsort(parts[:, 0], kind="stable")]
    letters_wide = np.maximum(1, np.round(parts[:, 2] / (0.8 * parts[:, 3])))
    for part in np.flatnonzero(letters_wide > 1):
        x, y, width, height = parts[part].astype(int)
        crossed = _strokes_crossed(mask[y : y + height, x : x + width])
        letters_wide[part] = max(1.0, min(letters_wide[part], crossed))
    return parts, letters_wide


def _strokes_crossed(mask: np.ndarray) -> float:
    """How many strokes nearly the busiest of its rows crosses."""
    ink = mask > 0
    starts = (ink[:, 1:] & ~ink[:, :-1]).sum(axis=1) + ink[:, 0]
    return _percentile(starts, _MOST_CROSSED)


def _percentile(values: np.ndarray, share: float) -> float:
    """What NumPy's `percentile` gives, without its overhead, which a small part does not repay.

    Example:
        >>> _percentile(np.array([1, 2, 9, 4]), 0.5)
        3.0
    """
    place = (values.size - 1) * share
    below = int(place)
    ends = [below, min(below + 1, values.size - 1)]
    low, high = (float(value) for value in np.partition(values, ends, axis=None)[ends])
    share = place - below
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)


def _longest_line(parts: np.ndarray, letters_wide: np.ndarray) -> TextLine:
    """The most characters on a path from part to part, each to the right of the one before."""
    if not len(parts):
        return TextLine(0.0, None)
    x, y, width, height = parts.T
    taller = np.maximum(height[:, None], height)
    gap = x - (x + width)[:, None]
    follows = (x > x[:, None]) & (gap >= -0.3 * taller) & (gap <= 1.4 * taller)
    alike = taller <= 1.6 * np.minimum(height[:, None], height)
    on_top = np.abs(y[:, None] - y) <= 0.3 * taller
    on_base = np.abs((y + height)[:, None] - (y + height)) <= 0.3 * taller
    linked = follows & alike & (on_top | on_base)
    length, before = letters_wide.copy(), np.full(len(parts), -1)
    for part in range(1, len(parts)):
        earlier = np.flatnonzero(linked[:part, part])
        if len(earlier):
            before[part] = earlier[length[earlier].argmax()]
            length[part] += length[before[part]]
    path = [int(length.argmax())]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    line = parts[path]
    left_top, right_bottom = line[:, :2].min(axis=0), (line[:, :2] + line[:, 2:]).max(axis=0)
    x1, y1, x2, y2 = np.concatenate([left_top, right_bottom]).tolist()
    return TextLine(float(np.round(length.max())), (x1, y1, x2, y2))
