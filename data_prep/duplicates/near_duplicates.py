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
import scipy  # whose parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.schemas import FINGERPRINTS
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.images.image_facts import (
    HASH_BITS,
    TURNS,
    WORD_BITS,
    WORDS,
    grey_ranks,
    squash,
)

CERTAIN_DISTANCE = 15
"""Pairs that differ in at most so many bits are found without exception."""
_BANDS = 8
_BYTES = 4
_CHUNK = 1 << 20
# Hacker's Delight, 7-3: an 8 x 8 matrix of bits is transposed by three exchanges.
_SWAPS = [
    (np.uint64(shift), np.uint64(mask))
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0))
]
_PAIRS_PER_TABLE = 20  # times the number of fingerprints: chests give 2 at a million
_PAIRS_AT_LEAST = 2_000_000


@dataclass(frozen=True)
class _ClosePairs:
    """Pairs of fingerprints, by position."""

    first: np.ndarray  # int64, shape `(P,)`
    second: np.ndarray  # int64, shape `(P,)`; above `first`
    distance: np.ndarray  # bits by which they differ, shape `(P,)`
    turn: np.ndarray  # position of the turn in `TURNS`, shape `(P,)`
    # whether the guarantee of `CERTAIN_DISTANCE` was kept; a set in which very many fingerprints
    # are alike is searched only so far
    complete: bool


# Recall, by the pigeonhole principle: the 256 bits are dealt to 8 bands of 32, each of four bytes.
# If two fingerprints differ in at most 15 bits, some band has at most one wrong bit, hence at least
# three right bytes. A table for each choice of three bytes of a band (32 tables) therefore has both
# fingerprints under one key: every pair within `CERTAIN_DISTANCE` is found. Pairs further apart are
# found if they happen to share three bytes of a band: at distance 20, 99 in 100 do, at 24, 93.
# Turned copies cost no further table: each byte holds two bits of each word of the fingerprint, a
# turn inverts whole words, and a key is brought to the one of its eight turns in which its first
# bits are 0.
def _close_pairs(hashes: np.ndarray, max_distance: int) -> _ClosePairs:
    """Find the pairs of fingerprints that differ in few bits, in the best of eight turns."""
    n = len(hashes)
    words = np.ascontiguousarray(hashes).view(np.uint64).reshape(n, WORDS)
    dealt = _deal_bits(hashes)
    codes_of_tables = [np.empty(0, np.int64)]
    complete = True
    for band in range(_BANDS):
        for left_out in range(_BYTES):
            chosen = [band * _BYTES + byte for byte in range(_BYTES) if byte != left_out]
            pairs, whole = _pairs_of_table(_keys(dealt[:, chosen]), words, max_distance)
            codes_of_tables.append(pairs)
            complete &= whole
    codes = np.unique(np.concatenate(codes_of_tables))
    first = codes // max(n, 1)
    second = codes % max(n, 1)
    distance, turn = _turned_distances(words[first] ^ words[second])
    return _ClosePairs(first, second, distance, turn, complete)


def _deal_bits(hashes: np.ndarray) -> np.ndarray:
    """Reorder the bits: each byte gets two of each word, each band high and low frequencies.

    Bit ``b`` of every byte goes to band ``b``, which is the transposition of 8 x 8 bits.
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
    """Three bytes as one number that is the same in all eight turns."""
    bits = three[:, 0] >> 4
    a = bits >> 3 & 1
    b = bits >> 2 & 1
    c = bits >> 1 & 1
    # A turn inverts the fourth word if it inverts an odd number of the others (`_inverted_words`).
    flips = (a << 3 | b << 2 | c << 1 | (a ^ b ^ c)) * np.uint8(17)
    turned = (three ^ flips[:, None]).astype(np.uint64)
    return turned[:, 0] << np.uint64(16) | turned[:, 1] << np.uint64(8) | turned[:, 2]


def _pairs_of_table(
    keys: np.ndarray, words: np.ndarray, max_distance: int
) -> tuple[np.ndarray, bool]:
    """Pairs under one key that are close indeed, as ``first * N + second``."""
    n = len(keys)
    table = np.sort(keys << np.uint64(40) | np.arange(n, dtype=np.uint64))
    keys = table >> np.uint64(40)
    rows = (table & np.uint64((1 << 40) - 1)).astype(np.int64)
    live = np.arange(n)
    step = 1
    budget = max(_PAIRS_PER_TABLE * n, _PAIRS_AT_LEAST)
    codes: list[np.ndarray] = []
    while True:
        live = live[live + step < n]
        live = live[keys[live] == keys[live + step]]
        if not len(live):
            return np.concatenate([np.empty(0, np.int64), *codes]), True
        budget -= len(live)
        if budget < 0:
            return np.concatenate([np.empty(0, np.int64), *codes]), False
        for start in range(0, len(live), _CHUNK):
            part = live[start : start + _CHUNK]
            one = rows[part]
            other = rows[part + step]
            counts = np.bitwise_count(words[one] ^ words[other])
            # In no turn do a word's bits differ by less than this.
            least = np.minimum(counts, WORD_BITS - counts).sum(axis=1, dtype=np.int16)
            one = one[least <= max_distance]
            other = other[least <= max_distance]
            near = _turned_distances(words[one] ^ words[other])[0] <= max_distance
            codes.append(np.minimum(one, other)[near] * n + np.maximum(one, other)[near])
        step += 1


def _turned_distances(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fewest differing bits over the eight turns, and in which turn."""
    counts = np.bitwise_count(differences).astype(np.int16)
    flips = _inverted_words().astype(np.int16)
    distances = counts @ (1 - 2 * flips.T) + WORD_BITS * flips.sum(axis=1)
    turn = distances.argmin(axis=1)
    return np.take_along_axis(distances, turn[:, None], axis=1)[:, 0], turn


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
_EXAMPLES = 2
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
    # `data_prep.images.image_facts.TURNS`), `correlation` (missing where the pixels were not
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


@dataclass(frozen=True)
class SeenImages:
    """Those of some images that a training has seen, itself or under another name.

    Its pixels are not at hand: near copies are told by fingerprint alone.
    """

    n_images: int  # that were looked for
    known: pd.Index  # whose id, or whose patient, was seen
    same: pd.Series  # equal pixel for pixel to an image of another id: that id, by image id
    near: pd.Series  # fingerprint within `TRUSTED_DISTANCE` of one of another id: that id

    @classmethod
    def among(cls, images: pd.DataFrame, seen: pd.DataFrame) -> SeenImages:
        """Look for images among those seen; without fingerprints no copy is found.

        Args:
            images: ``image_id``, ``patient_id`` and `FINGERPRINTS`, where known.
            seen: The same columns.
        """
        named = images["image_id"].isin(seen["image_id"])
        known = images.loc[named | images["patient_id"].isin(seen["patient_id"]), "image_id"]
        columns = ["image_id", *FINGERPRINTS]
        renamed, seen = (
            table.reindex(columns=columns).dropna(subset="pixel_sha256")
            for table in (images[~named], seen)
        )
        equal = seen.drop_duplicates("pixel_sha256").set_index("pixel_sha256")["image_id"]
        same = renamed.set_index("image_id")["pixel_sha256"].map(equal).dropna()
        near = _near_seen(renamed[~renamed["image_id"].isin(same.index)], seen)
        return cls(len(images), pd.Index(known), same, near)

    @property
    def all_ids(self) -> pd.Index:
        """All images that it has seen or that are copies of those."""
        return self.known.union(self.same.index).union(self.near.index)

    def copy_lines(self, system: str) -> list[str]:
        """How many test images are copies, with examples: equal ones first; none without any."""
        of_all = f"of {counted(self.n_images, 'test image')} in training under other names"
        lines = []
        for said, copies in (("has seen", self.same), ("may have seen near copies of", self.near)):
            shown = [f"{image} = {seen}" for image, seen in copies.iloc[:_EXAMPLES].items()]
            more = ["..."] * (len(copies) > _EXAMPLES)
            if shown:
                lines.append(f"{system} {said} {len(copies)} {of_all} ({', '.join(shown + more)})")
        return lines


def _near_seen(images: pd.DataFrame, seen: pd.DataFrame) -> pd.Series:
    """The image seen that each is a copy of, by fingerprint; tables of `FINGERPRINTS`."""
    if images.empty or seen.empty:
        return images.set_index("image_id")["pixel_sha256"][:0]
    sides = [
        table.assign(image_id=side + table["image_id"])
        for side, table in (("0", seen), ("1", images))
    ]
    groups = find_near_duplicates(pd.concat(sides, ignore_index=True)).groups
    ids = groups["image_id"].str[1:]
    own = groups["image_id"].str[0] == "1"
    copied = groups["group"].map(ids[~own].groupby(groups["group"]).first())
    return copied[own].set_axis(ids[own]).dropna().sort_index()


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
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
    close = _close_pairs(_as_bytes(texts), _MAX_DISTANCE)
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
            answer[row] = _likeness(_turned(one, turn[row]), other)
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
    component = _components(left, right, 2 * n)[:n]
    groups = pd.DataFrame({"group": pd.factorize(component)[0], "image_id": nodes})
    return groups.sort_values(["group", "image_id"], ignore_index=True)


def _components(starts: list[np.ndarray], ends: list[np.ndarray], n_nodes: int) -> np.ndarray:
    """The connected part of a graph that each node lies in, by the ends of its edges."""
    edges = (np.concatenate(starts), np.concatenate(ends))
    ones = np.ones(len(edges[0]), dtype=np.int8)
    graph = scipy.sparse.coo_array((ones, edges), shape=(n_nodes, n_nodes))
    return np.asarray(scipy.sparse.csgraph.connected_components(graph, directed=False)[1])


Links = pd.Series | pd.DataFrame | None
"""Keys of images, indexed by ``image_id``: images that share one are of one patient."""


def patient_groups(images: pd.DataFrame, links: Links = None) -> pd.Series:
    """Name the patient group of each image: its patient, or the first of all linked patients."""
    patient = images.set_index("image_id")["patient_id"].sort_index()
    codes, names = pd.factorize(patient, sort=True)
    # Patients and keys are the two kinds of nodes of one graph; its components are the groups.
    starts = [codes[:0]]
    ends = [codes[:0]]
    n_nodes = len(names)
    for keys in key_columns(links):
        key_codes, unique = pd.factorize(keys.reindex(patient.index))
        has_key = key_codes >= 0
        starts.append(codes[has_key])
        ends.append(key_codes[has_key] + n_nodes)
        n_nodes += len(unique)
    if n_nodes == len(names):
        return patient
    component = _components(starts, ends, n_nodes)[: len(names)]
    first = pd.Series(np.arange(len(names))).groupby(component).transform("min").to_numpy()
    return pd.Series(np.asarray(names)[first[codes]], index=patient.index)


def key_columns(links: Links) -> list[pd.Series]:
    """The keys that link images, one Series a kind of key, indexed by ``image_id``."""
    if links is None:
        return []
    frame = pd.DataFrame(links)
    return [frame[column] for column in frame.columns]


def _inverted_words() -> np.ndarray:
    """Which words of the fingerprint each turn inverts."""
    negative, mirrored, upside_down = np.array(list(TURNS.values())).T[:, :, None]
    odd_x, odd_y = np.array([[0, 0, 1, 1], [0, 1, 0, 1]], dtype=bool)
    return negative ^ (mirrored & odd_x) ^ (upside_down & odd_y)


def _turned(pixels: np.ndarray, turn: str) -> np.ndarray:
    """Turn an image."""
    negative, mirrored, upside_down = TURNS[turn]
    shown = pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    return 255 - shown if negative else shown
