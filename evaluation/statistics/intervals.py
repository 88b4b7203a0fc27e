"""An estimate with its confidence interval, and percentile intervals of bootstrap replicates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy  # whose parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import Floats

LEVEL = 0.95


NO_WIDTH = "no interval: every bootstrap resample gave the same value"


_ROUNDING = 1e-12


MOST_UNDEFINED = 0.1
"""With more resamples than this without a value, a figure gets no interval."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval; NaN where one is unknown."""

    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    note: str = ""  # why it is undefined or has no interval, or what to know about it
    # Whether it has no interval because every resample gave the same value, or because that of the
    # resamples leaves the estimate out.
    unmoved: bool = field(default=False, repr=False, kw_only=True)
    shifted: bool = field(default=False, repr=False, kw_only=True)

    @classmethod
    def from_share(cls, share: float, trials: float, level: float = LEVEL) -> Self:
        """The exact interval of a share of so many trials, whole or not.

        Source:
            Clopper and Pearson 1934.
        """
        hits, misses, tail = share * trials, (1 - share) * trials, (1 - level) / 2
        inverse = scipy.special.betaincinv
        low = inverse(hits, misses + 1, tail) if hits > 0 else 0.0
        high = inverse(hits + 1, misses, 1 - tail) if misses > 0 else 1.0
        return cls(share, float(low), float(high))

    @classmethod
    def from_row(cls, row: Any) -> Self:
        """A figure of a row of ``where.csv``, whatever the row is read as."""
        low, estimate, high = (
            math.nan if pd.isna(row[name]) else float(row[name])
            for name in ("ci_low", "estimate", "ci_high")
        )
        note = row["note"]
        return cls(estimate, low, high, note if isinstance(note, str) else "")

    @property
    def known(self) -> bool:
        """Whether there is an estimate."""
        return not math.isnan(self.estimate)

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    @property
    def excludes_zero(self) -> bool:
        """Whether estimate and interval lie on one side of 0, also as they are printed.

        An end that rounds to 0.000 does not exclude 0: no claim hangs on a digit that nobody sees.
        Nor is anything claimed where a percentile interval leaves its estimate on the other side.
        """
        if not (self.known and self.bounded):
            return False
        low, estimate, high = (round(each, 3) for each in (self.low, self.estimate, self.high))
        return min(low, estimate) > 0 or max(high, estimate) < 0

    @property
    def p_value(self) -> float | None:
        """Two-sided, of a true 0, by how far the interval reaches towards it."""
        reach = self.estimate - self.low if self.estimate > 0 else self.high - self.estimate
        if not (self.bounded and reach > 0):
            return None
        quantile = scipy.special.ndtri((1 + LEVEL) / 2)
        return float(2 * scipy.special.ndtr(-abs(self.estimate) / reach * quantile))

    def to_dict(self) -> dict[str, float | None]:
        """``estimate``, ``low`` and ``high`` for JSON, which knows no NaN: that is `None`."""
        ends = {"estimate": self.estimate, "low": self.low, "high": self.high}
        return {name: float(end) if math.isfinite(end) else None for name, end in ends.items()}

    def reversed(self) -> Interval:
        """Return the same difference, taken the other way round."""
        return Interval(-self.estimate, -self.high, -self.low, self.note)

    def minus(self, other: Interval, correlation: float = 0.0) -> Interval:
        """The difference of two figures; its interval follows from both, and needs both.

        Source:
            MOVER: Newcombe 1998; Zou and Donner 2008. The correlation is of the two figures.

        Example:
            >>> gap = Interval(1.0, 0.69, 1.0).minus(Interval(0.8, 0.7, 0.9))
            >>> round(gap.low, 3), round(gap.high, 3)
            (-0.126, 0.3)
        """
        gap = Interval(self.estimate - other.estimate, note=self.note or other.note)
        if not (self.bounded and other.bounded):
            return gap

        def reach(own: float, others: float) -> float:
            both = own**2 + others**2 - 2 * correlation * own * others
            return math.sqrt(max(both, 0.0))

        low = reach(self.estimate - self.low, other.high - other.estimate)
        high = reach(self.high - self.estimate, other.estimate - other.low)
        if correlation == 1 or not (low or high):
            return replace(gap, note=NO_WIDTH, unmoved=True)
        return replace(gap, low=gap.estimate - low, high=gap.estimate + high)


def percentile_interval(
    replicates: Floats, level: float = LEVEL, *, estimate: float = math.nan
) -> Interval:
    """The percentile interval of a figure's replicates, NaN where the figure was undefined.

    None where over 10 % are undefined, where it leaves the estimate out, or where it has no width:
    a figure that no resample moves is not known exactly, and the bootstrap cannot say how well.
    """
    defined = replicates[~np.isnan(replicates)]
    lost = len(replicates) - len(defined)
    if not len(defined) or lost > MOST_UNDEFINED * len(replicates):
        return Interval(estimate, note=f"undefined in {lost} of {len(replicates)} resamples")
    tail = round((1 - level) / 2, 12)  # 0.025, and not 0.025000000000000022
    low, high = np.quantile(defined, [tail, 1 - tail])
    if low == high:
        return Interval(estimate, note=NO_WIDTH, unmoved=True)
    if estimate < low - _ROUNDING or estimate > high + _ROUNDING:
        # As of ECE near 0: a resample adds noise to every bin, by which the mean gap only grows.
        note = (
            f"no interval: resampling itself shifts this figure (middle {100 * level:.4g} % of "
            f"resamples: {low:.3f} to {high:.3f})"
        )
        return Interval(estimate, note=note, shifted=True)
    note = f"undefined in {lost} of {len(replicates)} resamples, left out" if lost else ""
    return Interval(estimate, float(low), float(high), note)


def expanded_level(level: float, patients: float | None) -> float:
    """Coverage to ask of percentiles, so that they hold with few patients, too.

    Resamples of n patients vary by (n - 1) / n of the variance, and their tails are those of the
    normal distribution: percentiles further out make up for both.

    Source:
        Hesterberg 2015, "What teachers should know about the bootstrap", expanded percentiles.
    """
    if patients is None or not patients > 1:
        return level
    t = scipy.special.stdtrit(patients - 1, (1 + level) / 2)
    reach = math.sqrt(patients / (patients - 1)) * t
    return float(1 - 2 * scipy.special.ndtr(-reach))
