"""Prevalence at the place of use, with its own uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats

_TAILS = [0.025, 0.975]


@dataclass(frozen=True)
class Prevalence:
    """Share of positives at the place of use, with its 95 % interval.

    Attributes:
        text: The prevalence as the user gave it.
        value: The share, in (0, 1).
        low: Lower end of its interval; the share itself if it counts as known.
        high: Upper end.
    """

    text: str
    value: float
    low: float
    high: float

    @classmethod
    def parse(cls, text: str | float) -> Prevalence:
        """Read a prevalence.

        Args:
            text: ``0.05``, taken as known; ``0.05:0.03-0.08`` with its interval; or counts such
                as ``12/240``, which get the interval of Clopper and Pearson.

        Raises:
            InputError: The text has none of these forms, or a number lies outside (0, 1).

        Example:
            >>> Prevalence.parse("0.05:0.03-0.08").high
            0.08
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

    def like(self, figures: Floats) -> Floats:
        """Draw a prevalence for each replicate of a figure, normal on the logit.

        Args:
            figures: Replicates of a figure, shape ``(R,)``, or the figure itself, a scalar.

        Returns:
            Prevalences of the same shape; the value itself for a scalar.
        """
        if not np.ndim(figures):
            return np.asarray(self.value)
        normal = np.random.default_rng([0, 2]).standard_normal(np.shape(figures))
        low, middle, high = scipy.special.logit([self.low, self.value, self.high])
        reach = np.where(normal < 0, middle - low, high - middle) / scipy.special.ndtri(_TAILS[1])
        return np.asarray(scipy.special.expit(middle + normal * reach))
