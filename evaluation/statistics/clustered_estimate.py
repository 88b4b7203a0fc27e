"""A figure with a standard error over patients or readers, and what follows from the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy  # whose parts load when they are first used

from cxr_compare.data_prep.contracts.notebook import html_table
from cxr_compare.evaluation.statistics.figure_text import (
    number,
    p_equation,
    p_value_text,
    range_text,
)
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval

_POWER = 0.8


@dataclass(frozen=True)
class ClusteredEstimate:
    """A figure or a difference, its standard error, and what follows from the two.

    It prints its value, its 95 % interval and, of a difference, the p-value of no difference.
    """

    value: float  # the estimate
    error: float | None  # standard error; `None` where there is none
    freedom: float = np.inf  # degrees of freedom of its t distribution; infinite: the normal one
    # Whether the figure lies in [0, 1]; its interval is then taken on the logit.
    bounded: bool = False
    note: str = ""  # why there is no standard error
    # Of the rarer class (`clustered_tests`); `None` where unknown.
    effective_patients: float | None = None
    # Of an AUROC: pairs of a positive and a negative patient, no patient in two pairs, and no more
    # than the effective patients of the rarer class. Its interval reaches no further than the exact
    # one of so many trials, which it is at 0 and 1.
    trials: float = 0
    span: float = 1.0  # a figure that is not bounded lies between minus this and this
    # Parts of the variance that are mean squares, each with its degrees of freedom.
    squares: tuple[tuple[float, float], ...] = ()
    method: str = field(default="", compare=False)  # what gave it, in words

    def __repr__(self) -> str:
        ends = self.interval
        span = f"95 % CI {range_text(*ends)}" if ends else self.note or "no interval"
        p_value = "" if self.bounded or self.p_value is None else f", {p_equation(self.p_value)}"
        method = f"; {self.method}" if self.method else ""
        return f"{number(self.value)} ({span}){p_value}{method}"

    def _repr_html_(self) -> str:
        low, high = self.interval or (None, None)
        rows = {
            "AUROC" if self.bounded else "Difference": number(self.value),
            "95 % CI": range_text(low, high),
            "p": "" if self.bounded else p_value_text(self.p_value),
            "Method": self.method,
            "Note": self.note,
        }
        return html_table({name: text for name, text in rows.items() if text})

    @property
    def exact(self) -> bool:
        """Whether the interval is the exact one of an AUROC of 0 or 1."""
        return self.bounded and self.value in (0.0, 1.0) and self.trials > 1

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; on the logit for an AUROC, so that it stays inside [0, 1]."""
        return self.interval_at(LEVEL)

    def interval_at(self, level: float) -> tuple[float, float] | None:
        """As `interval`, with another coverage."""
        if not self.error:
            return self._exact_interval(level) if self.exact else None
        reach = float(scipy.special.stdtrit(self.freedom, (1 + level) / 2)) * self.error
        if not self.bounded:
            return max(self.value - reach, -self.span), min(self.value + reach, self.span)
        exact = self._exact_interval(level)
        if not 0 < self.value < 1:
            return exact
        reach /= self.value * (1 - self.value)
        middle = scipy.special.logit(self.value)
        low, high = scipy.special.expit([middle - reach, middle + reach])
        ends = float(low), float(high)
        return ends if exact is None else (max(ends[0], exact[0]), min(ends[1], exact[1]))

    def cautious_interval_at(self, level: float) -> tuple[float, float]:
        """As `interval_at`, each part of the variance by its own t (Zou and Donner 2008)."""
        tail, squares = (1 + level) / 2, self.squares
        own = sum(scipy.special.stdtrit(df, tail) ** 2 * variance for variance, df in squares)
        over_cases = max((self.error or 0.0) ** 2 - sum(variance for variance, _ in squares), 0.0)
        reach = float(np.sqrt(own + scipy.special.ndtri(tail) ** 2 * over_cases))
        return self.value - reach, self.value + reach

    @property
    def as_interval(self) -> Interval:
        """The estimate with its 95 % interval."""
        return Interval(self.value, *(self.interval or (np.nan, np.nan)), note=self.note)

    def intervals_at(self, levels: Sequence[float]) -> tuple[tuple[float, float], ...]:
        """As `interval_at`, at several levels; empty without an interval."""
        return tuple(ends for level in levels if (ends := self.interval_at(level)) is not None)

    def _exact_interval(self, level: float) -> tuple[float, float] | None:
        """Clopper and Pearson's, of pairs of patients, in which each ranks rightly or wrongly."""
        if self.trials <= 1:
            return None
        exact = Interval.from_share(self.value, self.trials, level)
        return exact.low, exact.high

    @property
    def p_value(self) -> float | None:
        """Two-sided p-value of a difference of 0; `None` without a standard error."""
        if not self.error:
            return None
        return float(2 * scipy.special.stdtr(self.freedom, -abs(self.value) / self.error))

    @property
    def detectable(self) -> float | None:
        """The smallest true difference that 80 % of such test sets would show; see below.

        `None` where even the largest possible difference would not be shown so often.
        """
        if not self.error:
            return None
        reach = smallest_detectable(self.error, freedom=self.freedom)
        return reach if reach <= self.span else None


def smallest_detectable(error: float, freedom: float = np.inf) -> float:
    """The smallest true difference that a test set of this kind shows with a power of 80 %.

    ``(t[1 - alpha / 2] + t[power]) x standard error of the paired difference``, two-sided: the
    usual sample size formula, solved for the difference.
    """
    return float(scipy.special.stdtrit(freedom, [(1 + LEVEL) / 2, _POWER]).sum()) * error
