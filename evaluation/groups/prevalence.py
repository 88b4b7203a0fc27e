"""Prevalence of the disease at the place of use of a system, with its uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.intervals import Interval

_TAILS = [0.025, 0.975]


@dataclass(frozen=True)
class Prevalence:
    """Share of positive images where a system will be used, with its 95 % interval.

    Attributes:
        text: The share as the user wrote it, such as ``0.05:0.03-0.08``.
        value: The share, in (0, 1).
        low: Lower end of the 95 % interval; equal to `value` if the share is taken as known.
        high: Upper end of the 95 % interval; equal to `value` if the share is taken as known.
    """

    text: str
    value: float
    low: float
    high: float

    @classmethod
    def parse(cls, text: str | float) -> Prevalence:
        """Read a prevalence from a text or a number.

        It is a share such as ``0.05``, which is taken as known; a share with its 95 % interval such
        as ``0.05:0.03-0.08``; or counts such as ``12/240``, for which the interval of Clopper and
        Pearson is computed. InputError for any other form, or a number outside (0, 1).
        """
        share, _, interval = str(text).partition(":")
        count, _, size = share.partition("/")
        try:
            value = float(count) / float(size or 1)
            low = value
            high = value
            if interval:
                low, high = map(float, interval.split("-"))
            if size:
                positives = float(count)
                negatives = float(size) - positives
                low, high = scipy.special.betaincinv(
                    [positives, positives + 1], [negatives + 1, negatives], _TAILS
                )
        except (ValueError, ZeroDivisionError):
            value = low = high = np.nan
        if (size and interval) or not 0 < low <= value <= high < 1:
            raise InputError(
                f"--prevalence {text}: must lie above 0 and below 1: 0.05, with its 95 % interval "
                "0.05:0.03-0.08, or counts 12/240"
            )
        return cls(str(text), value, float(low), float(high))

    def widen(self, ends: tuple[float, float], centre: float, *, rises: bool) -> Interval:
        """Add the uncertainty of the prevalence to the interval of a predictive value.

        On the logit scale a predictive value is the logit of the prevalence (or minus it) plus a
        value that does not depend on it, so the two uncertainties add up by MOVER. `ends` is the
        95 % interval at the prevalence `value`, computed from `centre`; `rises` is True if the
        predictive value rises with the prevalence.

        Source:
            Zou and Donner 2008 (MOVER).
        """
        middle, low, high = scipy.special.logit([centre, *ends])
        value, least, most = scipy.special.logit([self.value, self.low, self.high])
        below, above = value - least, most - value
        if not rises:
            below, above = above, below
        reach = np.hypot(middle - low, below), np.hypot(high - middle, above)
        new_low, new_high = scipy.special.expit([middle - reach[0], middle + reach[1]])
        return Interval(centre, float(new_low), float(new_high))

    def like(self, figures: Floats) -> Floats:
        """Draw a random prevalence for each bootstrap replicate of a figure, shape ``(R,)``.

        The prevalences are normally distributed on the logit scale, with the 2.5th and the 97.5th
        percentile at the ends of the 95 % interval. The random seed is fixed. A scalar gets the
        prevalence without drawing.
        """
        if not np.ndim(figures):
            return np.asarray(self.value)
        normal = np.random.default_rng([0, 2]).standard_normal(np.shape(figures))
        low, middle, high = scipy.special.logit([self.low, self.value, self.high])
        reach = np.where(normal < 0, middle - low, high - middle) / scipy.special.ndtri(_TAILS[1])
        return np.asarray(scipy.special.expit(middle + normal * reach))
