"""Look up estimates with their intervals in the tidy metrics table."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from evaluation.wording import number


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
        """Whether the whole interval lies on one side of 0; an end at 0 does not exclude it.

        Example:
            >>> Interval(0.2, 0.1, 0.3).excludes_zero, Interval(0.1, 0.0, 0.2).excludes_zero
            (True, False)
        """
        return self.bounded and (self.low > 0 or self.high < 0)

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


def find_interval(metrics: pd.DataFrame, system: str, metric: str, policy: str = "") -> Interval:
    """Return one figure over all images; an absent row gives an undefined one.

    Args:
        metrics: The tidy table; a missing policy or subgroup means none.
        system: A system, or a difference ``A - B``.
        metric: Short name.
        policy: Threshold policy, "" for figures without a threshold.
    """
    rows = whole_set(metrics)
    rows = rows[
        (rows["system"] == system) & (rows["metric"] == metric) & (rows["policy"] == policy)
    ]
    if rows.empty:
        return Interval()
    row = rows.iloc[0]
    figures = (_figure(row[name]) for name in ("estimate", "ci_low", "ci_high"))
    note = row.get("note")
    return Interval(*figures, note=note if isinstance(note, str) else "")


def find_difference(
    metrics: pd.DataFrame, first: str, second: str, metric: str, policy: str = ""
) -> Interval:
    """Return the paired difference first - second, whichever way round it is stored."""
    stored = find_interval(metrics, f"{first} - {second}", metric, policy)
    if stored.known or stored.note:
        return stored
    return find_interval(metrics, f"{second} - {first}", metric, policy).reversed()


def whole_set(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the rows on all images, with "" for a missing policy."""
    rows = metrics[metrics["subgroup"].fillna("").isin(["", "all"])]
    return rows.assign(policy=rows["policy"].fillna("").replace("none", ""))


def _figure(value: object) -> float:
    return math.nan if value is None or pd.isna(value) else float(value)  # type: ignore[arg-type, call-overload]
