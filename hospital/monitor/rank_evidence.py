"""Evidence that a stream of values has changed, by the rank of each value among those before it.

While nothing changes, the values come in a random order. The rank of each among all values until
then is then uniform and independent of the earlier ranks, whatever the distribution of the values.
So no mean has to be known or estimated: bets on these ranks are fair from the first day on, and
their wealth ever reaches 1 / p with a chance of at most p (Ville 1939).

The bets are of two kinds. Bets on normal scores grow if all values rise or fall. Bets on
exponential scores grow if the highest values become more frequent or rarer, as a change of the
prevalence or of the sensitivity makes them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.hospital.betting import RICHEST, start_weights

_SEED_VALUES = 50
"""Number of first values that choose the order of equal values and the position within a rank."""
_NORMAL = np.array([0.3, -0.3, 0.6, -0.6])
"""Changes of the mean of the normal scores that are bet on; their standard deviation is 1."""
_EXPONENTIAL = np.array([0.12, -0.12, 0.25, -0.25])
"""The same of the exponential scores."""
_EVERY_START = 128
"""Number of first days after each of which some bettors start; later, one day in k / 128."""
_EDGE = 1e-15


def sequential_ranks(values: npt.ArrayLike) -> Floats:
    """Rank each value among all values up to it, on a scale from 0 to 1.

    Equal values are ordered at random, and a value gets a random number within its rank. If the
    values come in random order, the ranks are therefore independent and uniform. The first 50
    values are the seed of this randomness: it differs between series, and further values leave
    earlier ranks as they are. Values and ranks are ``(n,)``.

    Source:
        Vovk, Gammerman and Shafer 2022, Algorithmic learning in a random world, 2nd edition,
        chapter 8 (smoothed conformal p-values).

    Example:
        >>> ranks = sequential_ranks([0.2, 0.1, 0.4, 0.3])
        >>> np.ceil(ranks * [1, 2, 3, 4]).tolist()
        [1.0, 1.0, 3.0, 3.0]
    """
    row = np.asarray(values, dtype=np.float64)
    seed = zlib.crc32(row[:_SEED_VALUES].tobytes())
    noise = np.random.default_rng(seed).random((len(row), 2))
    rank = np.empty(len(row), dtype=np.int64)
    rank[np.lexsort((noise[:, 0], row))] = np.arange(len(row))
    positions = np.arange(1, len(row) + 1)
    return np.clip((_earlier_and_lower(rank) + noise[:, 1]) / positions, _EDGE, 1 - _EDGE)


def rank_evidence(values: npt.ArrayLike, day: npt.ArrayLike) -> Floats:
    """Compute the evidence, after each day, that independent values have changed.

    Each value is ranked among all values up to it; if nothing changes, these ranks are uniform. The
    evidence is the wealth of bettors who bet that the ranks are not uniform. The bettors start with
    a wealth of 1 together, and each starts to bet after another day. If nothing changes, the
    evidence ever reaches 1 / p with a probability of at most p. A bet on a change that began when n
    values were there becomes smaller by n / N once there are N values, because later values are
    also ranked among changed ones.

    The values of one series are any real numbers, ``(n,)``, in the order in which they came. The
    day, ``(n,)``, ascends: 0 for the reference (the values from before any change), which has at
    least one value, then 1, 2, and so on. The e-values, ``(days,)``, are those after each distinct
    day after the reference, at most 1e12.

    Source:
        Vovk 2021, Statistical Science 36:4 (testing randomness online), with the mixture over
        starts of Shin, Ramdas and Rinaldo 2024 (e-detectors), NEJSDS 2:2.

    Example:
        >>> day = np.maximum(np.arange(700) // 10 - 29, 0)  # 300 of the reference, 10 a day
        >>> values = np.random.default_rng(0).normal(np.where(day > 30, 1.0, 0.0))
        >>> rank_evidence(values, day)[[29, 32]].round(1).tolist()
        [0.7, 11.9]
    """
    days = np.unique(np.asarray(day, dtype=np.int64))
    n_days = len(days) - 1
    wealth = np.full(n_days, -np.inf)
    started = np.zeros(n_days)
    for start, weight, course in _bettors(values, day):
        wealth[start:] = np.logaddexp(wealth[start:], np.log(weight) + course)
        started[start:] += weight
    with np.errstate(divide="ignore"):
        waiting = np.log1p(-np.minimum(started, 1.0))
    return np.exp(np.minimum(np.logaddexp(wealth, waiting), np.log(RICHEST)))


def rank_start_shares(values: npt.ArrayLike, day: npt.ArrayLike) -> Floats:
    """Estimate after which day a series of values changed, as a share for each day.

    The share of a day is the share of the final wealth of the bettors of `rank_evidence` that
    belongs to those who suppose that the change began after this day. Values and days are as there.
    The shares, ``(days - 1,)``, add up to 1, one for each distinct day but the last; they are 0 for
    late days after which no bettor starts.

    Source:
        The mixture of `rank_evidence`.

    Example:
        >>> day = np.repeat([0, 1, 2], [100, 4, 4])
        >>> rank_start_shares([*range(100), 40, 60, 50, 45, 99, 98, 97, 99], day).round(2).tolist()
        [0.37, 0.63]
    """
    n_days = len(np.unique(np.asarray(day, dtype=np.int64))) - 1
    logs = np.full(n_days, -np.inf)
    for start, weight, course in _bettors(values, day):
        logs[start] = np.log(weight) + course[-1]
    shares = np.exp(logs - logs.max())
    return np.asarray(shares / shares.sum())


def _earlier_and_lower(rank: Integers) -> Integers:
    """Count the earlier and lower values of each of n values with distinct ranks, shape ``(n,)``.

    Halves of ever larger blocks are merged, so the time grows with n times the square of its
    logarithm.
    """
    n = len(rank)
    lower = np.zeros(n, dtype=np.int64)
    width = 1
    while width < n:
        n_blocks = -(-n // (2 * width))
        blocks = np.full(n_blocks * 2 * width, n, dtype=np.int64)
        blocks[:n] = rank
        order = np.argsort(blocks.reshape(n_blocks, 2 * width), axis=1, kind="stable")
        is_left = order < width
        counts = np.zeros_like(order)
        np.put_along_axis(counts, order, np.cumsum(is_left, axis=1) * ~is_left, axis=1)
        lower += counts.reshape(-1)[:n]
        width *= 2
    return lower


def _starts(n_days: int) -> Iterator[int]:
    """Return the days after which bettors start: each of the first, then ever fewer."""
    start = 0
    while start < n_days:
        yield start
        start += max(1, start // _EVERY_START)


def _bettors(values: npt.ArrayLike, day: npt.ArrayLike) -> Iterator[tuple[int, float, Floats]]:
    """Yield the bettors by their start.

    A bettor is the number of the day after which they start; their share of all bettors, with those
    who would have started since the last start; and the logarithm of what a wealth of 1 becomes
    until the end of each later day.
    """
    days, index = np.unique(np.asarray(day, dtype=np.int64), return_inverse=True)
    shares = np.exp(start_weights(days).starting)
    ranks = sequential_ranks(values)
    counts = np.bincount(index)
    totals = np.cumsum(counts)
    normal = np.bincount(index, ndtri(ranks))
    exponential = np.bincount(index, -np.log1p(-ranks) - 1)
    n_bets = _NORMAL.size + _EXPONENTIAL.size
    unstarted = 0
    for start in _starts(len(days) - 1):
        later = slice(start + 1, None)
        fading = totals[start] / totals[later]
        bet = _NORMAL[:, None] * fading
        gains = bet * normal[later] - counts[later] * bet**2 / 2
        bet = _EXPONENTIAL[:, None] * fading
        # The logarithm of the moment generating function of an exponential variable minus 1.
        fair = -bet - np.log1p(-bet)
        gains = np.concatenate([gains, bet * exponential[later] - counts[later] * fair])
        courses = np.logaddexp.reduce(np.cumsum(gains, axis=1), axis=0) - np.log(n_bets)
        yield start, float(shares[unstarted : start + 1].sum()), courses
        unstarted = start + 1
