"""Test patients that a study needs, to show a difference of two AUROCs or to measure one.

The scores are assumed binormal: normal with variance 1 in both classes, and higher by
``sqrt(2) probit(AUROC)`` on average in positive images. The covariance of the empirical AUROCs is
exact (Hoeffding 1948; Drezner and Wesolowsky 1990 for the bivariate normal distribution).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy  # its parts load when they are first used

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.intervals import LEVEL

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_MOST_PATIENTS = 100_000_000
_STEP = 1e-3
"""Step of an AUROC A for a derivative, as a multiple of A (1 - A)."""


@dataclass(frozen=True)
class Assumptions:
    """Assumptions about a study.

    `aurocs` are those of one system or of the two to compare; `correlation` is that of their scores
    of an image within a class, `within` that of one system's scores of two images of a patient.
    """

    aurocs: tuple[float, ...]
    prevalence: float
    correlation: float = 0.5
    images: int = 1
    within: float = 0.5

    def __post_init__(self) -> None:
        shares = {"auroc": self.aurocs, "prevalence": (self.prevalence,)}
        for name, values in shares.items():
            if not all(0 < value < 1 for value in values) or not 1 <= len(values) <= 2:
                text = ",".join(f"{value:g}" for value in values)
                raise InputError(
                    f"{name}: {text}; give a value between 0 and 1 (two AUROCs at most)"
                )
        for name, value in (("correlation", self.correlation), ("within", self.within)):
            if not 0 <= value < 1:
                raise InputError(f"{name}: {value:g}; give a value from 0 to below 1")
        if self.images < 1:
            raise InputError(f"images: {self.images}; give at least 1")

    def study(self, patients: int) -> PlannedStudy:
        """Compute the precision of a study with so many patients, two or more of each class."""
        positives = min(max(round(patients * self.prevalence), 2), patients - 2)
        counts = np.array([positives, patients - positives], dtype=np.float64)
        covariance = self._covariance(*counts)
        contrast = np.array([1.0, -1.0][: len(self.aurocs)])
        if self.aurocs[0] < self.aurocs[-1]:  # the higher minus the lower one
            contrast = -contrast
        freedom = (1 / counts).sum() ** 2 / (1 / (counts**2 * (counts - 1))).sum()
        if len(self.aurocs) == 2 and self.images > 1:
            freedom *= 2 / 3  # that of the spread of contributions, if these are normal
        rise = self._rise_of_variance(counts, contrast)
        return PlannedStudy(
            patients,
            positives,
            error=float(np.sqrt(contrast @ covariance @ contrast)),
            freedom=float(np.clip(freedom, 1.0, 1e6)),
            aurocs=self.aurocs,
            covariance=covariance,
            with_variance=float(rise @ covariance @ contrast),
            of_variance=float(rise @ covariance @ rise),
        )

    def _rise_of_variance(self, counts: Floats, contrast: Floats) -> Floats:
        """Return how much the variance of the difference rises with each AUROC."""

        def variance(number: int, step: float) -> float:
            moved = [*self.aurocs]
            moved[number] += step
            return float(
                contrast @ replace(self, aurocs=tuple(moved))._covariance(*counts) @ contrast
            )

        steps = [_STEP * auroc * (1 - auroc) for auroc in self.aurocs]
        rises = [variance(k, h) - variance(k, -h) for k, h in enumerate(steps)]
        return np.array(rises) / (2 * np.array(steps))

    def _covariance(self, positives: float, negatives: float) -> Floats:
        heights = scipy.special.ndtri(np.asarray(self.aurocs))
        pairs = _pairings(positives, self.images)[:, None] * _pairings(negatives, self.images)
        covariance = np.empty((len(heights), len(heights)))
        for i, first in enumerate(heights):
            for k, second in enumerate(heights):
                same_image = 1.0 if i == k else self.correlation
                alike = np.array([same_image, same_image * self.within, 0.0])
                joint = _both_below(first, second, (alike[:, None] + alike) / 2)
                alone = scipy.special.ndtr(first) * scipy.special.ndtr(second)
                covariance[i, k] = (pairs * (joint - alone)).sum()
        return covariance


@dataclass(frozen=True)
class PlannedStudy:
    """Patients of a planned study, and the precision of its result.

    `covariance` is that of the estimated AUROCs, ``(systems, systems)``. `with_variance` is the
    covariance of the estimated difference with its estimated variance, which depends on the
    estimated AUROCs; `of_variance` is the variance of that variance.
    """

    patients: int
    positives: int
    error: float
    freedom: float
    aurocs: tuple[float, ...]
    covariance: Floats
    with_variance: float = 0.0
    of_variance: float = 0.0

    def power(self, difference: float) -> float:
        """Return the probability that the two-sided t test shows a true difference.

        Where the lower of two AUROCs comes out still lower, the difference is larger, but so is its
        estimated variance. The quotient, t, therefore varies less than a noncentral t, by the
        factor `spread` (delta method).
        """
        share = difference / (2 * self.error**2)
        variance = self.error**2 - 2 * share * self.with_variance + share**2 * self.of_variance
        spread = float(np.sqrt(variance)) / self.error
        reach = float(scipy.special.stdtrit(self.freedom, (1 + LEVEL) / 2)) / spread
        effect = difference / self.error / spread
        upper = scipy.special.nctdtr(self.freedom, effect, reach)
        return float(1 - upper + np.nan_to_num(scipy.special.nctdtr(self.freedom, effect, -reach)))

    def power_within(self, margin: float) -> float:
        """Return the probability that the second system is shown not to be worse by more.

        The interval is that of `clustered_auroc.margin_interval`: the variance at its end is that
        of AUROCs which differ by the margin.
        """
        contrast = np.array([1.0, -1.0])
        aurocs = np.array(self.aurocs)
        distance = margin - float(contrast @ aurocs)
        variance = float(contrast @ self.covariance @ contrast)
        moved = np.clip(aurocs + self.covariance @ contrast * distance / variance, 0, 1)
        scaled = contrast * moved * (1 - moved) / (aurocs * (1 - aurocs))
        at_end = max(float(scaled @ self.covariance @ scaled), variance)
        reach = float(scipy.special.stdtrit(self.freedom, (1 + LEVEL) / 2))
        reach *= float(np.sqrt(at_end / variance))
        effect = distance / float(np.sqrt(variance))
        return float(1 - scipy.special.nctdtr(self.freedom, effect, reach))

    def half_width(self, *, of_difference: bool) -> float:
        """Return half of the interval of a difference, or of one AUROC on the logit."""
        reach = float(scipy.special.stdtrit(self.freedom, (1 + LEVEL) / 2)) * self.error
        if of_difference:
            return reach
        auroc = self.aurocs[0]
        slope = auroc * (1 - auroc)
        middle = scipy.special.logit(auroc)
        low, high = scipy.special.expit([middle - reach / slope, middle + reach / slope])
        return float(high - low) / 2


def fewest(assumed: Assumptions, enough: Callable[[PlannedStudy], bool]) -> PlannedStudy:
    """Return the smallest study that fulfils a condition, which all larger ones fulfil too."""
    low, high = 3, 4
    while not enough(assumed.study(high)):
        low, high = high, 2 * high
        if high > _MOST_PATIENTS:
            raise InputError("plan: not even 100,000,000 patients are enough")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(assumed.study(middle)) else (middle, high)
    return assumed.study(high)


def _pairings(patients: float, images: int) -> Floats:
    """Return the shares of pairs of images: one image, one patient, two patients."""
    total = (patients * images) ** 2
    same_patient = patients * (images**2 - images)
    return np.array([patients * images, same_patient, total - patients * images**2]) / total


def _both_below(h: float, k: float, correlation: Floats) -> Floats:
    """Compute P(X < h and Y < k) for standard normal X and Y with a correlation."""
    angle = np.arcsin(correlation)[..., None]
    nodes = angle * (_NODES + 1) / 2
    density = np.exp(-(h * h + k * k - 2 * h * k * np.sin(nodes)) / (2 * np.cos(nodes) ** 2))
    added = (density * _WEIGHTS).sum(axis=-1) * angle[..., 0] / (4 * np.pi)
    return np.asarray(scipy.special.ndtr(h) * scipy.special.ndtr(k) + added)
