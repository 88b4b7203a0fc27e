"""An estimate with its confidence interval, and percentile intervals of bootstrap replicates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.figure_text import ZERO, range_text

LEVEL = 0.95
"""Coverage of every interval, unless another one is asked for."""
NO_WIDTH = "no interval: resampling the patients does not change the value"
"""Note of a figure that no resample changes."""
MOST_UNDEFINED = 0.1
"""Largest share of the resamples on which a figure with an interval may be undefined."""
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """An estimate, such as an AUROC, and its confidence interval; unknown values are NaN.

    Attributes:
        note: Reason why the figure is undefined or has no interval, or a remark; may be empty.
    """

    estimate: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    note: str = ""

    @classmethod
    def from_share(cls, share: float, trials: float, level: float = LEVEL) -> Self:
        """Compute the exact binomial confidence interval of an observed share.

        The number of independent `trials`, above 0, need not be whole.

        Source:
            Clopper and Pearson 1934.

        Examples:
            >>> exact = Interval.from_share(0.9, 20)
            >>> round(exact.ci_low, 3), round(exact.ci_high, 3)
            (0.683, 0.988)
        """
        hits = share * trials
        misses = (1 - share) * trials
        tail = (1 - level) / 2
        inverse = scipy.special.betaincinv
        low = inverse(hits, misses + 1, tail) if hits > 0 else 0.0
        high = inverse(hits + 1, misses, 1 - tail) if misses > 0 else 1.0
        return cls(share, float(low), float(high))

    @classmethod
    def from_row(cls, row: Any) -> Self:
        """Read an estimate and its interval from a row of a table of figures.

        The row has the keys ``ci_low``, ``estimate``, ``ci_high`` and perhaps ``note``; missing
        numbers become NaN.
        """
        low, estimate, high = (
            math.nan if pd.isna(row[name]) else float(row[name])
            for name in ("ci_low", "estimate", "ci_high")
        )
        note = row.get("note")
        return cls(estimate, low, high, note if isinstance(note, str) else "")

    @property
    def known(self) -> bool:
        """True if the estimate is a number, False if it is NaN."""
        return not math.isnan(self.estimate)

    @property
    def bounded(self) -> bool:
        """True if there is an interval, so that `ci_low` and `ci_high` are numbers."""
        return not (math.isnan(self.ci_low) or math.isnan(self.ci_high))

    @property
    def excludes_zero(self) -> bool:
        """True if the interval excludes 0, as its printed ends do.

        An interval that lies on the other side of 0 than its estimate does not exclude 0.
        """
        if not (self.known and self.bounded):
            return False
        return min(self.ci_low, self.estimate) >= ZERO or max(self.ci_high, self.estimate) <= -ZERO

    def to_dict(self) -> dict[str, float | None]:
        """Return estimate and interval as a dictionary for JSON, with None instead of NaN.

        Examples:
            >>> Interval(0.8).to_dict()
            {'estimate': 0.8, 'ci_low': None, 'ci_high': None}
        """
        ends = {"estimate": self.estimate, "ci_low": self.ci_low, "ci_high": self.ci_high}
        return {name: float(end) if math.isfinite(end) else None for name, end in ends.items()}

    def reversed(self) -> Self:
        """Return a difference and its interval with the opposite sign: second minus first.

        Examples:
            >>> Interval(0.1, -0.2, 0.3).reversed()
            Interval(estimate=-0.1, ci_low=-0.3, ci_high=0.2, note='')
        """
        return replace(self, estimate=-self.estimate, ci_low=-self.ci_high, ci_high=-self.ci_low)


def percentile_interval(
    replicates: Floats, level: float = LEVEL, *, estimate: float = math.nan
) -> Interval:
    """Compute the percentile interval of an estimate from its bootstrap replicates, shape ``(R,)``.

    There is no interval, and a note says why, if more than 10 % of the replicates are undefined
    (NaN), if the interval would exclude the estimate, or if the interval would have no width. If
    every resample gives the same value, the bootstrap cannot say how uncertain the estimate is.

    Source:
        Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.

    Examples:
        >>> interval = percentile_interval(np.linspace(0.0, 1.0, 41), estimate=0.5)
        >>> round(interval.ci_low, 3), round(interval.ci_high, 3)
        (0.025, 0.975)
        >>> percentile_interval(np.ones(40), estimate=1.0).note
        'no interval: resampling the patients does not change the value'
    """
    defined = replicates[~np.isnan(replicates)]
    size, count = len(replicates), len(replicates) - len(defined)
    note = f"undefined in {count} of {size} resamples" if count else ""
    if not len(defined) or count > MOST_UNDEFINED * size:
        return Interval(estimate, note=note)
    tail = round((1 - level) / 2, 12)  # 0.025, and not 0.025000000000000022
    low, high = map(float, np.quantile(defined, [tail, 1 - tail]))
    if low == high:
        return Interval(estimate, note=NO_WIDTH)
    if estimate < low - _ROUNDING or estimate > high + _ROUNDING:
        # An example is the average precision of few lesions, which is higher on resamples.
        return Interval(
            estimate,
            note=f"no interval: resampling itself shifts this figure (middle {100 * level:.4g} % "
            f"of resamples: {low:.3f} to {high:.3f})",
        )
    return Interval(estimate, low, high, f"{note}, left out" if note else "")


def expanded_level(level: float, patients: float | None) -> float:
    """Widen the level of a bootstrap percentile interval to correct for a small number of patients.

    The variance of resamples of n patients is too small by the factor (n - 1) / n, and their tails
    are those of the normal distribution instead of Student's t. Percentiles further out correct
    both. `patients` is the effective number; None or at most 1 leaves the level as it is.

    Source:
        Hesterberg 2015, "What teachers should know about the bootstrap", expanded percentiles.

    Examples:
        >>> round(expanded_level(0.95, 20), 4), expanded_level(0.95, None)
        (0.9682, 0.95)
    """
    if patients is None or not patients > 1:
        return level
    t = scipy.special.stdtrit(patients - 1, (1 + level) / 2)
    reach = math.sqrt(patients / (patients - 1)) * t
    return float(1 - 2 * scipy.special.ndtr(-reach))


def interval_text(interval: Interval) -> str:
    """Format both ends of an interval, such as ``0.100 to 0.200``; empty without an interval."""
    return range_text(interval.ci_low, interval.ci_high) if interval.bounded else ""
