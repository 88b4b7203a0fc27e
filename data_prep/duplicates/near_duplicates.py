"""Copies of an image that are not equal to it: found by fingerprint, then checked on pixels.

Measured on 716 RSNA images, 200 of which were copied in 23 ways: of each way 198 to 200 are found
if grey curve, size, aspect, JPEG quality (30 and up) or noise were changed or the image turned,
139 after local contrast enhancement, 28 with 2 % cropped off, 31 turned by 2 degrees, none with
broad borders added. No pair of different images was taken for copies, among 16 million pairs of
that trial and 9.7 million of RSNA and Kermany (5,232 of them of one patient): their detail
correlates by 0.84 at most, that of the copies found by 0.97 to 1.00 in all but a few.

Also here: which images are of one patient, by id or by a shared copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.duplicates.fingerprint_pairs import close_pairs
from cxr_compare.data_prep.duplicates.patient_groups import connected_components
from cxr_compare.data_prep.images.fingerprint import HASH_BITS, TURNS, grey_ranks, squash

NEAR_CORRELATION = 0.85
"""Images whose fine detail correlates by as much are copies of one image."""
_MAX_DISTANCE = 40
"""Bits by which the fingerprints of candidates may differ."""
TRUSTED_DISTANCE = 20
"""Pairs so close count as copies where pixels cannot be looked at: none of 9.7 million pairs of
different images came below 42."""

_SIDE = 128
_FINE_PX = 1.0
_COARSE_PX = 8.0
_MAX_IMAGES = 2_000
SEARCH = f"{_MAX_DISTANCE} {TRUSTED_DISTANCE} {NEAR_CORRELATION} {_SIDE} {_FINE_PX} {_COARSE_PX}"
"""All limits of the search as text: what was found under others is found anew."""
PAIR_COLUMNS = ("image_id", "other_id", "distance", "turn", "correlation")

Read = Callable[[str], np.ndarray]
_ReadMany = Callable[[Sequence[str]], Iterable[np.ndarray | None]]


@dataclass(frozen=True)
class NearDuplicates:
    """Copies that are not equal pixel for pixel."""

    # `image_id, other_id, distance` (bits), `turn` (what was done to the second, a key of
    # `data_prep.images.fingerprint.TURNS`), `correlation` (missing where the pixels were not
    # looked at)
    pairs: pd.DataFrame
    # `group, image_id`: images that are copies of each other by way of the pairs, with the equal
    # images of each
    groups: pd.DataFrame
    candidates: int  # pairs with like fingerprints
    # candidates that the fingerprint alone does not decide and whose pixels were not looked at
    undecided: int
    complete: bool  # whether all close fingerprints were compared

    def linked(self, decode: pd.DataFrame) -> pd.Series:
        """A key of each image that copies share, equal or not, as a split wants it."""
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
    """Find copies that were brightened, compressed, resized, squashed, mirrored or inverted."""
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
    return copies_from_pairs(decode, near, len(candidates), undecided, complete)


def copies_from_pairs(
    decode: pd.DataFrame, pairs: pd.DataFrame, candidates: int, undecided: int, complete: bool
) -> NearDuplicates:
    """What a search found, from its pairs and counts."""
    pairs = pairs[list(PAIR_COLUMNS)].reset_index(drop=True)
    pairs = pairs.astype({"distance": "int64", "correlation": "float64"})
    return NearDuplicates(pairs, _groups(decode, pairs), candidates, undecided, complete)


def detail_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two images' detail, whatever their grey curves and sizes.

    Both are squashed to 128 x 128 and ranked; what is finer than 1 px or coarser than 8 px of that
    is taken away, since all chests share their coarse outline.
    """
    return float((_detail(one) * _detail(other)).sum())


def _detail(pixels: np.ndarray) -> np.ndarray:
    ranks = grey_ranks(squash(pixels, _SIDE))
    fine, coarse = (cv2.GaussianBlur(ranks, (0, 0), sigma) for sigma in (_FINE_PX, _COARSE_PX))
    detail = fine - coarse
    detail -= detail.mean()
    return detail / max(float(np.linalg.norm(detail)), 1e-6)


def _candidates(decode: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Pairs of images with like fingerprints; of equal images only the first takes part."""
    whole = (decode["perceptual_hash"].str.len() == HASH_BITS // 4).to_numpy(dtype=bool)
    images = decode.loc[whole, ["image_id", "pixel_sha256", "perceptual_hash"]]
    if not images["image_id"].is_monotonic_increasing:  # as it is in a table of ours
        images = images.sort_values("image_id")
    images = images[~images["pixel_sha256"].duplicated()]
    code, texts = pd.factorize(images["perceptual_hash"])
    ids = images["image_id"].array
    first_of = np.full(len(texts), len(ids))
    np.minimum.at(first_of, code, np.arange(len(ids)))
    repeated = np.flatnonzero(first_of[code] != np.arange(len(ids)))
    close = close_pairs(_as_bytes(texts), _MAX_DISTANCE)
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


def _as_bytes(texts: pd.Index) -> np.ndarray:
    """Hexadecimal texts of one length as rows of bytes."""
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(-1, HASH_BITS // 8)


def _correlate(
    candidates: pd.DataFrame, read_many: _ReadMany | None, max_images: int
) -> np.ndarray:
    """Likeness of each pair; NaN where an image could not or should not be read."""
    answer = np.full(len(candidates), np.nan)
    if read_many is None:
        return answer
    wanted: dict[str, None] = {}
    rows = []
    settled = (candidates["distance"] <= TRUSTED_DISTANCE).to_numpy()
    first, second, turn = (candidates[c].to_numpy() for c in ("image_id", "other_id", "turn"))
    for row in np.argsort(settled, kind="stable"):
        unread = {first[row]: None, second[row]: None}
        if len(wanted | unread) <= max_images:
            wanted |= unread
            rows.append(row)
    small = dict(zip(wanted, read_many(list(wanted)), strict=True))
    for row in rows:
        one = small[first[row]]
        other = small[second[row]]
        if one is not None and other is not None:
            answer[row] = detail_correlation(turn_image(one, turn[row]), other)
    return answer


def small_image(pixels: np.ndarray) -> np.ndarray:
    """What a search for copies keeps of an image: uint8 ``(128, 128)``."""
    return squash(pixels, _SIDE)


def _read_small(read: Read, image_id: str) -> np.ndarray | None:
    try:
        return small_image(read(image_id))
    except InputError:
        return None


def _groups(decode: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Connected images; those equal to one in a pair belong to its group."""
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
    """Turn an image."""
    negative, mirrored, upside_down = TURNS[turn]
    shown = pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    return 255 - shown if negative else shown
