"""BCa intervals: the bootstrap's ends moved for its bias and for the skew of the figure.

The bias is read from the resamples, the skew from how the figure moves when patients are left
out. Up to `MOST_GROUPS` patients each is left out once; of more, as many random groups of equal
size. The skew of groups is that of patients up to noise: it moves the acceleration by about 0.65
over their number, and so a tail of 2.5 % by less than 0.02 of a percent, a twentieth of what 2,000
resamples themselves leave open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from evaluation.statistics.bootstrap import (
    LEVEL,
    Interval,
    Name,
    Resamples,
    Statistic,
    over_chunks,
    percentile_interval,
    rows_at_once,
)
from evaluation.statistics.ranking import Floats

MOST_GROUPS = 1000
_ROUNDING = 1e-12
_OF_GROUPS = 104729
"""Makes the draw of groups another than those of patients and seeds."""
ONE_SIDED = "percentile: BCa is undefined, every resample lies on one side of the estimate"
NO_SKEW = "percentile: BCa is undefined, as is the figure without some patients"
UNMOVED = "percentile: BCa is undefined, no patient left out moves the figure"
TOO_SKEWED = "percentile: BCa is undefined, the figure is too skewed"
BEYOND = "an end of BCa lies beyond the resamples; the outermost stands for it"
SHIFTED = (
    "no interval: resampling itself shifts this figure (middle {ends}), so neither percentile nor "
    "BCa ends hold it; of calibration, read Brier score, slope and in the large"
)
"""Once more than 97.5 % of resamples lie on one side of a figure, BCa leaves it out as well.

So does expected calibration error near 0: a resample adds noise to every bin, and the mean size of
gaps only grows by it.
"""


@dataclass(frozen=True)
class Jackknife:
    """How a figure moves when patients, or training seeds, are left out.

    Attributes:
        whole: The figure of all patients, by the arithmetic of its replicates.
        left_out: The figure without each group of patients, shape ``(G,)``.
        seeds: What each training seed adds to the figure, shape ``(S,)``; empty with one.
    """

    whole: float
    left_out: Floats
    seeds: Floats = field(default_factory=lambda: np.empty(0))

    def __sub__(self, other: Jackknife) -> Jackknife:
        seeds = np.concatenate([self.seeds, -other.seeds])
        return Jackknife(self.whole - other.whole, self.left_out - other.left_out, seeds)

    def acceleration(self) -> float:
        """A sixth of the skew of what patients and seeds add, each sample by itself.

        Returns:
            NaN where the figure is undefined without some patients, or nothing moves it.

        Example:
            >>> round(Jackknife(2.0, np.array([2.5, 2.5, 1.0])).acceleration(), 3)
            0.068
        """
        groups = len(self.left_out)
        moves = (groups - 1) / groups * (self.left_out.mean() - self.left_out)
        moves = np.concatenate([moves, self.seeds])
        spread = float((moves**2).sum())
        scale = _ROUNDING * max(1.0, abs(self.whole))
        if not np.abs(moves).max() > scale:  # also where one is NaN
            return float("nan")
        return float((moves**3).sum() / (6 * spread**1.5))


@dataclass(frozen=True)
class Resampled:
    """A figure's replicates and, for BCa, its jackknife.

    Attributes:
        drawn: Shape ``(R,)``, NaN where undefined.
        left: `None`: the interval is a percentile one.
    """

    drawn: Floats
    left: Jackknife | None = None

    def __sub__(self, other: Resampled) -> Resampled:
        drawn = self.drawn - other.drawn
        if self.left is None or other.left is None:
            return Resampled(drawn)
        return Resampled(drawn, self.left - other.left)

    @classmethod
    def derived(cls, compute: Callable[..., Floats], parts: list[Resampled]) -> Resampled:
        """A figure that follows from others, none of which has seeds."""
        drawn = compute(*(part.drawn for part in parts))
        left = [part.left for part in parts if part.left is not None]
        if len(left) < len(parts):
            return cls(drawn)
        whole = float(compute(*(each.whole for each in left)))
        return cls(drawn, Jackknife(whole, compute(*(each.left_out for each in left))))

    def interval(self, estimate: float | None = None, level: float = LEVEL) -> Interval:
        """Its percentile or BCa interval.

        Args:
            estimate: The figure; an interval that leaves it out is none, see `SHIFTED`.
            level: Coverage asked for.
        """
        found = (
            percentile_interval(self.drawn, level)
            if self.left is None
            else bca_interval(self.drawn, self.left, level)
        )
        if estimate is None or found.low is None or found.high is None:
            return found
        if found.low - _ROUNDING <= estimate <= found.high + _ROUNDING:
            return found
        middle = percentile_interval(self.drawn, level)
        ends = f"{100 * level:.4g} % of resamples: {middle.low:.3f} to {middle.high:.3f}"
        return Interval(None, None, SHIFTED.format(ends=ends))


def bca_interval(replicates: Floats, jackknife: Jackknife, level: float = LEVEL) -> Interval:
    """The bias-corrected and accelerated interval of a figure.

    Args:
        replicates: Shape ``(R,)``; NaN where the figure was undefined.
        jackknife: How the figure moves.
        level: Coverage asked for.

    Returns:
        The interval over the defined replicates, those equal to the figure counted half below
        it. Where `percentile_interval` gives none, there is none; where BCa is undefined, the
        percentile interval with a note that says so.

    Source:
        Efron 1987; Efron and Tibshirani 1993, chapter 14; several samples as in scipy.

    Example:
        >>> left = Jackknife(500.0, np.array([499.0, 500.0, 501.0]))
        >>> found = bca_interval(np.arange(1001.0), left)  # neither bias nor skew: as percentile
        >>> round(found.low, 6)
        25.0
    """
    plain = percentile_interval(replicates, level)
    if plain.low is None:
        return plain
    defined = replicates[~np.isnan(replicates)]
    if np.isnan([jackknife.whole, *jackknife.left_out, *jackknife.seeds]).any():
        return _instead(plain, NO_SKEW)
    whole, scale = jackknife.whole, _ROUNDING * max(1.0, abs(jackknife.whole))
    ties = np.abs(defined - whole) <= scale
    below = float(((defined < whole) & ~ties).mean() + ties.mean() / 2)
    if not 0 < below < 1:
        return _instead(plain, ONE_SIDED)
    acceleration = jackknife.acceleration()
    if np.isnan(acceleration):
        return _instead(plain, UNMOVED)
    bias = ndtri(below)
    tail = round((1 - level) / 2, 12)
    ends = bias + ndtri(np.array([tail, 1 - tail]))
    if (1 - acceleration * ends <= 0).any():
        return _instead(plain, TOO_SKEWED)
    asked = ndtr(bias + ends / (1 - acceleration * ends))
    low, high = np.quantile(defined, asked)
    if low == high:
        return _instead(plain, TOO_SKEWED)
    edge = 1 / (len(defined) + 1)
    beyond = asked[0] < edge or asked[1] > 1 - edge
    note = "; ".join(filter(None, [plain.note, BEYOND if beyond else None]))
    return Interval(float(low), float(high), note or None, "bca")


def _instead(plain: Interval, why: str) -> Interval:
    return replace(plain, note=f"{plain.note}; {why}" if plain.note else why)


def cluster_jackknife(statistic: Statistic[Name], resamples: Resamples) -> dict[Name, Jackknife]:
    """Compute figures without each group of patients in turn.

    Args:
        statistic: As in `evaluation.statistics.bootstrap.cluster_bootstrap`.
        resamples: Whose patients, and the seed of the groups.

    Returns:
        By the figure's name; nothing where fewer than two patients are left to choose from.

    Source:
        Efron 1987; Shao and Tu 1995, section 2.3, the grouped jackknife.

    Example:
        >>> total = cluster_jackknife(lambda w: {"n": w @ np.array([1.0, 4.0])}, Resamples(2))["n"]
        >>> total.whole, total.left_out.tolist()
        (5.0, [4.0, 1.0])
    """
    if resamples.n_clusters < 2:
        return {}
    found = over_chunks(statistic, left_out_weights(resamples))
    return {name: Jackknife(float(values[0]), values[1:]) for name, values in found.items()}


def n_groups(n_clusters: int) -> int:
    """Into how many groups of patients the jackknife parts them."""
    return min(n_clusters, MOST_GROUPS)


def left_out_weights(resamples: Resamples) -> Iterator[npt.NDArray[np.int16]]:
    """Weights of 1, and of 0 for one group: first without any left out, then each group once.

    Args:
        resamples: Whose patients.

    Returns:
        In chunks, together shape ``(1 + groups, n_clusters)``.

    Example:
        >>> next(left_out_weights(Resamples(2))).tolist()
        [[1, 1], [0, 1], [1, 0]]
    """
    n_clusters = resamples.n_clusters
    count = n_groups(n_clusters)
    group = np.arange(n_clusters)
    if count < n_clusters:
        rng = np.random.default_rng([resamples.seed, _OF_GROUPS])
        group = rng.permutation(n_clusters) % count
    step = rows_at_once(n_clusters, count + 1)
    for start in range(0, count + 1, step):
        rows = np.arange(start, min(start + step, count + 1))
        yield (group[None, :] != rows[:, None] - 1).astype(np.int16)


def with_jackknife(
    drawn: Mapping[Name, Floats], left: Mapping[Name, Jackknife]
) -> dict[Name, Resampled]:
    """Put replicates and jackknives of the same figures together."""
    return {name: Resampled(values, left.get(name)) for name, values in drawn.items()}
