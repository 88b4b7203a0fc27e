"""Deal groups of images to parts so that each part gets its share of every stratum.

Balanced: groups are sorted by stratum and dealt in turn, then single groups move for as long as
that brings the parts closer to their shares. By hash: each group's part follows from its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

# Multiples of the golden ratio, modulo 1, fill [0, 1) more evenly than any other sequence, over
# every run of consecutive terms (three-distance theorem).
GOLDEN = (5**0.5 - 1) / 2
_MOST_LEVELS = 50  # of one text column; rarer ones are not balanced on their own
_MOST_CANDIDATES, _MOST_MOVES = 20_000, 500


@dataclass(frozen=True)
class Profiles:
    """What each group holds.

    Attributes:
        names: Group names, sorted, ``G`` of them.
        keys: int, shape ``(G, C)``: sort keys, the most important first.
        counts: int32, shape ``(G, K)``: 1, the number of images, and of those in each stratum.
    """

    names: pd.Index
    keys: np.ndarray
    counts: np.ndarray

    def subset(self, chosen: np.ndarray) -> Profiles:
        """The chosen groups only; bool, shape ``(G,)``."""
        return Profiles(self.names[chosen], self.keys[chosen], self.counts[chosen])


def profile_groups(group: pd.Series, strata: pd.Series | pd.DataFrame | None) -> Profiles:
    """Count what each group holds.

    Args:
        group: Group of each image, indexed by ``image_id``.
        strata: Indexed by ``image_id``. Text columns are sort keys, in their order (a group counts
            for its rarest value; missing is a value of its own), and each value is counted;
            boolean columns are counted only.

    Returns:
        One row a group.

    Example:
        >>> group = pd.Series({"a": "p", "b": "p", "c": "q"})
        >>> strata = pd.DataFrame({"view": ["AP", "PA", "PA"]}, index=list("abc"))
        >>> profile_groups(group, strata).counts.tolist()
        [[1, 2, 1, 1], [1, 1, 0, 1]]
    """
    code, names = pd.factorize(group, sort=True)
    rows = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[rows], prepend=-1))
    frame = pd.DataFrame(index=group.index) if strata is None else pd.DataFrame(strata)
    row = frame.index.get_indexer(group.index)
    counted, keys, of_rarest = [np.ones(len(group), dtype=bool)], [], None
    for name in frame.columns:
        column = frame[name]
        if column.dtype == bool:
            counted.append((row >= 0) & column.to_numpy()[row])
            continue
        rank = _ranks(column, row)
        first = np.minimum.reduceat(rank[rows], starts) if len(rows) else rank
        keys.append(first)
        if of_rarest is None:
            of_rarest = rank == first[code]
        counted += [rank == level for level in np.unique(rank)[-_MOST_LEVELS:]]
    counts = np.empty((len(names), 1 + len(counted)), dtype=np.int32)
    counts[:, 0] = 1
    for position, flags in enumerate(counted, start=1):
        counts[:, position] = np.bincount(code[flags], minlength=len(names))
    n_rarest = np.bincount(code if of_rarest is None else code[of_rarest], minlength=len(names))
    return Profiles(pd.Index(names), np.column_stack([*keys, counts[:, 1], n_rarest]), counts)


def _ranks(column: pd.Series, row: np.ndarray) -> np.ndarray:
    """Number the values in the given rows of a column, 0 the rarest; row -1 is missing."""
    code, names = pd.factorize(column.astype("str"))
    code = np.where(row >= 0, code[row], -1)
    missing = len(names)
    code[code < 0] = missing
    counts = np.bincount(code, minlength=missing + 1)
    order = sorted(range(missing + 1), key=lambda c: (counts[c], "" if c == missing else names[c]))
    rank = np.empty(missing + 1, dtype=np.int64)
    rank[order] = np.arange(missing + 1)
    return rank[code]


def deal(
    profiles: Profiles,
    shares: np.ndarray,
    rng: np.random.Generator,
    held: np.ndarray | None = None,
    *,
    step: float = GOLDEN,
) -> np.ndarray:
    """Deal groups to parts.

    Args:
        profiles: The groups.
        shares: float, shape ``(R,)``, sum 1: share of each part.
        rng: Shuffles equal groups and says where the dealing starts.
        held: int, shape ``(G,)``: part of the groups that have one already, else -1.
        step: From one group to the next, modulo 1: the golden ratio, or ``1 / R`` for equal
            shares.

    Returns:
        int, shape ``(G,)``: the part of each group. Each part with a share has a group where
        there are enough.
    """
    n_groups = len(profiles.names)
    part = np.full(n_groups, -1) if held is None else held.copy()
    shuffle = rng.permutation(n_groups)
    order = np.lexsort((shuffle, *profiles.keys.T[::-1]))
    start = rng.random()
    free = order[part[order] < 0]
    lacking = shares * n_groups - np.bincount(part[part >= 0], minlength=len(shares))
    lacking = np.clip(lacking, 0, None) if lacking.max(initial=0) > 0 else shares
    edges = np.cumsum(lacking / lacking.sum())
    edges[np.flatnonzero(lacking)[-1] :] = 1.0
    place = (np.arange(len(free)) * step + start) % 1.0
    part[free] = np.searchsorted(edges, place, side="right")
    _even_out(part, free, profiles.counts, shares)
    _fill_empty(part, free, shares)
    return part


def _even_out(part: np.ndarray, free: np.ndarray, counts: np.ndarray, shares: np.ndarray) -> None:
    """Move single groups for as long as all strata together come closer to their shares, in place.

    Closeness is the chi-square of images by part and stratum, over the strata of which each part
    can expect an image. It never grows, so the result is at least as even as the dealing.
    """
    total = counts.sum(axis=0)
    parts = np.flatnonzero(shares > 0)
    if len(parts) < 2 or not len(free):
        return
    share = shares[parts]
    chosen = counts[:, total * share.min() >= 1]
    candidates = free[:: -(-len(free) // _MOST_CANDIDATES)]
    held = np.searchsorted(parts, part[candidates])
    of_group = chosen[candidates].astype(np.float64)
    expected = share[:, None] * chosen.sum(axis=0)
    excess = np.stack([chosen[part == p].sum(axis=0) for p in parts]) - expected
    # Taking x images from part a to b adds w_b (2 e_b x + x^2) - w_a (2 e_a x - x^2) per stratum.
    square = of_group**2 @ (1 / expected).T
    linear = of_group @ (2 * excess / expected).T
    rows = np.arange(len(candidates))
    for _ in range(_MOST_MOVES):
        leaving = square[rows, held] - linear[rows, held]
        # Rounded: which of two equal moves is taken must not hang on a machine's last bit.
        change = np.round(square + linear + leaving[:, None], 9)
        change[rows, held] = 0.0
        row, to = np.unravel_index(int(np.argmin(change)), change.shape)
        if change[row, to] >= 0:
            return
        source, held[row], part[candidates[row]] = held[row], to, parts[to]
        excess[source] -= of_group[row]
        excess[to] += of_group[row]
        for p in (source, to):
            linear[:, p] = of_group @ (2 * excess[p] / expected[p])


def _fill_empty(part: np.ndarray, free: np.ndarray, shares: np.ndarray) -> None:
    """Give each part with a share at least one group, where there are enough, in place."""
    for wanted in np.flatnonzero(shares > 1e-9):
        sizes = np.bincount(part, minlength=len(shares))
        donors = free[part[free] == np.argmax(sizes)]
        if not sizes[wanted] and sizes.max() > 1 and len(donors):
            part[donors[len(donors) // 2]] = wanted


def hash_places(names: Iterable[str], seed: int, purpose: str) -> np.ndarray:
    """Place each name in [0, 1) by a keyed hash: whatever other names there are, it stays.

    Args:
        names: Group names.
        seed: With the purpose, the key of the hash.
        purpose: So that roles and folds are drawn independently.

    Returns:
        float64, one a name: the first 53 bits of BLAKE2b.

    Example:
        >>> hash_places(["nih:00000001"], 0, "role").round(4).tolist()
        [0.5362]
    """
    key = f"{purpose}:{seed}".encode()
    digests = (hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in names)
    return np.array([(int.from_bytes(d, "big") >> 11) / 2**53 for d in digests], dtype=np.float64)
