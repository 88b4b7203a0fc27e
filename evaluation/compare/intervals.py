"""Look up estimates with their intervals in the tidy metrics table."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from evaluation.metrics.words import number

ALL = "all"
"""The subgroup of all images."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval; all NaN where the figure is undefined.

    Args:
        estimate: The figure.
        low: Lower end.
        high: Upper end.
        note: Why it is undefined, or what to know about it.
    """

    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    note: str = ""

    @property
    def known(self) -> bool:
        """Whether there is an estimate."""
        return not math.isnan(self.estimate)

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return self.known and not (math.isnan(self.low) or math.isnan(self.high))

    @property
    def excludes_zero(self) -> bool:
        """Whether estimate and interval lie on one side of 0, also as they are printed.

        An end that rounds to 0.000 does not exclude 0: no claim hangs on a digit that nobody sees.
        Nor is anything claimed where a percentile interval leaves its estimate on the other side.

        Example:
            >>> Interval(0.2, 0.1, 0.3).excludes_zero, Interval(0.1, 4e-4, 0.2).excludes_zero
            (True, False)
        """
        if not self.bounded:
            return False
        low, estimate, high = (round(each, 3) for each in (self.low, self.estimate, self.high))
        return min(low, estimate) > 0 or max(high, estimate) < 0

    @property
    def ends(self) -> str:
        """Both ends in words.

        Example:
            >>> Interval(0.0, -0.1, 0.1).ends
            '−0.100 to 0.100'
        """
        return f"{number(self.low)} to {number(self.high)}" if self.bounded else ""

    def reversed(self) -> Interval:
        """Return the same difference, taken the other way round."""
        return Interval(-self.estimate, -self.high, -self.low, self.note)


def find_interval(
    metrics: pd.DataFrame, system: str, metric: str, policy: str = "", *, subgroup: str = ALL
) -> Interval:
    """Return one figure; an absent row gives an undefined one.

    Args:
        metrics: The tidy table; a missing policy or subgroup means none.
        system: A system, or a difference ``A - B``.
        metric: Short name.
        policy: Threshold policy, "" for figures without a threshold.
        subgroup: On which images.
    """
    chosen = (metrics["system"] == system) & (metrics["metric"] == metric)
    for place in np.flatnonzero(chosen.to_numpy(dtype=bool)).tolist():  # few
        at = {name: metrics[name].iat[place] for name in ("subgroup", "policy")}
        if (_text(at["subgroup"]) or ALL, _text(at["policy"])) == (subgroup, policy):
            estimate, low, high = (
                _figure(metrics[name].iat[place]) for name in ("estimate", "ci_low", "ci_high")
            )
            note = metrics["note"].iat[place] if "note" in metrics else ""
            return Interval(estimate, low, high, _text(note))
    return Interval()


def find_difference(
    metrics: pd.DataFrame,
    first: str,
    second: str,
    metric: str,
    policy: str = "",
    *,
    subgroup: str = ALL,
) -> Interval:
    """Return the paired difference first - second, whichever way round it is stored."""
    stored = find_interval(metrics, f"{first} - {second}", metric, policy, subgroup=subgroup)
    if stored.known or stored.note:
        return stored
    other = f"{second} - {first}"
    return find_interval(metrics, other, metric, policy, subgroup=subgroup).reversed()


def rows_of(metrics: pd.DataFrame, subgroup: str = ALL) -> pd.DataFrame:
    """Return the rows of a subgroup ("" counts as all images), with "" for a missing policy."""
    rows = metrics[metrics["subgroup"].fillna("").replace("", ALL) == subgroup]
    return rows.assign(policy=rows["policy"].fillna(""))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _figure(value: object) -> float:
    return math.nan if value is None or pd.isna(value) else float(value)  # type: ignore[arg-type, call-overload]
