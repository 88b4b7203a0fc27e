"""A fingerprint that copies of an image share although their bytes differ; 256 bits.

A copy here is the same image stored again: brightened, darkened or windowed otherwise (any rising
grey curve), compressed with loss, resized, squashed to another aspect ratio; also mirrored, turned
by 180 degrees or shown as a negative. Cropped, shifted and obliquely turned copies, and local
contrast enhancement, are beyond it.

The image is squashed to 64 x 64, each grey value is replaced by its rank (so the grey curve does
not matter), and the signs of 256 low frequencies of its cosine transform are kept. Chest X-rays
all share their lowest frequencies, so those below `_LOWEST` half waves an image are left out.

The bits stand in four words of 64, by the parity of the frequency in x and y, because then the
words say how a copy was turned: mirroring inverts the words that are odd in x, turning upside down
those that are odd in y, and a negative inverts all.

Imports no pandas: worker processes start with this module, and start fast.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

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

_SIDE = 64
_LOWEST = 5.0
_FLAT_STEP = 2  # grey values: an image of fewer shows nothing but noise


def perceptual_hash(pixels: np.ndarray) -> str | None:
    """Fingerprint an image.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> image = cv2.GaussianBlur(rng.integers(0, 256, (200, 200), dtype=np.uint8), (0, 0), 5)
        >>> brighter = (image // 2 + 90).astype(np.uint8)
        >>> _hash_distance(perceptual_hash(image), perceptual_hash(brighter))[0] < 10
        True
        >>> _hash_distance(perceptual_hash(image), perceptual_hash(255 - image[:, ::-1]))[1]
        'negative, mirrored'
    """
    small = squash(pixels, _SIDE)
    if int(small.max()) - int(small.min()) < _FLAT_STEP:
        return None
    waves = cv2.dct(grey_ranks(small)).ravel()
    return np.packbits(waves[_frequencies()] > 0).tobytes().hex()


def _hash_distance(one: str, other: str) -> tuple[int, str]:
    """Bits by which two fingerprints differ, in the turn of the image that makes them fewest."""
    bits = np.frombuffer(bytes.fromhex(one), np.uint8) ^ np.frombuffer(
        bytes.fromhex(other), np.uint8
    )
    differ = np.bitwise_count(bits).reshape(WORDS, -1).sum(axis=1, dtype=int)
    distances = np.where(inverted_words(), WORD_BITS - differ, differ).sum(axis=1)
    turn = int(distances.argmin())
    return int(distances[turn]), list(TURNS)[turn]


def inverted_words() -> np.ndarray:
    """Which words of the fingerprint each turn inverts.

    Returns:
        bool, shape ``(8, 4)``: the turns in the order of `TURNS`, the words.
    """
    negative, mirrored, upside_down = np.array(list(TURNS.values())).T[:, :, None]
    odd_x, odd_y = np.array([[0, 0, 1, 1], [0, 1, 0, 1]], dtype=bool)
    return negative ^ (mirrored & odd_x) ^ (upside_down & odd_y)


def turned(pixels: np.ndarray, turn: str) -> np.ndarray:
    """Turn an image.

    Args:
        pixels: uint8, shape ``(H, W)``.
        turn: A key of `TURNS`.

    Returns:
        uint8, shape ``(H, W)``.
    """
    negative, mirrored, upside_down = TURNS[turn]
    shown = pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    return 255 - shown if negative else shown


def squash(pixels: np.ndarray, side: int) -> np.ndarray:
    """Average an image down to a small square, whatever its aspect ratio.

    Args:
        pixels: uint8, shape ``(H, W)``.
        side: Side of the square, px.

    Returns:
        uint8, shape ``(side, side)``.
    """
    height, width = pixels.shape
    whole = (max(width // side, 1) * side, max(height // side, 1) * side)
    if whole != (width, height):
        # To a whole multiple first: averaging over whole pixels is ten times faster.
        pixels = cv2.resize(pixels, whole, interpolation=cv2.INTER_LINEAR)
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)


def grey_ranks(pixels: np.ndarray) -> np.ndarray:
    """Replace each grey value by its middle rank: what is left does not know the grey curve.

    Args:
        pixels: uint8, any shape.

    Returns:
        float32 of the same shape, within -0.5 and 0.5, mean 0.

    Example:
        >>> grey_ranks(np.array([[10, 200], [10, 30]], np.uint8)).tolist()
        [[-0.25, 0.375], [-0.25, 0.125]]
    """
    counts = np.bincount(pixels.ravel(), minlength=256)
    ranks = (np.cumsum(counts) - counts / 2) / pixels.size - 0.5
    return ranks.astype(np.float32)[pixels]


@cache
def _frequencies() -> np.ndarray:
    """Places in the flat transform of the frequencies kept, word by word, each lowest first."""
    x, y = np.meshgrid(np.arange(_SIDE), np.arange(_SIDE))
    radius = np.hypot(x, y)
    words = []
    for odd_x in (0, 1):
        for odd_y in (0, 1):
            fits = (x % 2 == odd_x) & (y % 2 == odd_y) & (radius >= _LOWEST)
            order = np.argsort(np.where(fits, radius, np.inf), axis=None, kind="stable")
            words.append(order[:WORD_BITS])
    return np.concatenate(words)
