"""Assign groups of images to parts: balanced over all strata, or by a hash of the group's name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

_MOST_LEVELS = 50  # of one text column; rarer ones are not balanced on their own
_MOST_FOLDS, _SHARE_ERROR = 50, 0.002  # enough equal folds for any shares to this precision
_JOININGS = 200  # ways tried of putting folds together to parts


def balanced_parts(
    group: pd.Series,
    strata: pd.Series | pd.DataFrame | None,
    shares: np.ndarray,
    rng: np.random.Generator,
    held: np.ndarray | None = None,
) -> np.ndarray:
    """Assign groups to parts so that each part gets its share of groups, images and every stratum.

    scikit-learn's `StratifiedGroupKFold` assigns the groups to equal folds. It knows one class a
    sample, so an image comes in once for each stratum that it is of. Folds are then put together
    to parts, in the one of 200 random ways that comes closest to the shares.

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
    common = np.bincount(stratum[free[owner]], minlength=stratum.max() + 1) >= n_folds
    sampled = np.flatnonzero(free[owner] & common[stratum])
    folds = StratifiedGroupKFold(n_folds).split(sampled, stratum[sampled], order[owner[sampled]])
    for number, (_, rows) in enumerate(folds):
        fold[np.unique(owner[sampled[rows]])] = number
    counts = np.zeros((n_folds, stratum.max() + 1))
    counted = np.flatnonzero(free[owner])
    np.add.at(counts, (fold[owner[counted]], stratum[counted]), 1)
    before = np.zeros((len(shares), counts.shape[1]))
    rest = np.flatnonzero(~free[owner])
    np.add.at(before, (part[owner[rest]], stratum[rest]), 1)
    ways = _JOININGS if sizes.max() > 1 or len(rest) else 1  # equal shares are all alike
    tried = [rng.permutation(part_of_fold) for _ in range(ways)]
    best = min(tried, key=lambda parts: _unevenness(before, counts, parts, shares))
    part[free] = best[fold[free]]
    return part


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
