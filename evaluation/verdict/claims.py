"""Claims: differences of two systems in one figure, each with the interval that decides it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pandas as pd

from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval

CHANCE = 0.5
"""AUROC of a system whose scores are random."""
_ROUNDING = 1e-9
Family = Literal["answer", "joint", "findings"]
"""Claims of one family are corrected together: the answer, the joint system, all others."""
AtLevel = Callable[[str, str, str, str, float], tuple[float, float]]
"""Function from both systems, metric, policy and level to the interval of their difference."""


def family_level(comparisons: int) -> float:
    """Return the level at which several intervals together hold with 95 % (Bonferroni)."""
    return 1 - (1 - LEVEL) / max(comparisons, 1)


@dataclass(frozen=True, eq=False)
class Lookup:
    """Figures and differences of a table by their names, with intervals of any level."""

    figures: pd.DataFrame
    at_level: AtLevel
    _rows: dict[tuple[str, str, str, str], Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Index the rows once."""
        rows = {
            (row["first"], row["second"], row["metric"], row["policy"]): row
            for row in self.figures.to_dict("records")
        }
        object.__setattr__(self, "_rows", rows)

    def get(self, system: str, metric: str, policy: str = "") -> Interval:
        """Return a figure of a system; NaN if there is none."""
        row = self._rows.get((system, "", metric, policy))
        return Interval() if row is None else Interval.from_row(row)

    def count(self, system: str, metric: str, policy: str = "") -> int:
        """Return the number of images on which a figure rests."""
        row = self._rows.get((system, "", metric, policy))
        return 0 if row is None or pd.isna(row["n_images"]) else int(row["n_images"])

    def difference(self, first: str, second: str, metric: str, policy: str = "") -> Interval:
        """Return the difference of two systems, first minus second, however it is stored."""
        row = self._rows.get((first, second, metric, policy))
        if row is not None:
            return Interval.from_row(row)
        row = self._rows.get((second, first, metric, policy))
        return Interval() if row is None else Interval.from_row(row).reversed()

    def at(
        self, first: str, second: str, metric: str, policy: str, level: float
    ) -> tuple[float, float]:
        """Return the interval of a difference at a level, first minus second."""
        if (first, second, metric, policy) in self._rows:
            return self.at_level(first, second, metric, policy, level)
        low, high = self.at_level(second, first, metric, policy, level)
        return -high, -low


def against_chance(auroc: Interval) -> Literal["above", "below", "open", "unknown"]:
    """Return whether the interval of an AUROC shows a system to be better or worse than chance."""
    if not auroc.bounded:
        return "unknown"
    if auroc.ci_low > CHANCE:
        return "above"
    return "below" if auroc.ci_high < CHANCE else "open"


@dataclass(frozen=True)
class Claim:
    """Difference of two systems in one figure; it is shown if its interval excludes 0.

    `difference` is that of the first minus the second system, with the interval that it has among
    `comparisons` claims of its family.
    """

    family: Family
    first: str
    second: str
    metric: str
    policy: str
    values: tuple[float, float]
    difference: Interval
    comparisons: int = 1

    @classmethod
    def of(
        cls, family: Family, figures: Lookup, first: str, second: str, key: tuple[str, str]
    ) -> Claim:
        """Make the claim about two systems in one figure, as a single comparison."""
        values = figures.get(first, *key).estimate, figures.get(second, *key).estimate
        return cls(family, first, second, *key, values, figures.difference(first, second, *key))

    @property
    def tested(self) -> bool:
        """True if the difference has an interval."""
        return self.difference.bounded

    @property
    def equal(self) -> bool:
        """True if both systems have the same figure."""
        first, second = self.values
        return abs(first - second) < _ROUNDING

    @property
    def higher(self) -> str:
        """System that was shown to have the higher figure; empty if no difference was shown."""
        if not self.difference.excludes_zero:
            return ""
        return self.first if self.difference.estimate > 0 else self.second

    @property
    def falling(self) -> Claim:
        """The same difference, with the system of the higher figure first."""
        first, second = self.values
        if self.equal or first >= second:
            return self
        return replace(
            self,
            first=self.second,
            second=self.first,
            values=(second, first),
            difference=self.difference.reversed(),
        )

    def among(self, comparisons: int, figures: Lookup) -> Claim:
        """Return the claim with the interval that it has among several comparisons."""
        if comparisons == 1 or not self.tested:
            return replace(self, comparisons=comparisons)
        key = (self.first, self.second, self.metric, self.policy)
        low, high = figures.at(*key, family_level(comparisons))
        wider = replace(self.difference, ci_low=low, ci_high=high)
        return replace(self, difference=wider, comparisons=comparisons)

    def to_dict(self) -> dict[str, Any]:
        """Return the claim for ``answer.json``."""
        return {
            "family": self.family,
            "first": self.first,
            "second": self.second,
            "metric": self.metric,
            "policy": self.policy,
            **self.difference.to_dict(),
            "level": family_level(self.comparisons),
            "higher": self.higher or None,
        }


def decide_together(claims: Sequence[Claim], figures: Lookup) -> list[Claim]:
    """Widen the intervals of claims by Holm's method for their number; the order stays.

    With 95 % probability no claim is shown falsely. Claims without an interval are not counted.
    """
    decided = list(claims)
    still_open = [place for place, claim in enumerate(claims) if claim.tested]
    while still_open:
        for place in still_open:
            decided[place] = claims[place].among(len(still_open), figures)
        remaining = [place for place in still_open if not decided[place].higher]
        if len(remaining) == len(still_open):
            break
        still_open = remaining
    return decided
