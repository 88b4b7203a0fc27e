"""Detection of lines of text that are burned into the pixels of an image."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

TEXT_LINE_CHARACTERS = 7
"""Characters from which a line of text is suspicious, so that a person should look at it."""

_TEXT_SIDE = 1024  # px; larger images are shrunk to it
_STROKE = 11  # px; strokes are thinner, ribs are not
_MIN_CONTRAST = 40  # grey levels of a stroke above or below its surroundings
_NOISE_FACTOR = 2.0  # the contrast must also be this multiple of the noise
_NOISE_QUANTILE = 0.95  # of the contrast of all pixels
_LETTER_HEIGHTS = (5, 48)  # px
_MAX_PARTS = 600  # an image with more is noise or a mesh; the tallest parts are used
_CROSSED_QUANTILE = 0.9  # quantile of the number of strokes that the rows of a part cross


class TextLine(NamedTuple):
    """The longest line of text on an image, with its estimated number of characters.

    Attributes:
        characters: Estimated number of characters of the line; 0 without text.
        box: Box around the line, xyxy in px of the image; None if no character was found.
    """

    characters: float
    box: tuple[float, float, float, float] | None


NO_TEXT = TextLine(0.0, None)
"""Result for an image without any line."""


def find_text_line(pixels: np.ndarray) -> TextLine:
    """Find the longest line of text on an image. Letters are counted, not read.

    Strokes of letters are thin and differ from their surroundings. The letters of a line have the
    same height and baseline and follow each other closely. Side markers (L, R) and "AP" are too
    short to count as a line, but "PORTABLE" is long enough. Letters that touch form one part, which
    counts as many letters as its rows cross strokes. A pacemaker lead is as wide as several
    letters, but a row crosses it only once or twice.
    """
    scale = min(_TEXT_SIDE / max(pixels.shape), 1.0)
    height, width = pixels.shape
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    kernel = np.ones((_STROKE, _STROKE), np.uint8)
    bright, dark = (
        _longest_line(_find_parts(cv2.morphologyEx(pixels, operation, kernel)))
        for operation in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT)
    )
    line = max(bright, dark, key=lambda line: line.characters)
    if line.box is None:
        return line
    x1, y1, x2, y2 = (edge / scale for edge in line.box)
    return line._replace(box=(x1, y1, min(x2, float(width)), min(y2, float(height))))


class _Parts(NamedTuple):
    """Connected strokes that may be letters, sorted by x."""

    boxes: np.ndarray  # (N, 4) x, y, width, height in px
    letters: np.ndarray  # (N,) number of letters that each may be


def _find_parts(strokes: np.ndarray) -> _Parts:
    noise = float(np.quantile(strokes[::7, ::7], _NOISE_QUANTILE))
    least = max(_MIN_CONTRAST, _NOISE_FACTOR * noise)
    mask = cv2.threshold(strokes, least, 255, cv2.THRESH_BINARY)[1]
    contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    parts = np.array([cv2.boundingRect(contour) for contour in contours], np.float64).reshape(-1, 4)
    width = parts[:, 2]
    height = parts[:, 3]
    low, high = _LETTER_HEIGHTS
    is_letter = (
        (height >= low) & (height <= high) & (width <= 3 * height) & (width >= 0.08 * height)
    )
    parts = parts[is_letter]
    parts = parts[np.argsort(-parts[:, 3], kind="stable")[:_MAX_PARTS]]
    parts = parts[np.argsort(parts[:, 0], kind="stable")]
    letters_wide = np.maximum(1, np.round(parts[:, 2] / (0.8 * parts[:, 3])))
    for part in np.flatnonzero(letters_wide > 1):
        x, y, width, height = parts[part].astype(int)
        crossed = _strokes_crossed(mask[y : y + height, x : x + width])
        letters_wide[part] = max(1.0, min(letters_wide[part], crossed))
    return _Parts(parts, letters_wide)


def _strokes_crossed(mask: np.ndarray) -> float:
    """Return the number of strokes that nearly the busiest row crosses."""
    ink = mask > 0
    starts = (ink[:, 1:] & ~ink[:, :-1]).sum(axis=1) + ink[:, 0]
    return float(np.quantile(starts, _CROSSED_QUANTILE))


def _longest_line(found_parts: _Parts) -> TextLine:
    """Return the line with most characters: a path from part to part, each to the right."""
    parts, letters = found_parts
    if not len(parts):
        return NO_TEXT
    x, y, width, height = parts.T
    taller = np.maximum(height[:, None], height)
    gap = x - (x + width)[:, None]
    follows = (x > x[:, None]) & (gap >= -0.3 * taller) & (gap <= 1.4 * taller)
    alike = taller <= 1.6 * np.minimum(height[:, None], height)
    on_top = np.abs(y[:, None] - y) <= 0.3 * taller
    on_base = np.abs((y + height)[:, None] - (y + height)) <= 0.3 * taller
    linked = follows & alike & (on_top | on_base)
    length = letters.copy()
    before = np.full(len(parts), -1)
    for part in range(1, len(parts)):
        earlier = np.flatnonzero(linked[:part, part])
        if len(earlier):
            before[part] = earlier[length[earlier].argmax()]
            length[part] += length[before[part]]
    path = [int(length.argmax())]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    line = parts[path]
    left_top = line[:, :2].min(axis=0)
    right_bottom = (line[:, :2] + line[:, 2:]).max(axis=0)
    x1, y1, x2, y2 = np.concatenate([left_top, right_bottom]).tolist()
    return TextLine(float(np.round(length.max())), (x1, y1, x2, y2))
