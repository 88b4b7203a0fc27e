"""Claims: differences of two systems in one figure, as the table of figures decides them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from cxr_compare.evaluation.statistics.clustered_auroc import CHANCE
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval

ROUNDING = 1e-9
"""Difference below which two figures are equal."""
NOT_EQUAL = "Not shown is not the same as equal."
"""Sentence that belongs to each difference that was tested and not shown."""
_KEYS = ("first", "second", "metric", "policy")
_READ = ("estimate", "ci_low", "ci_high", "note", "p_value", "p_holm", "n_images")
Family = Literal["answer", "joint", "places", "further"]
"""Kinds of claims: the question, the joint system, constant positions, and a further figure."""


class Lookup:
    """Figures and differences of a table by their names."""

    def __init__(self, figures: pd.DataFrame) -> None:
        keys = zip(*(figures[name] for name in _KEYS), strict=True)
        self._places = {key: row for row, key in enumerate(keys)}
        self._columns = {name: figures[name].tolist() for name in _READ}
        self._figures: dict[tuple[str, str, str], Interval] = {}

    def _row(self, first: str, second: str, metric: str, policy: str) -> dict[str, Any] | None:
        row = self._places.get((first, second, metric, policy))
        if row is None:
            return None
        return {name: column[row] for name, column in self._columns.items()}

    def get(self, system: str, metric: str, policy: str = "") -> Interval:
        """Return a figure of a system; NaN if there is none."""
        key = (system, metric, policy)
        if key not in self._figures:
            row = self._row(system, "", metric, policy)
            self._figures[key] = Interval() if row is None else Interval.from_row(row)
        return self._figures[key]

    def count(self, system: str, metric: str, policy: str = "") -> int:
        """Return the number of images on which a figure rests."""
        row = self._row(system, "", metric, policy)
        return 0 if row is None or pd.isna(row["n_images"]) else int(row["n_images"])

    def claim(
        self, family: Family, first: str, second: str, metric: str, policy: str = ""
    ) -> Claim:
        """Return the claim about two systems in one figure, first minus second."""
        one, other = self.get(first, metric, policy), self.get(second, metric, policy)
        values = one.estimate, other.estimate
        row = self._row(first, second, metric, policy)
        stored = row or self._row(second, first, metric, policy)
        if stored is None:
            return Claim(family, first, second, metric, policy, values, Interval())
        difference = Interval.from_row(stored)
        difference = difference if row else difference.reversed()
        p_values = float(stored["p_value"]), float(stored["p_holm"])
        return Claim(family, first, second, metric, policy, values, difference, *p_values)


def against_chance(auroc: Interval) -> Literal["above", "below", "open", "unknown"]:
    """Return whether the interval of an AUROC shows a system to be better or worse than chance.

    An AUROC of chance without an interval, as scores have that are all equal, shows neither.
    """
    if not auroc.bounded:
        return "open" if abs(auroc.estimate - CHANCE) < ROUNDING else "unknown"
    if auroc.ci_low > CHANCE:
        return "above"
    return "below" if auroc.ci_high < CHANCE else "open"


@dataclass(frozen=True)
class Claim:
    """Difference of two systems, first minus second, in one figure.

    It is shown if its p-value, corrected by Holm's method, is below 0.05 and its 95 % interval
    excludes 0.
    """

    family: Family
    first: str
    second: str
    metric: str
    policy: str
    values: tuple[float, float]
    difference: Interval
    p_value: float = float("nan")
    p_holm: float = float("nan")

    @property
    def tested(self) -> bool:
        """True if the difference has an interval and a p-value."""
        return self.difference.bounded and not pd.isna(self.p_holm)

    @property
    def equal(self) -> bool:
        """True if both systems have the same figure."""
        first, second = self.values
        return abs(first - second) < ROUNDING

    @property
    def higher(self) -> str:
        """System that was shown to have the higher figure; empty if no difference was shown."""
        if not (self.tested and self.p_holm < 1 - LEVEL and self.difference.excludes_zero):
            return ""
        return self.first if self.difference.estimate > 0 else self.second

    @property
    def falling(self) -> Claim:
        """Difference with the system of the higher figure first."""
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

    def to_dict(self) -> dict[str, Any]:
        """Return the claim for ``answer.json``."""
        return {
            "family": self.family,
            "first": self.first,
            "second": self.second,
            "metric": self.metric,
            "policy": self.policy,
            **self.difference.to_dict(),
            "p_value": None if pd.isna(self.p_value) else self.p_value,
            "p_holm": None if pd.isna(self.p_holm) else self.p_holm,
            "higher": self.higher or None,
        }
