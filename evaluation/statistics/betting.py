"""The mean of a bounded variable, by betting against what it may be.

A bettor claims that the mean is above m and stakes, before each value, a share of its wealth on
it. If the mean is at most m, the wealth is a supermartingale: it reaches 1 / p at any time with a
chance of at most p (Ville 1939), whatever the distribution between the bounds and however few the
values. So no approximation stands between the number of patients and what is guaranteed of them.

Each stake is fixed by earlier values alone, so the order of the values matters, though never for
the error. A p-value and an interval bring their values into an order that no user chooses; those
of a stream stay as they came.

Values lie in rows ``(R, n)``, each row a sample of its own, so that thousands run at once.

Source:
    Waudby-Smith and Ramdas 2024, JRSS B 86:1 (hedged capital, predictable plug-in bets); Voracek
    and Orabona 2025, arXiv 2505.22422 (bets that aim anew).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.intervals import LEVEL

_MOST = 0.75
"""Largest share of its wealth that a bet can lose; the paper's proposals are 1/2 and 3/4."""
_MOST_OF_TEST = 0.9
"""Likewise of a test, whose bounds are those of the patient with the most images: few are near."""
_HALVINGS = 40
_SEED = 20240101
_ODDS = np.array([1.2, 1.5, 2.0, 3.5, 8.0, 1 / 1.2, 1 / 1.5, 1 / 2.0, 1 / 3.5, 1 / 8.0])
"""By what a change multiplies the odds: small changes and large ones."""
_NEAR = np.array([0.5, 1.0, 2.0, 3.0, 4.5, -0.5, -1.0, -2.0, -3.0, -4.5])
"""By how many standard errors of the reference a bet before the change takes the mean to differ."""
_LEVELS = np.linspace(0, 1, 13)  # a half, thirds, quarters and sixths are among them
_EARLY = 10  # days: a start among the first ones weighs about alike
_MEANS = 48  # that are tried
_BEYOND = 4.0  # standard errors of the reference by which these exceed all means so far
_RICHEST = 1e12  # where evidence is cut


def mean_p_value(
    values: npt.ArrayLike, mean: npt.ArrayLike, *, upper: float = 1.0, error: float = 1 - LEVEL
) -> Floats:
    """The p-value of "the mean is at most `mean`", of independent values in any order.

    Each bet is the best for reaching a wealth of ``1 / error`` with the values that are left.

    Args:
        values: In [0, `upper`], shape ``(R, n)`` or ``(n,)``.
        mean: One for all or shape ``(R,)``.
        upper: What no value is above.
        error: A p-value below this is not sought.

    Returns:
        1 over the largest wealth on the way, shape ``(R,)``; 1 where there is no value.

    Raises:
        InputError: A value lies outside the bounds.

    Example:
        >>> mean_p_value([1, 1, 1, 0], 0.5, error=0.5).round(4).tolist()
        [0.3492]
    """
    table, goal = _sample(values, upper), -np.log(error)  # of the logarithm of the wealth
    claimed = np.broadcast_to(np.asarray(mean, dtype=np.float64) / upper, len(table))
    cap = _MOST_OF_TEST / np.maximum(claimed, np.finfo(np.float64).tiny)
    wealth, most = np.zeros((2, len(table)))
    left = np.arange(table.shape[1], 0, -1)
    for value, variance in zip(table.T, (left * _variances(table)).T, strict=True):
        bet = np.minimum(np.sqrt(2 * np.maximum(goal - wealth, 0.0) / variance), cap)
        wealth = wealth + np.where(most < goal, np.log1p(bet * (value - claimed)), 0.0)
        most = np.maximum(most, wealth)
    return np.asarray(np.exp(-most))


def mean_interval(values: npt.ArrayLike, level: float = LEVEL) -> Floats:
    """The interval of the mean of independent values of [0, 1], in any order.

    It holds the means that neither of two bettors, each with half of the error, refutes.

    Args:
        values: Shape ``(R, n)`` or ``(n,)``.
        level: The chance, at least, that it holds the mean.

    Returns:
        Lower and upper end, shape ``(R, 2)``; 0 and 1 where there is no value.

    Raises:
        InputError: A value lies outside [0, 1].

    Example:
        >>> mean_interval([0.9] * 50).round(2).tolist()
        [[0.82, 0.92]]
    """
    table, error = _sample(values), (1 - level) / 2
    return np.stack([_lowest_mean(table, error), 1 - _lowest_mean(1 - table, error)], axis=1)


def _sample(values: npt.ArrayLike, upper: float = 1.0) -> Floats:
    """Rows scaled to [0, 1], the columns in an order that nobody chooses."""
    table = np.atleast_2d(np.asarray(values, dtype=np.float64)) / upper
    inside = (table >= -1e-9) & (table <= 1 + 1e-9)
    if not inside.all():
        found = upper * table[~inside][0]
        raise InputError(f"values must lie between 0 and {upper:g}, got {found:g}")
    return np.clip(table, 0.0, 1.0)[:, np.random.default_rng(_SEED).permutation(table.shape[1])]


def _variances(table: Floats) -> Floats:
    """The variance of each value of [0, 1] as those before it tell it, shape ``(R, n)``."""
    count = np.arange(1, table.shape[1] + 1)
    means = (0.5 + np.cumsum(table, axis=1)) / (count + 1)
    after = (0.25 + np.cumsum((table - means) ** 2, axis=1)) / (count + 1)
    return np.insert(after, 0, 0.25, axis=1)[:, :-1]


def _lowest_mean(table: Floats, error: float) -> Floats:
    """The smallest mean that is not refuted, shape ``(R,)``, by bets that do not depend on it.

    The wealth falls as the mean that it is bet against rises, so halving finds it, from below.
    """
    goal = np.log(1 / error)
    bets = np.sqrt(2 * goal / (_variances(table) * table.shape[1]))
    low, high = np.zeros((len(table), 1)), np.ones((len(table), 1))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        gain = np.log1p(np.minimum(bets, _MOST / middle) * (table - middle))
        refuted = np.cumsum(gain, axis=1).max(axis=1, initial=0.0, keepdims=True) >= goal
        low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
    return np.asarray(low[:, 0])


def change_evidence(values: npt.ArrayLike, day: npt.ArrayLike) -> Floats:
    """The evidence, after each day, that the mean of independent values has changed on some day.

    Bettors against "reference and stream have the mean m" start with a wealth of 1 in all. Each
    bets until a day of its own on a mean near m, and from then on that the odds have grown, or
    fallen. While nothing changes, the wealth against the true mean is a supermartingale. The
    evidence is the smallest wealth over all m, so it ever reaches 1 / p with a chance of at most
    p, however small the reference. A value between two twelfths counts in part as each, which no
    bet gains from, because the logarithm is concave.

    Args:
        values: In [0, 1], shape ``(R, n)``, a figure a row.
        day: Of each value, shape ``(n,)``: 0 of the reference, which has some, then 1, 2, ....
            A day may have no value: the evidence is then that of the day before.

    Returns:
        E-values after each distinct day of the stream, shape ``(R, days)``, cut at 1e12. Time and
        memory grow with the days that have values, however far apart they lie.

    Source:
        A mixture over starts as of Shin, Ramdas and Rinaldo 2024 (e-detectors), NEJSDS 2:2, with
        weights that add up to 1; smallest over the null as of Wasserman, Ramdas and Balakrishnan
        2020 (universal inference), PNAS 117:29.

    Example:
        >>> day = np.maximum(np.arange(700) // 10 - 29, 0)  # 300 of the reference, 10 a day
        >>> change_evidence([0, 1] * 320 + [1] * 60, day)[0, [33, 39]].round(1).tolist()
        [0.1, 15100338753.8]
    """
    days = np.unique(np.asarray(day, dtype=np.int64))
    logs = [_evidence(tally, days) for tally in _tallies(values, day)]
    return np.exp(np.minimum(logs, np.log(_RICHEST)))


def start_shares(values: npt.ArrayLike, day: npt.ArrayLike) -> Floats:
    """How the wealth of `change_evidence` after the last day is shared among starts.

    Args:
        values: Of one figure, as `change_evidence` takes them.
        day: Of each value.

    Returns:
        Shares that add up to 1, shape ``(days,)``: of starts after each distinct day but the last,
        which is on that day or on one of the days without a value that follow it.
    """
    (tally,) = _tallies(values, day)
    near, grown = _log_wealths(tally)
    since = np.logaddexp.reduce(grown[..., -1:] - grown[..., :-1], axis=1)
    days = np.unique(np.asarray(day, dtype=np.int64))
    wealth = _start_weights(days)[0] + near[:, :-1] + since
    smallest = wealth[np.logaddexp.reduce(wealth, axis=1).argmin()]
    shares = np.exp(smallest - smallest.max())
    return np.asarray(shares / shares.sum())


def start_quantiles(
    shares: Floats, day: npt.ArrayLike, quantiles: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """Return the days after which a change began, at some quantiles of `start_shares`.

    Args:
        shares: Of starts, shape ``(days - 1,)`` of the distinct days of `day`.
        day: As `start_shares` took it.
        quantiles: In [0, 1].

    Returns:
        Days, among them such without a value, in the order of the quantiles.

    Example:
        >>> start_quantiles(np.array([0.2, 0.8]), [0, 1, 2], [0.1, 0.9]).tolist()
        [0, 1]
    """
    days, wanted = np.unique(np.asarray(day, dtype=np.int64)), np.atleast_1d(quantiles)
    ends = np.cumsum(shares)
    place = np.searchsorted(ends, wanted).clip(0, len(shares) - 1)
    inside = ((wanted - (ends[place] - shares[place])) / shares[place]).clip(0, 1)
    waiting = _waiting(days)
    # Where days without a value follow, their starts share by their weights: `_waiting` inverted.
    level = waiting[place] - inside * (waiting[place] - waiting[place + 1])
    after = np.ceil(np.exp(np.log(_EARLY) / level) - _EARLY - 1e-6).astype(np.int64) - 1
    return np.asarray(after.clip(days[place], days[place + 1] - 1))


def _tallies(values: npt.ArrayLike, day: npt.ArrayLike) -> Iterator[Floats]:
    """Of each row the values at each level until the end of each distinct day, (D, L)."""
    days, place = np.unique(np.asarray(day, dtype=np.int64), return_inverse=True)
    of_day, top = len(_LEVELS) * place, len(_LEVELS) - 1
    size = len(_LEVELS) * len(days)
    for row in np.atleast_2d(np.asarray(values, dtype=np.float64)):
        below = np.minimum((top * row).astype(np.int64), top - 1)
        part = top * row - below
        tally = np.bincount(of_day + below, 1 - part, size)
        tally += np.bincount(of_day + below + 1, part, size)
        yield np.cumsum(tally.reshape(-1, len(_LEVELS)), axis=0)


def _evidence(tally: Floats, days: npt.NDArray[np.int64]) -> Floats:
    """The logarithm of the evidence after each day of a tally, shape ``(days,)``."""
    starting, waiting = _start_weights(days)
    near, grown = _log_wealths(tally)
    began = np.logaddexp.accumulate(starting + near[:, None, :-1] - grown[..., :-1], axis=2)
    started = np.logaddexp.reduce(began + grown[..., 1:], axis=1) - np.log(_ODDS.size)
    return _lowest(np.logaddexp(started, waiting + near[:, 1:]))


def _start_weights(days: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Logarithms: of those who start after each day, the reference first, and of those who wait.

    Those who start on a day without a value bet like those who start after the day before it.
    """
    waiting = _waiting(days)
    return np.log(-np.diff(waiting)), np.log(waiting[1:])


def _waiting(days: npt.NDArray[np.int64]) -> Floats:
    """The share of bettors who have not started by the end of each day."""
    return np.asarray(np.log(_EARLY) / np.log(days + _EARLY))


def _log_wealths(tally: Floats) -> tuple[Floats, Floats]:
    """The logarithm of what 1 becomes until the end of each day, against each of some means.

    First of bets on a mean near the claimed one, taken together, shape ``(means, 1 + days)``; then
    of each bet on changed odds, shape ``(means, odds, 1 + days)``.
    """
    counts = tally.sum(axis=1)
    angles = np.arcsin(np.sqrt(tally @ _LEVELS / counts))  # all standard errors are alike there
    margin = _BEYOND / (2 * np.sqrt(counts[0]))
    ends = np.clip([angles.min() - margin, angles.max() + margin], 1e-4, np.pi / 2 - 1e-4)
    mean = np.sin(ends[0] + np.ptp(ends) * np.linspace(0, 1, _MEANS)[:, None]) ** 2
    changed = (_ODDS - 1) / (1 + (_ODDS - 1) * mean)  # the best bets on these odds
    near = _NEAR / np.sqrt(counts[0] * mean * (1 - mean))
    near = np.clip(near, -_MOST / (1 - mean), _MOST / mean)
    bets = np.concatenate([near, changed], axis=1)[..., None]
    wealths = np.log1p(bets * (_LEVELS - mean[..., None])) @ tally.T
    together = np.logaddexp.reduce(wealths[:, : _NEAR.size], axis=1) - np.log(_NEAR.size)
    return together, wealths[:, _NEAR.size :]


def _lowest(values: Floats) -> Floats:
    """The smallest of each column, between the rows by the parabola of three, shape ``(days,)``."""
    at, column = values.argmin(axis=0).clip(1, len(values) - 2), np.arange(values.shape[1])
    left, middle, right = (values[at + step, column] for step in (-1, 0, 1))
    slope, bend = (right - left) / 2, np.maximum(left - 2 * middle + right, 1e-12)
    to = np.clip(-slope / bend, -1.0, 1.0)
    return np.minimum(middle + to * slope + to**2 * bend / 2, values.min(axis=0))
