"""What is measured on every decoded image: columns of the decode table.

A fingerprint that copies share, a line of burned-in text, and the greys of the border.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    import pandas as pd

HASH_BITS = 256
WORDS = 4
WORD_BITS = HASH_BITS // WORDS
TURNS: dict[str, tuple[bool, bool, bool]] = {
    "as it is": (False, False, False),
    "mirrored": (False, True, False),
    "upside down": (False, False, True),
    "turned by 180 degrees": (False, True, True),
    "negative": (True, False, False),
    "negative, mirrored": (True, True, False),
    "negative, upside down": (True, False, True),
    "negative, turned by 180 degrees": (True, True, True),
}
"""What may have been done to a copy: negative, mirrored left to right, mirrored top to bottom."""

_HASH_SIDE = 64
_LOWEST = 5.0
_FLAT_STEP = 2  # grey values: an image of fewer shows nothing but noise


def _perceptual_hash(pixels: np.ndarray) -> str | None:
    """Fingerprint an image, so that copies are told although their bytes differ: 256 bits.

    A copy here is the same image stored again: brightened, darkened or windowed otherwise (any
    rising grey curve), compressed with loss, resized, squashed to another aspect ratio; also
    mirrored, turned by 180 degrees or shown as a negative. Cropped, shifted and obliquely
    turned copies, and local contrast enhancement, are beyond it.

    The image is squashed to 64 x 64, each grey value is replaced by its rank (so the grey curve
    does not matter), and the signs of 256 low frequencies of its cosine transform are kept.
    Chest X-rays all share their lowest frequencies, so those below `_LOWEST` half waves an
    image are left out.

    The bits stand in four words of 64, by the parity of the frequency in x and y, because then
    the words say how a copy was turned: mirroring inverts the words that are odd in x, turning
    upside down those that are odd in y, and a negative inverts all.
    """
    small = squash(pixels, _HASH_SIDE)
    if int(small.max()) - int(small.min()) < _FLAT_STEP:
        return None
    waves = cv2.dct(grey_ranks(small)).ravel()
    return np.packbits(waves[_frequencies()] > 0).tobytes().hex()


def squash(pixels: np.ndarray, side: int) -> np.ndarray:
    """Average an image down to a small square, whatever its aspect ratio."""
    height, width = pixels.shape
    whole = (max(width // side, 1) * side, max(height // side, 1) * side)
    if whole != (width, height):
        # To a whole multiple first: averaging over whole pixels is ten times faster.
        pixels = cv2.resize(pixels, whole, interpolation=cv2.INTER_LINEAR)
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)


def grey_ranks(pixels: np.ndarray) -> np.ndarray:
    """Replace each grey value by its middle rank: what is left does not know the grey curve."""
    counts = np.bincount(pixels.ravel(), minlength=256)
    ranks = (np.cumsum(counts) - counts / 2) / pixels.size - 0.5
    return ranks.astype(np.float32)[pixels]


@cache
def _frequencies() -> np.ndarray:
    """Places in the flat transform of the frequencies kept, word by word, each lowest first."""
    x, y = np.meshgrid(np.arange(_HASH_SIDE), np.arange(_HASH_SIDE))
    radius = np.hypot(x, y)
    words = []
    for odd_x in (0, 1):
        for odd_y in (0, 1):
            fits = (x % 2 == odd_x) & (y % 2 == odd_y) & (radius >= _LOWEST)
            order = np.argsort(np.where(fits, radius, np.inf), axis=None, kind="stable")
            words.append(order[:WORD_BITS])
    return np.concatenate(words)


TEXT_LINE_CHARACTERS = 7
"""From this many characters on, an image has a line of text that a person should look at."""

_TEXT_SIDE = 1024  # px; larger images are shrunk to it
_STROKE = 11  # px: strokes are thinner, ribs are not
_CONTRAST = 40  # levels of a stroke above or below what is around it, at the least
_NOISE_FACTOR = 2.0  # and this many times what 95 % of the image stay under
_HEIGHTS = (5, 48)  # px of a letter
_MOST_PARTS = 600  # an image with more is noise or a mesh; the tallest are looked at
_MOST_CROSSED = 0.9  # quantile of a part's rows by the strokes that they cross


class _TextLine(NamedTuple):
    """The longest line of text on an image."""

    characters: float  # how many it seems to have
    # `x1, y1, x2, y2` around them, px of the image; None without a character
    box: tuple[float, float, float, float] | None


def _find_text_line(pixels: np.ndarray) -> _TextLine:
    """Find the longest line of text, whatever it says.

    Strokes of letters are thin and stand out from what is around them, letters of a line have
    one height and one baseline and follow each other closely: nothing is read, letters are
    counted. Side markers (L, R) and "AP" are too short to count as a line; "PORTABLE" is one.
    Letters that touch are one part, and count as many as its rows cross strokes: the lead of a
    pacemaker is as wide as several letters, and a row crosses it once or twice.
    """
    scale = min(_TEXT_SIDE / max(pixels.shape), 1.0)
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
    """What NumPy's `percentile` gives, without its overhead, which a small part does not repay."""
    place = (values.size - 1) * share
    below = int(place)
    ends = [below, min(below + 1, values.size - 1)]
    low, high = (float(value) for value in np.partition(values, ends, axis=None)[ends])
    share = place - below
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)


def _longest_line(parts: np.ndarray, letters_wide: np.ndarray) -> _TextLine:
    """The most characters on a path from part to part, each to the right of the one before."""
    if not len(parts):
        return _TextLine(0.0, None)
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
    return _TextLine(float(np.round(length.max())), (x1, y1, x2, y2))


TEXT_PLACE = ("text_x1", "text_y1", "text_x2", "text_y2")
"""Columns of the decode table that say where a suspected line of text is, px of the original."""
_SHARE = 0.1
_PIECES_A_SIDE = 4
_N_PIECES = 4 * _PIECES_A_SIDE


def _border_greys(pixels: np.ndarray) -> str:
    """Mean greys around an image: what is seen of it where little lung lies.

    That much often tells a label is known of chest X-rays (Maguolo and Nanni, A critic evaluation
    of methods for COVID-19 automatic detection from X-ray images, 2021).
    """
    rows, columns = (max(1, round(side * _SHARE)) for side in pixels.shape)
    between = pixels[rows:-rows] if len(pixels) > 2 * rows else pixels
    across, along = _pieces(pixels.shape[1]), _pieces(len(between))
    greys = [_mean(row[:, a:b]) for row in (pixels[:rows], pixels[-rows:]) for a, b in across]
    sides = (between[:, :columns], between[:, -columns:])
    greys += [_mean(side[a:b]) for side in sides for a, b in along]
    return bytes(int(grey + 0.5) for grey in greys).hex()


def _mean(pixels: np.ndarray) -> float:
    """Mean grey; OpenCV sums bytes several times as fast as NumPy."""
    return float(cv2.sumElems(pixels)[0] / pixels.size)


def _pieces(length: int) -> list[tuple[int, int]]:
    """Four stretches of one length; of a strip shorter than four they overlap."""
    ends = np.linspace(0, length, _PIECES_A_SIDE + 1).astype(int).tolist()
    return [(start, max(end, start + 1)) for start, end in pairwise(ends)]


def read_border_greys(column: pd.Series) -> np.ndarray:
    """The greys of many images as numbers."""
    greys = np.full((len(column), _N_PIECES), np.nan, np.float32)
    known = column.notna().to_numpy()
    texts = column[known]
    if (texts.str.len() != 2 * _N_PIECES).any():
        raise ValueError(f"Expected {2 * _N_PIECES} hexadecimal digits an image")
    greys[known] = np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(-1, _N_PIECES)
    return greys


def image_facts(pixels: np.ndarray) -> dict[str, Any]:
    """Measure an image once, where it is decoded."""
    line = _find_text_line(pixels)
    is_suspect = line.characters >= TEXT_LINE_CHARACTERS
    place = line.box if is_suspect and line.box is not None else (None,) * 4
    return {
        "mean_grey": _mean(pixels),
        "perceptual_hash": _perceptual_hash(pixels),
        "text_score": line.characters,
        **dict(zip(TEXT_PLACE, place, strict=True)),
        "border_greys": _border_greys(pixels),
    }
