"""Search for copies of images that are not equal pixel for pixel.

Fingerprints select pairs of images, and the fine detail of their pixels decides.

The search was measured on 716 RSNA images, 200 of which were copied in 23 ways. It found 198 to 200
of the 200 copies with a changed grey curve, size, aspect, JPEG quality (30 and up) or noise, and of
the copies that were mirrored, upside down or inverted. It found 139 copies after local contrast
enhancement, 28 with 2 % cropped off, 31 turned by 2 degrees, and none with broad borders. No pair
of different images was taken for copies, among 16 million pairs of that trial and 9.7 million pairs
of RSNA and Kermany (5,232 of them of one patient). The detail of different images correlates by at
most 0.84, that of nearly all found copies by 0.97 to 1.00.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT, bytes_from_hex
from cxr_compare.data_prep.duplicates.fingerprint_pairs import close_pairs
from cxr_compare.data_prep.duplicates.patient_groups import connected_components
from cxr_compare.data_prep.images.fingerprint import HASH_BITS, TURNS, grey_ranks, squash

NEAR_CORRELATION = 0.85
"""Correlation of the fine detail from which on two images are copies of one image."""
_MAX_DISTANCE = 40
"""Number of bits by which the fingerprints of candidates may differ."""
TRUSTED_DISTANCE = 20
"""Bits up to which a pair counts as copies without its pixels; the closest of 9.7 million pairs of
different images differ by 42."""

_SIDE = 128
_FINE_PX = 1.0
_COARSE_PX = 8.0
_MAX_IMAGES = 2_000
SEARCH = f"{_MAX_DISTANCE} {TRUSTED_DISTANCE} {NEAR_CORRELATION} {_SIDE} {_FINE_PX} {_COARSE_PX}"
"""All limits of the search as text; a stored result with other limits is searched for again."""
PAIR_COLUMNS = ("image_id", "other_id", "distance", "turn", "correlation")

Read = Callable[[str], np.ndarray]
_ReadMany = Callable[[Sequence[str]], Iterable[np.ndarray | None]]


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs and groups of images of a data set that are copies of each other, but differ in pixels.

    Copies are recognised by fingerprints (256-bit perceptual hashes) and by the correlation of
    pixels.

    Attributes:
        pairs: Columns ``image_id, other_id``, ``distance`` (number of differing bits of the
            fingerprints), ``turn`` (how the second image is mirrored or inverted, a key of
            `fingerprint.TURNS`) and ``correlation`` of the pixels (missing if they were not
            compared).
        groups: Columns ``group`` (number) and ``image_id``: images that the pairs connect, with the
            images that are equal to them pixel for pixel.
        candidates: Number of pairs with similar fingerprints.
        undecided: Number of these pairs for which the fingerprints are not enough to decide, and
            whose pixels were not compared.
        complete: True if all pairs of similar fingerprints were found; False if the search stopped
            early.
    """

    pairs: pd.DataFrame
    groups: pd.DataFrame
    candidates: int
    undecided: int
    complete: bool

    def copy_keys(self, decode: pd.DataFrame) -> pd.Series:
        """Return a key by ``image_id`` that all equal or nearly equal copies of an image share.

        `decode` has ``image_id`` and ``pixel_sha256``. All images with one key must be in the same
        of train, validation and test.
        """
        keys = decode.set_index("image_id")["pixel_sha256"]
        near = "near-" + self.groups.set_index("image_id")["group"].astype(TEXT)
        return near.reindex(keys.index).astype(TEXT).fillna(keys)


def find_near_duplicates(
    decode: pd.DataFrame,
    read: Read | None = None,
    *,
    max_images: int = _MAX_IMAGES,
    read_many: _ReadMany | None = None,
) -> NearDuplicates:
    """Find copies among images, even if they were brightened, compressed, resized or mirrored.

    Copies that were turned upside down or whose grey values were inverted are found, too. Without
    the column ``perceptual_hash`` (64 hexadecimal digits) of the decode table nothing is found.

    `read` returns an image by its id, uint8 ``(H, W)``, to compare pixels; in its place,
    `read_many` returns small images (see `small_image`) for a list of ids, in order. Without both
    the hashes alone decide. At most `max_images` are read; the rest stays undecided.
    """
    if "perceptual_hash" not in decode.columns or decode["perceptual_hash"].isna().all():
        decode = decode.assign(perceptual_hash=pd.Series(None, index=decode.index, dtype=TEXT))
    candidates, complete = _candidates(decode)
    if read_many is None and read is not None:
        read_many = partial(map, partial(_read_small, read))
    candidates = candidates.assign(correlation=_correlate(candidates, read_many, max_images))
    unseen = candidates["correlation"].isna()
    by_hash = unseen & (candidates["distance"] <= TRUSTED_DISTANCE)
    near = candidates[(candidates["correlation"] >= NEAR_CORRELATION) | by_hash]
    undecided = int((unseen & ~by_hash).sum())
    return near_duplicates_from_pairs(decode, near, len(candidates), undecided, complete)


def near_duplicates_from_pairs(
    decode: pd.DataFrame, pairs: pd.DataFrame, candidates: int, undecided: int, complete: bool
) -> NearDuplicates:
    """Restore the result of a search for copies from its stored pairs and counts.

    The arguments are as in `NearDuplicates`; the groups are formed again from the pairs and from
    the digests of pixels in the decode table.
    """
    pairs = pairs[list(PAIR_COLUMNS)].reset_index(drop=True)
    pairs = pairs.astype({"distance": "int64", "correlation": "float64"})
    return NearDuplicates(pairs, _groups(decode, pairs), candidates, undecided, complete)


def detail_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Compute the correlation, -1 to 1, of the fine detail of two images of any size.

    The grey curve does not matter; see `fine_detail`. The coarse outline is common to all chests.
    """
    return float((fine_detail(one) * fine_detail(other)).sum())


def fine_detail(pixels: np.ndarray) -> np.ndarray:
    """Return the fine detail of an image, float32 ``(128, 128)`` with mean 0 and norm 1.

    The image, uint8 ``(H, W)``, is scaled to 128 x 128 px and its grey levels are replaced by
    ranks. Structures finer than 1 px or coarser than 8 px are removed.
    """
    ranks = grey_ranks(squash(pixels, _SIDE))
    fine, coarse = (cv2.GaussianBlur(ranks, (0, 0), sigma) for sigma in (_FINE_PX, _COARSE_PX))
    detail = fine - coarse
    detail -= detail.mean()
    return detail / max(float(np.linalg.norm(detail)), 1e-6)


def _candidates(decode: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """List pairs of images with similar fingerprints; of equal images only the first counts."""
    whole = (decode["perceptual_hash"].str.len() == HASH_BITS // 4).to_numpy(dtype=bool)
    images = decode.loc[whole, ["image_id", "pixel_sha256", "perceptual_hash"]]
    if not images["image_id"].is_monotonic_increasing:  # tables of prepared sets are sorted
        images = images.sort_values("image_id")
    images = images[~images["pixel_sha256"].duplicated()]
    code, texts = pd.factorize(images["perceptual_hash"])
    ids = images["image_id"].array
    first_of = np.full(len(texts), len(ids))
    np.minimum.at(first_of, code, np.arange(len(ids)))
    repeated = np.flatnonzero(first_of[code] != np.arange(len(ids)))
    close = close_pairs(hashes_to_bytes(texts), _MAX_DISTANCE)
    first = np.concatenate([first_of[code[repeated]], first_of[close.first]])
    second = np.concatenate([repeated, first_of[close.second]])
    none = np.zeros(len(repeated), dtype=int)
    table = pd.DataFrame(
        {
            "image_id": ids.take(np.minimum(first, second)),
            "other_id": ids.take(np.maximum(first, second)),
            "distance": np.concatenate([none, close.distance]),
            "turn": np.array(list(TURNS))[np.concatenate([none, close.turn])],
        }
    )
    return table.sort_values(["distance", "image_id", "other_id"], ignore_index=True), (
        close.complete
    )


def hashes_to_bytes(texts: pd.Index) -> np.ndarray:
    """Convert N perceptual hashes in hexadecimal digits to bytes, uint8 ``(N, HASH_BITS // 8)``."""
    return bytes_from_hex(texts).reshape(-1, HASH_BITS // 8)


def _correlate(
    candidates: pd.DataFrame, read_many: _ReadMany | None, max_images: int
) -> np.ndarray:
    """Compute the correlation of each pair; NaN where an image was not read."""
    correlations = np.full(len(candidates), np.nan)
    if read_many is None:
        return correlations
    to_read: dict[str, None] = {}
    rows = []
    settled = (candidates["distance"] <= TRUSTED_DISTANCE).to_numpy()
    first, second, turn = (candidates[c].to_numpy() for c in ("image_id", "other_id", "turn"))
    for row in np.argsort(settled, kind="stable"):
        unread = {first[row]: None, second[row]: None}
        if len(to_read | unread) <= max_images:
            to_read |= unread
            rows.append(row)
    small = dict(zip(to_read, read_many(list(to_read)), strict=True))
    for row in rows:
        one = small[first[row]]
        other = small[second[row]]
        if one is not None and other is not None:
            correlations[row] = detail_correlation(turn_image(one, turn[row]), other)
    return correlations


def small_image(pixels: np.ndarray) -> np.ndarray:
    """Scale an image to the size at which copies are compared: uint8 ``(128, 128)``."""
    return squash(pixels, _SIDE)


def _read_small(read: Read, image_id: str) -> np.ndarray | None:
    try:
        return small_image(read(image_id))
    except InputError:
        return None


def _groups(decode: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Group connected images; images equal to one of a pair belong to its group."""
    if pairs.empty:
        return pd.DataFrame({"group": np.arange(0), "image_id": decode["image_id"][:0]})
    ids = pd.Index(decode["image_id"])
    involved = pd.unique(np.concatenate([pairs["image_id"], pairs["other_id"]]))
    shown = decode["pixel_sha256"].iloc[ids.get_indexer(pd.Index(involved))]
    equal = decode[decode["pixel_sha256"].isin(set(shown))]
    nodes = pd.Index(equal["image_id"].sort_values())
    image = pd.factorize(equal.set_index("image_id")["pixel_sha256"].reindex(nodes))[0]
    n = len(nodes)
    left = [nodes.get_indexer(pd.Index(pairs["image_id"])), np.arange(n)]
    right = [nodes.get_indexer(pd.Index(pairs["other_id"])), n + image]
    component = connected_components(left, right, 2 * n)[:n]
    groups = pd.DataFrame({"group": pd.factorize(component)[0], "image_id": nodes})
    return groups.sort_values(["group", "image_id"], ignore_index=True)


def turn_image(pixels: np.ndarray, turn: str) -> np.ndarray:
    """Mirror an image, turn it upside down, invert its grey values, or a combination of these.

    `turn` is a key of `fingerprint.TURNS`.

    Example:
        >>> turn_image(np.array([[0, 255]], np.uint8), "mirrored").tolist()
        [[255, 0]]
    """
    negative, mirrored, upside_down = TURNS[turn]
    shown = pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    return 255 - shown if negative else shown
