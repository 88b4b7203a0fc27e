"""A figure with a standard error over patients, and its interval and p-value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.statistics.figure_text import number, p_equation, range_text
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval


@dataclass(frozen=True)
class ClusteredEstimate:
    """An estimate with its standard error, which allows for several images of a patient.

    The estimate is a metric, such as an AUROC, or a difference of two. The printed form has the
    value, the 95 % interval and, for a difference, the p-value of the hypothesis that there is no
    difference.

    Attributes:
        estimate: The estimate.
        error: Standard error of the estimate; None if it cannot be computed.
        freedom: Degrees of freedom of the t distribution; infinite for the normal distribution.
        bounded: True if the value is a metric in [0, 1]; its interval is then computed on the logit
            scale. False for a difference.
        note: Reason why there is no standard error; empty where there is one.
        trials: Number of independent trials behind an AUROC: the pairs of a positive and a negative
            patient in which no patient occurs twice, or the effective number of patients of the
            rarer class if that is smaller. The interval reaches no further than the exact interval
            of so many trials, and for an estimate of 0 or 1 equals it.
        missed: Value of a missed trial, or 1 minus that of a hit for an estimate below 0.5: 0 of a
            share, 0.5 of an AUROC whose missed images rank at chance.
        images: Effective numbers of positive and of negative images of an AUROC, whose interval
            contains Newcombe's interval of these numbers; None for all other figures.
        method: Name of the method that gave the estimate, such as "DeLong 1988, images taken as
            independent".

    Examples:
        >>> ClusteredEstimate(0.05, 0.02, freedom=60)
        0.050 (95 % CI 0.010 to 0.090), p = 0.015
    """

    estimate: float
    error: float | None
    freedom: float = np.inf
    bounded: bool = False
    note: str = ""
    trials: float = 0
    missed: float = 0.0
    images: tuple[float, float] | None = None
    method: str = field(default="", compare=False)

    def __repr__(self) -> str:
        interval = self.note or "no interval"
        if self.has_interval:
            interval = f"95 % CI {range_text(self.ci_low, self.ci_high)}"
        p_value = "" if self.bounded or self.p_value is None else f", {p_equation(self.p_value)}"
        method = f"; {self.method}" if self.method else ""
        return f"{number(self.estimate)} ({interval}){p_value}{method}"

    def to_row(self) -> dict[str, Any]:
        """Return interval, p-value of a difference, and note, by columns of a table of figures."""
        p_value = None if self.bounded else self.p_value
        return {
            "ci_low": self.ci_low,
            "ci_high": self.ci_high,
            "p_value": np.nan if p_value is None else p_value,
            "note": self.note,
        }

    @property
    def exact(self) -> bool:
        """True for an estimate of 0 or 1 with more than one trial; its interval is exact."""
        return self.bounded and self.estimate in (0.0, 1.0) and self.trials > 1

    @property
    def has_interval(self) -> bool:
        """True if there is a 95 % confidence interval, so that its ends are numbers."""
        return self.interval_at(LEVEL) is not None

    @property
    def ci_low(self) -> float:
        """Lower end of the 95 % confidence interval; NaN without one."""
        return (self.interval_at(LEVEL) or (np.nan, np.nan))[0]

    @property
    def ci_high(self) -> float:
        """Upper end of the 95 % confidence interval; NaN without one."""
        return (self.interval_at(LEVEL) or (np.nan, np.nan))[1]

    def interval_at(self, level: float) -> tuple[float, float] | None:
        """Compute the confidence interval of a coverage such as 0.95.

        None without a standard error. The interval of an AUROC is computed on the logit, so that it
        stays inside [0, 1].

        Examples:
            >>> low, high = ClusteredEstimate(0.9, 0.03, bounded=True).interval_at(0.9)
            >>> round(low, 3), round(high, 3)
            (0.839, 0.94)
        """
        # Without a spread, no error can be estimated, which does not mean that there is none.
        if not self.error or (self.bounded and self.estimate in (0.0, 1.0)):
            return self._exact_interval(level, self.missed) if self.exact else None
        reach = float(scipy.special.stdtrit(self.freedom, (1 + level) / 2)) * self.error
        if not self.bounded:
            return max(self.estimate - reach, -1.0), min(self.estimate + reach, 1.0)
        reach /= self.estimate * (1 - self.estimate)
        middle = scipy.special.logit(self.estimate)
        low, high = map(float, scipy.special.expit([middle - reach, middle + reach]))
        # Student's t of few patients can reach further than the exact interval of as many trials.
        least, greatest = self._exact_interval(level, self.missed)
        low, high = max(low, least), min(high, greatest)
        # The variance by ranks is too small where all of a few positive images happen to rank high.
        if self.images is not None:
            by_images = _newcombe_interval(self.estimate, *self.images, level)
            least, greatest = self._exact_interval(level, 0.0)
            low, high = min(low, max(by_images[0], least)), max(high, min(by_images[1], greatest))
        return low, high

    def _exact_interval(self, level: float, missed: float) -> tuple[float, float]:
        """Return the exact interval with `trials` pairs of patients; 0 to 1 with one or none."""
        if self.trials <= 1:
            return 0.0, 1.0
        most = 1 - missed
        if self.estimate < 1 / 2:
            exact = Interval.from_share(self.estimate / most, self.trials, level)
            return most * exact.ci_low, most * exact.ci_high
        exact = Interval.from_share(1 - (1 - self.estimate) / most, self.trials, level)
        return 1 - most * (1 - exact.ci_low), 1 - most * (1 - exact.ci_high)

    @property
    def p_value(self) -> float | None:
        """Two-sided p-value of the hypothesis that the true value is 0.

        None without a standard error.
        """
        if not self.error:
            return None
        return float(2 * scipy.special.stdtr(self.freedom, -abs(self.estimate) / self.error))


def _newcombe_interval(
    auroc: float, n_positive: float, n_negative: float, level: float
) -> tuple[float, float]:
    """Compute the interval of an AUROC strictly between 0 and 1 from the numbers of images alone.

    The variance is that of the end itself, as in Wilson's interval of a share. One that rests on
    the ranks of few positive images is too small where all of these happen to be high.

    Source:
        Newcombe 2006, "Confidence intervals for an effect size measure based on the Mann-Whitney
        statistic. Part 2", method 5.

    Examples:
        >>> low, high = _newcombe_interval(0.9, 10, 40, 0.95)
        >>> round(low, 3), round(high, 3)
        (0.723, 0.966)
    """
    reach = float(scipy.special.ndtri((1 + level) / 2))
    others = (n_positive + n_negative) / 2 - 1

    def beyond(end: float, value: float) -> float:
        """Return how much further `end` lies below `value` than the interval reaches."""
        variance = end * (1 - end) / (n_positive * n_negative)
        variance *= 1 + others * ((1 - end) / (2 - end) + end / (1 + end))
        return value - end - reach * math.sqrt(variance)

    low = scipy.optimize.brentq(beyond, 0.0, auroc, args=(auroc,))
    # The variance of an AUROC is that of 1 minus the AUROC.
    high = 1 - scipy.optimize.brentq(beyond, 0.0, 1 - auroc, args=(1 - auroc,))
    return float(low), float(high)
