"""Assign groups of images to parts: balanced over all strata, or by a hash of the group's name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd

_MOST_LEVELS = 50  # of one text column; rarer ones are not balanced on their own
_MOST_FOLDS, _SHARE_ERROR = 50, 0.002  # enough equal folds for any shares to this precision
_JOININGS = 200  # ways tried of putting folds together to parts
_NEAR, _NEAR_SHARE = 1e-8, 1e-5  # numpy's isclose, by which scikit-learn calls folds as good
_ROUNDING = 1e-12  # more than two ways of computing a standard deviation of shares differ by


def balanced_parts(
    group: pd.Series,
    strata: pd.Series | pd.DataFrame | None,
    shares: np.ndarray,
    rng: np.random.Generator,
    held: np.ndarray | None = None,
) -> np.ndarray:
    """Assign groups to parts so that each part gets its share of groups, images and every stratum.

    Groups are assigned to equal folds as by scikit-learn's `StratifiedGroupKFold`. It knows one
    class a sample, so an image comes in once for each stratum that it is of. Folds are then put
    together to parts, in the one of 200 random ways that comes closest to the shares.

    Example:
        >>> group = pd.Series({"a": "p", "b": "p", "c": "q", "d": "r"})
        >>> balanced_parts(group, None, np.array([0.5, 0.5]), np.random.default_rng(0)).tolist()
        [1, 0, 0]
    """
    code, names = pd.factorize(group, sort=True)
    part = np.full(len(names), -1) if held is None else held.copy()
    free = part < 0
    there = np.bincount(part[code][~free[code]], minlength=len(shares))
    lacking = np.clip(shares * len(group) - there, 0, None)
    sizes = _fold_counts(lacking / lacking.sum() if lacking.any() else shares, int(free.sum()))
    n_folds, part_of_fold = int(sizes.sum()), np.repeat(np.arange(len(shares)), sizes)
    if n_folds < 2 or not sizes.max() < n_folds:
        part[free] = sizes.argmax()
        return part
    row, stratum = _samples(group.index, code, strata)
    owner, order, fold = code[row], rng.permutation(len(names)), np.full(len(names), -1)
    # Strata with fewer images than folds cannot be spread over them; joining counts them, too.
    n_strata = int(stratum.max()) + 1
    cell = owner * n_strata + stratum
    samples = np.bincount(cell, minlength=len(names) * n_strata).reshape(-1, n_strata)
    # Strata with fewer images than folds cannot be spread over them; joining counts them, too.
    common = samples[free].sum(axis=0) >= n_folds
    drawn = np.flatnonzero(free)
    drawn = drawn[np.argsort(order[drawn])]
    fold[drawn] = _equal_folds(samples[np.ix_(drawn, common)].astype(np.float64), n_folds)
    counts, before = np.zeros((n_folds, n_strata)), np.zeros((len(shares), n_strata))
    np.add.at(counts, fold[free], samples[free])
    rest = np.flatnonzero(~free)
    np.add.at(before, part[rest], samples[rest])
    ways = _JOININGS if sizes.max() > 1 or len(rest) else 1  # equal shares are all alike
    tried = [rng.permutation(part_of_fold) for _ in range(ways)]
    best = min(tried, key=lambda parts: _unevenness(before, counts, parts, shares))
    part[free] = best[fold[free]]
    return part


def _equal_folds(samples: np.ndarray, n_folds: int) -> np.ndarray:
    """The fold of each group, from its samples by stratum: what `StratifiedGroupKFold` gives.

    Groups whose strata differ most come first; each goes where the shares of the strata then vary
    least between folds, and where two folds are as good, to the one with fewer samples. Variances
    are updated from sums of whole numbers. Where these leave it open which fold is better, they are
    computed as scikit-learn does, whose rounding decides.

    Example:
        >>> _equal_folds(np.array([[1.0, 2.0], [1.0, 0.0], [1.0, 2.0], [1.0, 0.0]]), 2).tolist()
        [0, 1, 1, 0]
    """
    of_stratum = samples.sum(axis=0)
    weight = 1 / (n_folds * of_stratum * len(of_stratum))
    held, spread = np.zeros((n_folds, samples.shape[1])), np.empty((n_folds, samples.shape[1]))
    total, squares = np.zeros_like(of_stratum), np.zeros_like(of_stratum)
    sizes, held_sizes = samples.sum(axis=1).tolist(), [0.0] * n_folds
    fold = np.empty(len(samples), dtype=np.int64)
    for group in np.argsort(-np.std(samples, axis=1), kind="stable").tolist():
        added = samples[group]
        total += added
        twice, alone = 2 * n_folds * added, n_folds * added * added
        np.multiply(held, twice, out=spread)
        spread += squares + alone - total * total  # n_folds squared times the variance
        values = (np.sqrt(spread, out=spread) @ weight).tolist()
        best = _better_fold(values, held_sizes, _ROUNDING)
        if best < 0:
            share, own = np.repeat((held / of_stratum)[None], n_folds, axis=0), np.arange(n_folds)
            share[own, own] = (held + added) / of_stratum
            best = _better_fold(share.std(axis=1).mean(axis=1).tolist(), held_sizes, 0.0)
        fold[group] = best
        squares += twice * held[best] + alone
        held[best] += added
        held_sizes[best] += sizes[group]
    return fold


def _better_fold(values: list[float], sizes: list[float], rounding: float) -> int:
    """The fold of the least value, of near ones the smaller; -1 where rounding would decide.

    A value that is within ``rounding`` of the least, or of being near it, leaves that open; with a
    rounding of 0 every comparison counts as it is.
    """
    best, least, fewest = 0, values[0], sizes[0]
    near = _NEAR + _NEAR_SHARE * least
    for number in range(1, len(values)):
        more = values[number] - least
        if more > near + rounding:
            continue
        if more >= -rounding and sizes[number] >= fewest:
            if abs(more) < rounding:
                return -1
            continue
        if more > near - rounding and rounding:
            return -1
        best, least, fewest = number, values[number], sizes[number]
        near = _NEAR + _NEAR_SHARE * least
    return best


def _fold_counts(shares: np.ndarray, n_groups: int) -> np.ndarray:
    """Folds of each part: as few equal folds as give the shares, at least one a part."""
    wanted = shares > 1e-9
    if n_groups <= wanted.sum():
        largest = np.argsort(-shares, kind="stable")[:n_groups]
        return np.isin(np.arange(len(shares)), largest).astype(int)
    best, least = wanted.astype(int), np.inf
    for n_folds in range(int(wanted.sum()), min(_MOST_FOLDS, n_groups) + 1):
        sizes = np.where(wanted, np.maximum(np.round(shares * n_folds), 1), 0).astype(int)
        sizes[shares.argmax()] += n_folds - sizes.sum()
        error = np.abs(sizes / n_folds - shares).max() if sizes[wanted].min() > 0 else np.inf
        if error < least - 1e-12:
            best, least = sizes, error
        if least <= _SHARE_ERROR:
            break
    return best


def _samples(
    image_ids: pd.Index, code: np.ndarray, strata: pd.Series | pd.DataFrame | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of images and the stratum that each row stands for."""
    chosen = [np.unique(code, return_index=True)[1], np.arange(len(code))]  # groups, images
    frame = pd.DataFrame(index=image_ids) if strata is None else pd.DataFrame(strata)
    frame = frame.reindex(image_ids)
    for name in frame.columns:
        if pd.DataFrame(strata)[name].dtype == bool:
            chosen.append(np.flatnonzero(frame[name].eq(True)))
            continue
        level = pd.factorize(frame[name].astype("str"), sort=True, use_na_sentinel=False)[0]
        common = np.argsort(-np.bincount(level), kind="stable")[:_MOST_LEVELS]
        chosen += [np.flatnonzero(level == value) for value in common]
    chosen = [rows for rows in chosen if len(rows)]
    return np.concatenate(chosen), np.repeat(np.arange(len(chosen)), [len(r) for r in chosen])


def _unevenness(
    before: np.ndarray, counts: np.ndarray, parts: np.ndarray, shares: np.ndarray
) -> float:
    """Chi-square of samples by part and stratum, rounded so that no machine's last bit decides."""
    found = before.copy()
    np.add.at(found, parts, counts)
    used = shares > 1e-9
    expected = np.outer(shares, found.sum(axis=0))[used]
    return round(float(((found[used] - expected) ** 2 / expected).sum()), 6)


def hash_places(names: Iterable[str], seed: int, purpose: str) -> np.ndarray:
    """Place each name in [0, 1) by a keyed hash: whatever other names there are, it stays.

    Example:
        >>> hash_places(["nih:00000001"], 0, "role").round(4).tolist()
        [0.5362]
    """
    key = f"{purpose}:{seed}".encode()
    digests = (hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in names)
    return np.array([(int.from_bytes(d, "big") >> 11) / 2**53 for d in digests], dtype=np.float64)
