"""The figures and tests behind a verdict, looked up by the question that decides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from evaluation.compare.intervals import ALL, Interval, find_difference, find_interval

if TYPE_CHECKING:
    from evaluation.compare.protocol import Protocol


@dataclass(frozen=True)
class Question:
    """A comparison's figures and tests, and the figure that decides.

    Attributes:
        metrics: The tidy table.
        tests: From `evaluation.compare.paired_tests.paired_tests`; `None` or empty where there are none.
        protocol: Names the primary figure.
        many: Whether more than two systems are compared.
    """

    metrics: pd.DataFrame
    tests: pd.DataFrame | None
    protocol: Protocol
    many: bool

    @property
    def tested(self) -> bool:
        """Whether there are tests."""
        return self.tests is not None and len(self.tests) > 0

    def score(self, name: str) -> Interval:
        """A system's primary figure."""
        return find_interval(self.metrics, name, self.protocol.metric, self.protocol.policy)

    def difference(self, first: str, second: str) -> Interval:
        """The paired difference of the primary figure."""
        primary = self.protocol.metric, self.protocol.policy
        return find_difference(self.metrics, first, second, *primary)

    def p_value(
        self, first: str, second: str, key: tuple[str, str], *, all_pairs: bool = False
    ) -> float | None:
        """Holm's p-value, where several systems are compared and it is known.

        Args:
            first: A system.
            second: Another.
            key: Metric and policy.
            all_pairs: Over all pairs, as for the best of several, which the figures chose; else
                over the contrasts with the reference system.
        """
        column = "p_holm_pairs" if all_pairs else "p_holm"
        return self._tested(first, second, key, column) if self.many else None

    def simultaneous(self, first: str, second: str) -> Interval:
        """The difference of the primary figure, its interval for all contrasts at once.

        Returns:
            By the method that the table's own interval is of; no interval where there is none
            for several contrasts.
        """
        plain = self.difference(first, second)
        if not self.many or not plain.bounded:
            return plain
        for turned in (False, True):
            gap = plain.reversed() if turned else plain
            pair = (second, first) if turned else (first, second)
            rows = self._rows(*pair, (self.protocol.metric, self.protocol.policy))
            for row in rows.to_dict("records"):
                if (row["ci_low"], row["ci_high"]) == (gap.low, gap.high):
                    wide = replace(gap, low=row["ci_low_all"], high=row["ci_high_all"])
                    return wide.reversed() if turned else wide
        return replace(plain, low=math.nan, high=math.nan)

    def detectable(self, first: str, second: str) -> float | None:
        """The smallest difference of the primary figure that the test set could have shown."""
        primary = self.protocol.metric, self.protocol.policy
        return self._tested(first, second, primary, "detectable")

    def _tested(self, first: str, second: str, key: tuple[str, str], column: str) -> float | None:
        rows = pd.concat([self._rows(first, second, key), self._rows(second, first, key)])
        values = rows[column].dropna() if column in rows else rows.index[:0]
        return float(np.asarray(values)[0]) if len(values) else None

    def _rows(self, first: str, second: str, key: tuple[str, str]) -> pd.DataFrame:
        """Tests of a pair on all images, by patient; those of a figure's own test come first."""
        table = self.tests
        if table is None or table.empty:
            return pd.DataFrame()
        of = (table["first"] == first) & (table["second"] == second)
        of &= (table["metric"] == key[0]) & (table["policy"] == key[1])
        of &= (table["subgroup"] == ALL) & (table["independent"] == "patients")
        return table[of]
