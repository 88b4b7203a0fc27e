"""Search for pairs of perceptual fingerprints that differ in few bits, in any of eight turns.

A turn is a combination of mirrored, upside down and negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxr_compare.data_prep.images.fingerprint import TURNS, WORD_BITS, WORDS

CERTAIN_DISTANCE = 15
"""Every pair of fingerprints that differs in at most so many bits is found."""
_BANDS = 8
_BYTES = 4
_CHUNK = 1 << 20
# Three exchanges of bits transpose an 8 x 8 matrix of bits (Hacker's Delight, 7-3).
_SWAPS = [
    (np.uint64(shift), np.uint64(mask))
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0))
]
_PAIRS_PER_TABLE = 20  # times the number of fingerprints: chests give 2 at a million
_PAIRS_AT_LEAST = 2_000_000


@dataclass(frozen=True)
class ClosePairs:
    """Pairs of images with similar fingerprints, by the row numbers of the images.

    A fingerprint is a 256-bit perceptual hash of an image. The second image may be mirrored, upside
    down or a negative, which is called its turn. P is the number of pairs.

    Attributes:
        first: Row of the first image, int64 (P,).
        second: Row of the second image, int64 (P,), larger than that of the first.
        distance: Number of differing bits in the best of the eight turns, shape (P,).
        turn: Turn of the second image against the first with the fewest differing bits, as an index
            into `TURNS`, shape (P,).
        complete: True if every pair that differs in at most `CERTAIN_DISTANCE` bits was found. The
            search stops early if very many fingerprints are alike.
    """

    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray
    turn: np.ndarray
    complete: bool


# Recall, by the pigeonhole principle: the 256 bits are banded to 8 bands of 32, each of four bytes.
# If two fingerprints differ in at most 15 bits, some band has at most one wrong bit, hence at least
# three right bytes. A table for each choice of three bytes of a band (32 tables) therefore has both
# fingerprints under one key: every pair within `CERTAIN_DISTANCE` is found. Pairs further apart are
# found if they happen to share three bytes of a band: at distance 20, 99 in 100 do, at 24, 93.
# Turned copies cost no further table: each byte holds two bits of each word of the fingerprint, a
# turn inverts whole words, and a key is brought to the one of its eight turns in which its first
# bits are 0.
def close_pairs(hashes: np.ndarray, max_distance: int) -> ClosePairs:
    """Find the pairs of images whose fingerprints differ in at most `max_distance` bits.

    The fingerprints of N images are rows of bytes, uint8 ``(N, 32)``. A copy may be mirrored,
    upside down or a negative. Each pair is therefore compared in the eight combinations of these
    changes (turns), and the turn with the fewest differing bits counts.
    """
    n = len(hashes)
    words = np.ascontiguousarray(hashes).view(np.uint64).reshape(n, WORDS)
    banded = _deal_bits(hashes)
    codes_of_tables = [np.empty(0, np.int64)]
    complete = True
    for band in range(_BANDS):
        for left_out in range(_BYTES):
            chosen = [band * _BYTES + byte for byte in range(_BYTES) if byte != left_out]
            pairs, whole = _pairs_of_table(_keys(banded[:, chosen]), words, max_distance)
            codes_of_tables.append(pairs)
            complete &= whole
    codes = np.unique(np.concatenate(codes_of_tables))
    first = codes // max(n, 1)
    second = codes % max(n, 1)
    distance, turn = turned_distances(words[first] ^ words[second])
    return ClosePairs(first, second, distance, turn, complete)


def _deal_bits(hashes: np.ndarray) -> np.ndarray:
    """Distribute the bits over the bands, so that each band has high and low frequencies.

    Bit ``b`` of every byte goes to band ``b``, which is a transposition of 8 x 8 bits. Each byte
    then holds two bits of each word.
    """
    n = len(hashes)
    # word, byte, half -> byte, then half and word, the last first: rows of a matrix of bits.
    rows = hashes.reshape(n, WORDS, _BYTES, 2)[:, ::-1, :, ::-1].transpose(0, 2, 3, 1)
    square = np.ascontiguousarray(rows).reshape(n, _BYTES * 8).view("<u8")
    for shift, mask in _SWAPS:
        moved = (square ^ (square >> shift)) & mask
        square = square ^ moved ^ (moved << shift)
    bands = square.view(np.uint8).reshape(n, _BYTES, 8)[:, :, ::-1]
    return np.ascontiguousarray(bands.transpose(0, 2, 1)).reshape(n, _BANDS * _BYTES)


def _keys(three: np.ndarray) -> np.ndarray:
    """Combine three bytes to one number that is the same in all eight turns."""
    bits = three[:, 0] >> 4
    a = bits >> 3 & 1
    b = bits >> 2 & 1
    c = bits >> 1 & 1
    # A turn inverts the fourth word if it inverts an odd number of the others (`inverted_words`).
    flips = (a << 3 | b << 2 | c << 1 | (a ^ b ^ c)) * np.uint8(17)
    turned = (three ^ flips[:, None]).astype(np.uint64)
    return turned[:, 0] << np.uint64(16) | turned[:, 1] << np.uint64(8) | turned[:, 2]


def _pairs_of_table(
    keys: np.ndarray, words: np.ndarray, max_distance: int
) -> tuple[np.ndarray, bool]:
    """Find the close pairs among rows of one key, as ``first * N + second``.

    The second value is False if the search stopped early since too many rows share a key.
    """
    n = len(keys)
    table = np.sort(keys << np.uint64(40) | np.arange(n, dtype=np.uint64))
    keys = table >> np.uint64(40)
    rows = (table & np.uint64((1 << 40) - 1)).astype(np.int64)
    rows_left = np.flatnonzero(keys[:-1] == keys[1:])
    step = 1
    budget = max(_PAIRS_PER_TABLE * n, _PAIRS_AT_LEAST)
    codes: list[np.ndarray] = []
    while len(rows_left):
        budget -= len(rows_left)
        if budget < 0:
            return np.concatenate([np.empty(0, np.int64), *codes]), False
        for start in range(0, len(rows_left), _CHUNK):
            part = rows_left[start : start + _CHUNK]
            one = rows[part]
            other = rows[part + step]
            counts = np.bitwise_count(words[one] ^ words[other])
            # In every turn the bits of a word differ by at least this number.
            least = _sum_of_words(np.minimum(counts, WORD_BITS - counts))
            one = one[least <= max_distance]
            other = other[least <= max_distance]
            near = turned_distances(words[one] ^ words[other])[0] <= max_distance
            codes.append(np.minimum(one, other)[near] * n + np.maximum(one, other)[near])
        step += 1
        rows_left = rows_left[rows_left + step < n]
        rows_left = rows_left[keys[rows_left] == keys[rows_left + step]]
    return np.concatenate([np.empty(0, np.int64), *codes]), True


def _sum_of_words(counts: np.ndarray) -> np.ndarray:
    """Add the counts of all words; for a few words this is faster than a sum along the rows."""
    total = counts[:, 0].astype(np.int16)
    for word in range(1, counts.shape[1]):
        total += counts[:, word]
    return total


def turned_distances(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute, for each of P pairs of fingerprints, the fewest differing bits over eight turns.

    A turn is a combination of mirroring, turning upside down and inverting the grey values of an
    image. It inverts some words (groups of 64 bits) of the fingerprint. `differences` are the bits
    in which the two fingerprints differ, uint64 ``(P, words)``. The second array, ``(P,)``, is the
    turn with the fewest bits, as an index into `TURNS`.
    """
    counts = np.bitwise_count(differences).astype(np.int16)
    flips = inverted_words().astype(np.int16)
    distances = counts @ (1 - 2 * flips.T) + WORD_BITS * flips.sum(axis=1)
    turn = distances.argmin(axis=1)
    return np.take_along_axis(distances, turn[:, None], axis=1)[:, 0], turn


def inverted_words() -> np.ndarray:
    """Return which words of a fingerprint each of the eight turns inverts, bool ``(8, words)``.

    The rows are in the order of `TURNS`; see `turned_distances` for words and turns.
    """
    negative, mirrored, upside_down = np.array(list(TURNS.values())).T[:, :, None]
    odd_x, odd_y = np.array([[0, 0, 1, 1], [0, 1, 0, 1]], dtype=bool)
    return negative ^ (mirrored & odd_x) ^ (upside_down & odd_y)
