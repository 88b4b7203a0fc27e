"""The mean of a bounded variable, by betting against what it may be.

A bettor claims that the mean is above m and stakes, before each value, a share of its wealth on
it. If the mean is at most m, the wealth is a supermartingale: it reaches 1 / p at any time with a
chance of at most p (Ville 1939), whatever the distribution between the bounds and however few the
values. So no approximation stands between the number of patients and what is promised of them.

Each stake is fixed by earlier values alone, so the order of the values matters, though never for
the error. A p-value and an interval bring their values into an order that no user chooses; those
of a stream stay as they came.

Values lie in rows ``(R, n)``, each row a sample of its own, so that thousands run at once.

Source:
    Waudby-Smith and Ramdas 2024, JRSS B 86:1 (hedged capital, predictable plug-in bets); Voracek
    and Orabona 2025, arXiv 2505.22422 (bets that aim anew).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data_prep.contracts.errors import InputError
from evaluation.statistics.bootstrap import LEVEL
from evaluation.statistics.ranking import Floats

_MOST = 0.75
"""Largest share of its wealth that a bet can lose; the paper's proposals are 1/2 and 3/4."""
_MOST_OF_TEST = 0.9
"""Likewise of a test, whose bounds are those of the patient with the most images: few are near."""
_HALVINGS = 40
_SEED = 20240101
_ODDS = np.array([1.2, 1.5, 2.0, 3.5, 8.0])
"""How a bettor on a change takes the odds of 1 to have grown: small changes and large ones."""
_EARLY = 100  # values: a start among the first ones weighs about alike
_BLOCK = 128  # values at once: their products stay within what a float holds
_AT_ONCE = 1 << 14  # values whose wealth is in memory
_RICHEST = 1e12  # where wealth is cut: it stays a supermartingale


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


def change_evidence(values: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike) -> Floats:
    """The evidence that the mean of a stream has left an interval, from some value on.

    Bettors start before every value, each with a part of a wealth of 1, and stake it on a mean
    above `upper` or below `lower`. While every value has, given those before, a mean within the
    interval, their wealth together is a supermartingale: it ever reaches 1 / p with a chance of at
    most p. Those who start near a change become rich, however late it comes.

    Args:
        values: In [0, 1], shape ``(R, n)`` or ``(n,)``, a stream a row.
        lower: Of the interval in which the mean was, in [0, 1]: one for all or shape ``(R,)``.
        upper: Its upper end, as `lower`.

    Returns:
        The wealth after each value, shape ``(R, n)``, cut at 1e12.

    Source:
        A mixture over starts as of Shin, Ramdas and Rinaldo 2024 (e-detectors), NEJSDS 2:2, with
        weights that add up to 1, so that Ville's inequality holds over all time.

    Example:
        >>> change_evidence([0, 1] * 50 + [1] * 50, 0.4, 0.6)[0, [99, 149]].round(1).tolist()
        [0.9, 1023157.3]
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    later = np.log(_EARLY) / np.log(np.arange(table.shape[1] + 1) + _EARLY)
    evidence = np.tile(later[1:], (len(table), 1))  # held by those who have not started
    run = _BLOCK * max(1, _AT_ONCE // (_BLOCK * max(1, len(table))))
    for betted, end in _sides(table, lower, upper):
        wealth = np.zeros((len(table), len(_ODDS), 1))
        for begin in range(0, table.shape[1], run):
            part = slice(begin, begin + run)
            factors = _factors(betted[:, part], end)
            new = -np.diff(later[begin : begin + factors.shape[2] + 1]) * factors
            grown, wealth = _grown(wealth, factors, new)
            evidence[:, part] += grown.mean(axis=1) / 2
    return np.minimum(evidence, _RICHEST)


def _grown(wealth: Floats, factors: Floats, new: Floats) -> tuple[Floats, Floats]:
    """The wealth of each bettor after each value, and after the last.

    At each value the `wealth` before, ``(R, bets, 1)``, is multiplied by its factor, of `factors`
    ``(R, bets, n)``, and `new` wealth starts: a sum over starts of products, of which the blocks
    are done at once and only their ends one after another.
    """
    size = factors.shape[2]
    filled = [(0, 0), (0, 0), (0, -size % _BLOCK)]
    blocks = (*factors.shape[:2], -1, _BLOCK)
    product = np.cumprod(np.pad(factors, filled, constant_values=1.0).reshape(blocks), axis=3)
    started = np.cumsum(np.pad(new, filled).reshape(blocks) / product, axis=3)
    before = [wealth]
    for block in range(product.shape[2]):
        last = product[:, :, block, -1:] * (before[-1] + started[:, :, block, -1:])
        before.append(np.minimum(last, _RICHEST))
    started += np.stack(before[:-1], axis=2)
    return (product * started).reshape(*factors.shape[:2], -1)[:, :, :size], before[-1]


def _sides(
    table: Floats, lower: npt.ArrayLike, upper: npt.ArrayLike
) -> tuple[tuple[Floats, Floats], ...]:
    """What is bet on as too large, and the end of the interval there; of both directions."""
    low, high = (np.asarray(end, dtype=np.float64).reshape(-1, 1) for end in (lower, upper))
    return (table, high), (1 - table, 1 - low)


def _factors(values: Floats, end: Floats) -> Floats:
    """By what each value multiplies the wealth of each bettor, shape ``(R, bets, n)``.

    The stake of a bettor is the best one where 1 has so many times the odds of the end.
    """
    end = np.clip(end, 1e-9, 1.0)[:, :, None]  # (R or 1, 1, 1)
    odds = _ODDS[:, None]
    stake = (odds - 1) / (1 + (odds - 1) * end)
    return np.asarray(1 + stake * (values[:, None, :] - end))


def start_shares(values: npt.ArrayLike, lower: float, upper: float) -> Floats:
    """How the wealth of `change_evidence` after the last value is shared among starts, (n,)."""
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    start = np.arange(table.shape[1] + 1)
    weight = -np.diff(np.log(_EARLY) / np.log(start + _EARLY))
    grown = np.full(table.shape[1], -np.inf)
    for betted, end in _sides(table, lower, upper):
        for gain in np.log(_factors(betted, end)[0]):
            grown = np.logaddexp(grown, np.cumsum(gain[::-1])[::-1])
    shares = weight * np.exp(grown - grown.max())
    return shares / shares.sum()
