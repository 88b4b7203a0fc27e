"""A fingerprint of an image, by which copies are recognised even if their bytes differ."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np

HASH_BITS = 256
"""Bits of a fingerprint."""
WORDS = 4
"""Words of a fingerprint, by the parity of the frequency in x and y."""
WORD_BITS = HASH_BITS // WORDS
"""Bits of a word."""
TURNS = tuple(product((False, True), repeat=3))
"""Changes of a copy that are recognised: negative, upside down, mirrored left to right."""

_HASH_SIDE = 64  # px
_LOWEST_FREQUENCY = 5.0  # half waves per image
_MIN_GREY_RANGE = 2  # grey levels: an image with fewer shows nothing but noise


def perceptual_hash(pixels: np.ndarray) -> str | None:
    """Return a perceptual hash of an image, by which copies of the image are recognised.

    It has 64 hexadecimal digits; it is None for an image with a single grey level.

    A copy is the same image stored again: brighter, darker or with another window (any increasing
    grey curve), with lossy compression, at another size or aspect ratio, mirrored, turned by 180
    degrees, or as a negative. Copies that are cropped, shifted, turned by other angles, or changed
    by local contrast enhancement are not recognised.

    The image is scaled to 64 x 64 px. Each grey level is replaced by its rank, so that the grey
    curve does not matter. The fingerprint consists of the signs of 256 low frequencies of the
    cosine transform. Frequencies below 5 half waves per image are left out, because all chest
    X-rays share them.

    The bits form four words of 64 bits, by the parity of the frequency in x and y. Mirroring
    inverts the words that are odd in x, turning upside down inverts those that are odd in y, and a
    negative inverts all words. The words therefore tell how a copy was turned.

    Examples:
        >>> gradient = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
        >>> perceptual_hash(gradient * 2) == perceptual_hash(gradient)
        True
    """
    import cv2  # what compares fingerprints alone runs without it

    small = squash(pixels, _HASH_SIDE)
    if int(small.max()) - int(small.min()) < _MIN_GREY_RANGE:
        return None
    waves = cv2.dct(grey_ranks(small)).ravel()
    return np.packbits(waves[_hashed_frequencies()] > 0).tobytes().hex()


def squash(pixels: np.ndarray, side: int) -> np.ndarray:
    """Scale an image down to a small square by averaging, whatever its aspect ratio is.

    Examples:
        >>> squash(np.full((300, 200), 7, np.uint8), 2).tolist()
        [[7, 7], [7, 7]]
    """
    import cv2  # what compares fingerprints alone runs without it

    height, width = pixels.shape
    multiple = (max(width // side, 1) * side, max(height // side, 1) * side)
    if multiple != (width, height):
        # To a whole multiple first: averaging over whole pixels is ten times faster.
        pixels = cv2.resize(pixels, multiple, interpolation=cv2.INTER_LINEAR)
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)


def grey_ranks(pixels: np.ndarray) -> np.ndarray:
    """Replace each grey level by its mean rank in the image, -0.5 to 0.5, float32.

    Ranks stay the same under any increasing grey curve, such as more brightness.

    Examples:
        >>> grey_ranks(np.array([[10, 200], [200, 255]], np.uint8)).tolist()
        [[-0.375, 0.0], [0.0, 0.375]]
    """
    counts = np.bincount(pixels.ravel(), minlength=256)
    ranks = (np.cumsum(counts) - counts / 2) / pixels.size - 0.5
    return ranks.astype(np.float32)[pixels]


@cache
def _hashed_frequencies() -> np.ndarray:
    """Return the positions of the hashed frequencies in the flattened transform, word by word."""
    x, y = np.meshgrid(np.arange(_HASH_SIDE), np.arange(_HASH_SIDE))
    radius = np.hypot(x, y)
    words = []
    for odd_x in (0, 1):
        for odd_y in (0, 1):
            is_in_word = (x % 2 == odd_x) & (y % 2 == odd_y) & (radius >= _LOWEST_FREQUENCY)
            order = np.argsort(np.where(is_in_word, radius, np.inf), axis=None, kind="stable")
            words.append(order[:WORD_BITS])
    return np.concatenate(words)
