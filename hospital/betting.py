"""Inference on the mean of a bounded variable, by betting against its possible values.

A bettor claims that the mean is above m and, before each value, stakes a share of its wealth on
that. If the mean is at most m, the wealth is a supermartingale: the probability that the wealth
ever reaches 1 / p is then at most p (Ville 1939), whatever the distribution between the bounds is
and however few values there are. A guarantee for a number of patients therefore rests on no
approximation.

Each stake depends on earlier values only, so the order of the values changes the result, but never
the probability that the result is wrong. The functions for a p-value and an interval first bring
the values into an order that no user chooses. The values of a stream stay in the order in which
they arrived.

Values are in rows, shape ``(R, n)``. Each row is a separate sample, so thousands of samples are
computed at once.

Source:
    Waudby-Smith and Ramdas 2024, JRSS B 86:1 (hedged capital, predictable plug-in bets); Voracek
    and Orabona 2025, arXiv 2505.22422 (bets that are chosen anew before each value).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.intervals import LEVEL

_MOST = 0.75
"""Largest share of the wealth that a bet can lose; Waudby-Smith and Ramdas propose 1/2 and 3/4."""
_MOST_OF_TEST = 0.9
"""The same limit in `mean_p_value`, whose values rarely come near their bounds."""
_HALVINGS = 40
_SEED = 20240101
_ODDS = np.array([1.2, 1.5, 2.0, 3.5, 8.0, 1 / 1.2, 1 / 1.5, 1 / 2.0, 1 / 3.5, 1 / 8.0])
"""Factors by which a change multiplies the odds: small changes and large ones."""
_NEAR = np.array([0.5, 1.0, 2.0, 3.0, 4.5, -0.5, -1.0, -2.0, -3.0, -4.5])
"""Differences from the claimed mean that are bet on before the change, in standard errors of the
reference."""
_LEVELS = np.linspace(0, 1, 13)  # a half, thirds, quarters and sixths are among them
_EARLY = 10  # days: a start among the first ones has about the same weight
_MEANS = 48  # number of means that are tried
_BEYOND = 4.0  # standard errors of the reference from the extreme means so far to the ends of these
RICHEST = 1e12
"""Largest evidence that is reported."""


def mean_p_value(
    values: npt.ArrayLike, mean: npt.ArrayLike, *, upper: float = 1.0, error: float = 1 - LEVEL
) -> Floats:
    """Compute p-values of the hypothesis that the mean of independent values is at most `mean`.

    The p-value comes from a betting game: a bettor starts with a wealth of 1 and, before each
    value, stakes part of it on a mean above `mean`. If the hypothesis holds, the wealth reaches 1 /
    p with a probability of at most p. The values may come in any order. Each bet is the best one
    for reaching a wealth of ``1 / error`` with the remaining values; betting stops once the p-value
    is at most `error`, the significance level with which it will be compared.

    The values lie in [0, `upper`]; R samples are ``(R, n)``, one sample ``(n,)``. `mean` is one for
    all samples or ``(R,)``. The p-values, ``(R,)``, are 1 divided by the largest wealth that was
    reached, and 1 for a sample without values.

    Source:
        Waudby-Smith and Ramdas 2024; Voracek and Orabona 2025.

    Example:
        >>> mean_p_value([1, 1, 1, 0], 0.5, error=0.5).round(4).tolist()
        [0.3492]
    """
    table = shuffled_sample(values, upper)
    goal = -np.log(error)  # logarithm of the wealth that is to be reached
    claimed = np.broadcast_to(np.asarray(mean, dtype=np.float64) / upper, len(table))
    cap = _MOST_OF_TEST / np.maximum(claimed, np.finfo(np.float64).tiny)
    log_wealth = np.zeros(len(table))
    highest = np.zeros(len(table))
    values_left = np.arange(table.shape[1], 0, -1)
    expected_squares = values_left * _variances(table)
    for value, squares in zip(table.T, expected_squares.T, strict=True):
        bet = np.minimum(np.sqrt(2 * np.maximum(goal - log_wealth, 0.0) / squares), cap)
        gain = np.log1p(bet * (value - claimed))
        log_wealth = log_wealth + np.where(highest < goal, gain, 0.0)
        highest = np.maximum(highest, log_wealth)
    return np.asarray(np.exp(-highest))


def mean_interval(values: npt.ArrayLike, level: float = LEVEL) -> Floats:
    """Compute the confidence interval of the mean of independent values, in any order.

    One bettor bets that the mean is above a number, and another bets that it is below, each with
    half of the error ``1 - level``. A bettor whose wealth becomes large refutes this number as the
    mean. The interval contains the numbers that neither bettor refutes.

    The values lie in [0, 1]; R samples are ``(R, n)``, one sample ``(n,)``. The lower and upper
    ends are ``(R, 2)``; 0 and 1 for a sample without values.

    Source:
        Waudby-Smith and Ramdas 2024.

    Example:
        >>> mean_interval([0.9] * 50).round(2).tolist()
        [[0.82, 0.92]]
    """
    table = shuffled_sample(values)
    error = (1 - level) / 2
    return np.stack([_lowest_mean(table, error), 1 - _lowest_mean(1 - table, error)], axis=1)


def shuffled_sample(values: npt.ArrayLike, upper: float = 1.0) -> Floats:
    """Scale values in [0, `upper`] to [0, 1], and bring them into a fixed pseudo-random order.

    The p-value and the interval of this module depend on the order of the values. The fixed order,
    which depends on n only, keeps a user from trying several orders. R samples are ``(R, n)``, one
    sample ``(n,)``; the result is ``(R, n)``. Another value is an `InputError`.

    Example:
        >>> sorted(shuffled_sample([1, 2, 4], upper=4)[0].tolist())
        [0.25, 0.5, 1.0]
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64)) / upper
    inside = (table >= -1e-9) & (table <= 1 + 1e-9)
    if not inside.all():
        outlier = upper * table[~inside][0]
        raise InputError(f"values must lie between 0 and {upper:g}, got {outlier:g}")
    return np.clip(table, 0.0, 1.0)[:, np.random.default_rng(_SEED).permutation(table.shape[1])]


def _variances(table: Floats) -> Floats:
    """Estimate the variance of each value of [0, 1] from those before it, shape ``(R, n)``."""
    count = np.arange(1, table.shape[1] + 1)
    means = (0.5 + np.cumsum(table, axis=1)) / (count + 1)
    after = (0.25 + np.cumsum((table - means) ** 2, axis=1)) / (count + 1)
    return np.insert(after, 0, 0.25, axis=1)[:, :-1]


def _lowest_mean(table: Floats, error: float) -> Floats:
    """Find the smallest mean that is not refuted, shape ``(R,)``.

    The bets depend on the mean only through their limit, so the wealth falls as the mean rises.
    Bisection finds the smallest mean; the lower end of the last bracket is returned.
    """
    goal = np.log(1 / error)
    bets = np.sqrt(2 * goal / (_variances(table) * table.shape[1]))
    low = np.zeros((len(table), 1))
    high = np.ones((len(table), 1))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        gain = np.log1p(np.minimum(bets, _MOST / middle) * (table - middle))
        refuted = np.cumsum(gain, axis=1).max(axis=1, initial=0.0, keepdims=True) >= goal
        low = np.where(refuted, middle, low)
        high = np.where(refuted, high, middle)
    return np.asarray(low[:, 0])


def change_evidence(values: npt.ArrayLike, day: npt.ArrayLike) -> Floats:
    """Compute the evidence, after each day, that the mean of independent values has changed.

    The first values, all of day 0, are the reference, from before any change; the values of later
    days are the stream. The null hypothesis is that reference and stream have the same mean m. The
    evidence is the wealth of bettors who bet against this hypothesis. The bettors against each m
    start with a total wealth of 1. Each bettor has a day of change: until that day it bets on a
    mean near m, and afterwards it bets that the odds have risen or fallen. While nothing changes,
    the wealth against the true mean is a supermartingale. The evidence is the smallest wealth over
    all m. The probability that the evidence ever reaches 1 / p without a change is therefore at
    most p, however small the reference is. A value between two multiples of 1/12 counts in part as
    either; no bet gains from that, because the logarithm is concave.

    The values lie in [0, 1] and are in the order of their days, ``(R, n)``; each row is a separate
    series, tested separately. The days ascend, ``(n,)``, and the reference has at least one value;
    a day without a value leaves the evidence as it is. The evidence (e-value, at most 1e12) is
    ``(R, days)``, after each distinct day of the stream. Time and memory grow with the number of
    days that have values, however far apart these days are.

    Source:
        The mixture over starts is taken from Shin, Ramdas and Rinaldo 2024 (e-detectors), NEJSDS
        2:2, here with weights that add up to 1; the smallest value over the null hypothesis is
        taken as by Wasserman, Ramdas and Balakrishnan 2020 (universal inference), PNAS 117:29.

    Example:
        >>> day = np.maximum(np.arange(700) // 10 - 29, 0)  # 300 values, then 10 a day
        >>> change_evidence([0, 1] * 320 + [1] * 60, day)[0, [33, 39]].round(1).tolist()
        [0.1, 15100338753.8]
    """
    days = np.unique(np.asarray(day, dtype=np.int64))
    logs = [_log_evidence(tally, days) for tally in _tallies(values, day)]
    return np.exp(np.minimum(logs, np.log(RICHEST)))


def start_shares(values: npt.ArrayLike, day: npt.ArrayLike) -> Floats:
    """Estimate after which day the mean of a series of values changed, as a share for each day.

    The function `change_evidence` divides a wealth of 1 among bettors. Each bettor supposes another
    day of change and bets on it. The bettors whose supposed day fits the values gain most. The
    share of a day is the share of the final wealth that belongs to the bettors of this day.

    Values and days, ``(n,)``, are as there, but of one series. The shares, ``(days - 1,)``, add up
    to 1, one for each distinct day but the last; each belongs to the changes between its day and
    the next distinct day.

    Source:
        The mixture of `change_evidence`.

    Example:
        >>> day = np.repeat([0, 1, 2], [100, 4, 4])
        >>> start_shares([0, 1] * 50 + [0, 1] * 2 + [1] * 4, day).round(2).tolist()
        [0.36, 0.64]
    """
    (tally,) = _tallies(values, day)
    near, changed = _log_wealths(tally)
    since = np.logaddexp.reduce(changed[..., -1:] - changed[..., :-1], axis=1)
    days = np.unique(np.asarray(day, dtype=np.int64))
    wealth = start_weights(days).starting + near[:, :-1] + since
    smallest = wealth[np.logaddexp.reduce(wealth, axis=1).argmin()]
    shares = np.exp(smallest - smallest.max())
    return np.asarray(shares / shares.sum())


def start_quantiles(
    shares: Floats, day: npt.ArrayLike, quantiles: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """Find quantiles of the day of change from the result of `start_shares` for the same days.

    The share of a day says how likely the change began after it. With the quantiles 0.1 and 0.9,
    for example, the change began between the two resulting days with a share of 80 %. The day at
    each of Q quantiles, ``(Q,)``, may be one without a value.

    Example:
        >>> start_quantiles(np.array([0.2, 0.8]), [0, 1, 2], [0.1, 0.9]).tolist()
        [0, 1]
    """
    days = np.unique(np.asarray(day, dtype=np.int64))
    levels = np.atleast_1d(quantiles)
    ends = np.cumsum(shares)
    start = np.searchsorted(ends, levels).clip(0, len(shares) - 1)
    inside = ((levels - (ends[start] - shares[start])) / shares[start]).clip(0, 1)
    waiting = _waiting(days)
    # Starts between two distinct days share by their weights, so `_waiting` is inverted.
    share_waiting = waiting[start] - inside * (waiting[start] - waiting[start + 1])
    after = np.ceil(np.exp(np.log(_EARLY) / share_waiting) - _EARLY - 1e-6).astype(np.int64) - 1
    return np.asarray(after.clip(days[start], days[start + 1] - 1))


def _tallies(values: npt.ArrayLike, day: npt.ArrayLike) -> Iterator[Floats]:
    """Yield each row's number of values at each level up to each distinct day, ``(D, L)``."""
    days, day_index = np.unique(np.asarray(day, dtype=np.int64), return_inverse=True)
    n_levels = len(_LEVELS)
    top = n_levels - 1
    first_cell = n_levels * day_index
    size = n_levels * len(days)
    for row in np.atleast_2d(np.asarray(values, dtype=np.float64)):
        below = np.minimum((top * row).astype(np.int64), top - 1)
        part_above = top * row - below
        tally = np.bincount(first_cell + below, 1 - part_above, size)
        tally += np.bincount(first_cell + below + 1, part_above, size)
        yield np.cumsum(tally.reshape(-1, n_levels), axis=0)


def _log_evidence(tally: Floats, days: npt.NDArray[np.int64]) -> Floats:
    """Return the logarithm of the evidence after each day of a tally, shape ``(days,)``."""
    starting, waiting = start_weights(days)
    near, changed = _log_wealths(tally)
    began = np.logaddexp.accumulate(starting + near[:, None, :-1] - changed[..., :-1], axis=2)
    started = np.logaddexp.reduce(began + changed[..., 1:], axis=1) - np.log(_ODDS.size)
    return _lowest(np.logaddexp(started, waiting + near[:, 1:]))


class StartWeights(NamedTuple):
    """Division of the wealth of `change_evidence` among the supposed days of a change.

    All values are logarithms of shares of the wealth of 1 with which all bettors begin.

    Attributes:
        starting: Logarithm of the share whose bets start between each day and the next one, shape
            ``(D - 1,)`` for D distinct days.
        waiting: Logarithm of the share whose bets have not started by the end of each day after the
            first, shape ``(D - 1,)``.
    """

    starting: Floats
    waiting: Floats


def start_weights(days: npt.NDArray[np.int64]) -> StartWeights:
    """Compute which share of the wealth of `change_evidence` starts to bet after each day.

    Each bettor supposes that the change begins after one day, and starts to bet on it then. Bettors
    whose day has no value bet like those who start after the day before it. The first bettors start
    right after the reference, which is day 0.

    The D distinct days that have values ascend from 0. The shares that start by the last day and
    the share that still waits then add up to 1.

    Example:
        >>> weights = start_weights(np.array([0, 1, 2]))
        >>> np.exp([*weights.starting, weights.waiting[-1]]).round(4).tolist()
        [0.0397, 0.0336, 0.9266]
    """
    waiting = _waiting(days)
    return StartWeights(np.log(-np.diff(waiting)), np.log(waiting[1:]))


def _waiting(days: npt.NDArray[np.int64]) -> Floats:
    """Return the share of bettors who have not started by the end of each day."""
    return np.asarray(np.log(_EARLY) / np.log(days + _EARLY))


class _LogWealths(NamedTuple):
    """Logarithm of what a wealth of 1 becomes until the end of each day, against each mean.

    `near` is the average over the bets on a mean near the claimed one, shape ``(means, 1 + days)``.
    `changed` has one entry for each bet on changed odds, shape ``(means, odds, 1 + days)``.
    """

    near: Floats
    changed: Floats


def _log_wealths(tally: Floats) -> _LogWealths:
    counts = tally.sum(axis=1)
    angles = np.arcsin(np.sqrt(tally @ _LEVELS / counts))  # all standard errors are alike here
    margin = _BEYOND / (2 * np.sqrt(counts[0]))
    ends = np.clip([angles.min() - margin, angles.max() + margin], 1e-4, np.pi / 2 - 1e-4)
    mean = np.sin(ends[0] + np.ptp(ends) * np.linspace(0, 1, _MEANS)[:, None]) ** 2
    changed = (_ODDS - 1) / (1 + (_ODDS - 1) * mean)  # the best bets on these odds
    near = _NEAR / np.sqrt(counts[0] * mean * (1 - mean))
    near = np.clip(near, -_MOST / (1 - mean), _MOST / mean)
    bets = np.concatenate([near, changed], axis=1)[..., None]
    wealths = np.log1p(bets * (_LEVELS - mean[..., None])) @ tally.T
    together = np.logaddexp.reduce(wealths[:, : _NEAR.size], axis=1) - np.log(_NEAR.size)
    return _LogWealths(together, wealths[:, _NEAR.size :])


def _lowest(values: Floats) -> Floats:
    """Return each column's minimum, refined by a parabola through three rows, shape ``(days,)``."""
    row = values.argmin(axis=0).clip(1, len(values) - 2)
    column = np.arange(values.shape[1])
    left = values[row - 1, column]
    middle = values[row, column]
    right = values[row + 1, column]
    slope = (right - left) / 2
    bend = np.maximum(left - 2 * middle + right, 1e-12)
    offset = np.clip(-slope / bend, -1.0, 1.0)
    return np.minimum(middle + offset * slope + offset**2 * bend / 2, values.min(axis=0))
