"""Sample size: test patients needed to show a difference of two AUROCs, or to measure one AUROC.

The variance of a planned study comes from assumptions (AUROCs, correlation of the scores,
prevalence), by the binormal model, or from a pilot's predictions, whose variance shrinks with the
number of patients. Power is computed for the test of `auroc_difference`. This test uses Student's
t, so its power follows from the noncentral t distribution. Under assumptions, the degrees of
freedom are computed from the numbers of patients of both classes. A real test may have fewer
(`AurocParts.freedom`); simulated studies show that this widens intervals by a few percent where a
class has few patients.

With several trainings, the test of `auroc_over_seeds` is used. With few trainings the standard
error is itself uncertain, so power is the mean over the standard errors that the test may find.

Studies with readers (`CrossedPlan`) follow Hillis, Obuchowski and Berbaum 2011.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import scipy  # its parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.clustered_auroc import AurocParts
from cxr_compare.evaluation.statistics.intervals import LEVEL
from cxr_compare.evaluation.statistics.obuchowski_rockette import (
    FREEDOM_OF_A_CLAIM,
    Components,
)
from cxr_compare.evaluation.statistics.patient_images import IMAGE_NUMBERS, ImageNumbers
from cxr_compare.studies.plan.binormal import binormal_auroc_covariance

_MOST_PATIENTS = 100_000_000  # largest sample size that is searched
_FEWEST_PATIENTS = 4  # two of either class
_QUANTILES = 32  # number of quantiles of a mean square between trainings


class PossibleErrors(NamedTuple):
    """Standard errors that the test may find, all equally likely, with their degrees of freedom.

    They differ because the study will estimate its standard error from few readers or trainings.
    """

    errors: Floats
    freedom: Floats

    def reaches(self, level: float) -> Floats:
        """Return half the width of the confidence interval for each of the standard errors."""
        return np.asarray(scipy.special.stdtrit(self.freedom, (1 + level) / 2) * self.errors)


class CautiousErrors(NamedTuple):
    """Variances that a test with few readers may find in a planned study, all equally likely.

    The test is the cautious one, which stays valid with few readers
    (`ClusteredEstimate.cautious_interval_at`).

    Attributes:
        between: Possible values of the variance between readers (a mean square), shape
            ``(possibilities,)``.
        freedom: Degrees of freedom of this mean square.
        over_cases: Variance over cases (patients), which is taken as known.
    """

    between: Floats
    freedom: int
    over_cases: float

    def reaches(self, level: float) -> Floats:
        """Return half the width of the cautious interval for each of the possible variances."""
        tail = (1 + level) / 2
        squared = scipy.special.stdtrit(self.freedom, tail) ** 2 * self.between
        return np.asarray(np.sqrt(squared + scipy.special.ndtri(tail) ** 2 * self.over_cases))


@dataclass(frozen=True)
class PlannedStudy:
    """Number of patients of a planned study, and the precision that its result will have.

    The study estimates the AUROC of one system (model or way of reading), or the difference of two.

    Attributes:
        positives: Number of test patients with the disease.
        error: Expected standard error of the difference or of the AUROC.
        freedom: Degrees of freedom of the t test; infinite for the normal distribution.
        auroc: Expected AUROC if one system is measured; the interval is then computed on the logit
            scale. None if two systems are compared.
        possible_errors: Standard errors that the test may find, if they may differ much from
            `error`; None if the test will find one near `error`.

    Example:
        >>> study = PlannedStudy(1000, 300, error=0.01, freedom=np.inf)
        >>> round(study.power(0.028), 2), round(study.half_width(), 4)
        (0.8, 0.0196)
    """

    patients: int
    positives: int
    error: float
    freedom: float
    auroc: float | None = None
    possible_errors: PossibleErrors | CautiousErrors | None = None

    def power(self, difference: float, level: float = LEVEL) -> float:
        """Compute the probability that the study's two-sided test finds a true difference.

        The level is 1 minus the two-sided error of the test.
        """
        if self.possible_errors is None:
            return power_of_t(difference / self.error, self.freedom, level)
        reach = self._reaches(level)
        upper = scipy.special.ndtr((difference - reach) / self.error).mean()
        lower = scipy.special.ndtr((-difference - reach) / self.error).mean()
        return float(upper + lower)

    def _reaches(self, level: float) -> Floats:
        """Return half the width of the interval for each possible standard error."""
        possible = self.possible_errors
        if possible is None:
            possible = PossibleErrors(np.array([self.error]), np.array([self.freedom]))
        return possible.reaches(level)

    def half_width(self, level: float = LEVEL) -> float:
        """Compute half the width of the confidence interval that the study will have on average.

        About half of such studies have a wider interval.
        """
        reach = self._reaches(level)
        if self.auroc is None:
            return float(reach.mean())
        reach /= self.auroc * (1 - self.auroc)
        middle = scipy.special.logit(self.auroc)
        ends = scipy.special.expit([middle - reach, middle + reach])
        return float(np.diff(ends, axis=0).mean()) / 2


def power_of_t(effect: float, freedom: float, level: float = LEVEL) -> float:
    """Compute the power of a two-sided t test from both tails of the noncentral t distribution.

    `effect` is the true difference divided by its standard error; `freedom` is infinite for the
    normal distribution; `level` is 1 minus the two-sided error of the test.

    Source:
        Johnson, Kotz and Balakrishnan 1995, on the noncentral t distribution.

    Example:
        >>> round(power_of_t(2.8, np.inf), 2), round(power_of_t(2.8, 10.0), 2)
        (0.8, 0.71)
    """
    reach = float(scipy.special.stdtrit(freedom, (1 + level) / 2))
    if np.isinf(freedom) or freedom > 1e6:
        return float(scipy.special.ndtr(effect - reach) + scipy.special.ndtr(-effect - reach))
    upper = scipy.special.nctdtr(freedom, effect, reach)
    lower = scipy.special.nctdtr(freedom, effect, -reach)
    # SciPy gives NaN for the lower tail of some large effects, where it is below 1e-20.
    return float(1 - upper + np.nan_to_num(lower))


@dataclass(frozen=True)
class AssumedPlan:
    """Plan of a study of one or two systems (models), from assumed AUROCs instead of a pilot.

    The scores are assumed to be binormal, see `binormal_auroc_covariance`.

    Attributes:
        aurocs: True AUROC of each of the one or two systems.
        prevalence: Share of the patients that have the disease, in (0, 1).
        correlation: Correlation of the two systems' scores of the same image, among the images of
            one class.
        images: Number of images of each patient, or the name of a data set (``rsna`` or ``nih``)
            whose measured numbers are used.
        within: Correlation of one system's scores of two images of the same patient.
        seeds: Number of trainings of each system, with different random seeds. With one training,
            the result holds for that trained model only.
        seed_deviation: Standard deviation of a system's true AUROC between trainings.
        seed_correlation: Correlation of two trainings' scores of the same image, among the images
            of one class.

    Example:
        >>> plan = AssumedPlan((0.85, 0.80), prevalence=0.5, correlation=0.5)
        >>> first = fewest_patients(plan, lambda study: study.power(0.05) >= 0.8)
        >>> first.patients, first.positives
        (583, 292)
    """

    aurocs: tuple[float, ...]
    prevalence: float
    correlation: float = 0.0
    images: int | str = 1
    within: float = 0.0
    seeds: int = 1
    seed_deviation: float = 0.0
    seed_correlation: float = 1.0

    least = _FEWEST_PATIENTS
    """Fewest patients that can be planned."""

    def study(self, patients: int) -> PlannedStudy:
        """Compute the precision of the study with 4 patients or more, two or more of each class."""
        positives = min(max(round(patients * self.prevalence), 2), patients - 2)
        negatives = patients - positives
        if isinstance(self.images, int):
            numbers = ImageNumbers(self.images, self.images**2, 1.0)
        else:
            numbers = IMAGE_NUMBERS[self.images]
        covariance = partial(
            binormal_auroc_covariance,
            positives=positives,
            negatives=negatives,
            images=(numbers.mean, numbers.mean_square),
            within=self.within,
        )
        single = covariance(self.aurocs, correlation=self.correlation)
        contrast = np.array([1.0, -1.0][: len(self.aurocs)])
        over_patients = float(contrast @ single @ contrast)
        own_variances = [0.0] * len(self.aurocs)
        if self.seeds > 1:
            shared = [
                covariance((auroc, auroc), correlation=self.seed_correlation)[0, 1]
                for auroc in self.aurocs
            ]
            own_variances = (np.diagonal(single) - shared).tolist()
        counts = np.array([positives, negatives], dtype=np.float64)
        freedom = (1 / counts).sum() ** 2 / (1 / (counts**2 * (counts - 1))).sum()
        seeds = [_Seeds(self.seeds, own, self.seed_deviation**2) for own in own_variances]
        study = _with_seeds(
            patients,
            positives,
            over_patients - sum(own_variances),
            max(freedom / numbers.patients_per_freedom, 1.0),
            seeds,
        )
        return replace(study, auroc=self.aurocs[0] if len(self.aurocs) == 1 else None)


class VarianceRange(NamedTuple):
    """Confidence interval of a true variance, both ends divided by the estimated variance."""

    low: float
    high: float


class PilotPlan:
    """Plan of a study of one or two systems (models), with patients like those of a pilot study.

    For each system, `systems` has the AUROC of each of its trainings in the pilot study, from
    `auroc_parts`. Without `seeds` the planned study has as many trainings. Raises InputError if the
    AUROCs of the pilot study do not vary over patients, or several trainings are planned and the
    pilot study has only one.

    Attributes:
        value: In the pilot study, the AUROC of one system or the difference of two.
        patients: Number of patients in the pilot.
        positives: Number of patients in the pilot who have a positive image.
        images: Mean number of images per patient in the pilot.
        seeds: Number of trainings of each system in the planned study.
    """

    def __init__(
        self, systems: Sequence[Sequence[AurocParts]], seeds: Sequence[int] | None = None
    ) -> None:
        means = [AurocParts.mean(of_system) for of_system in systems]
        mean = means[0] if len(means) == 1 else means[0] - means[1]
        if mean.variance is None or mean.variance < 1e-24:
            raise InputError(
                "the pilot's figures do not vary over patients: it needs two patients of either "
                "class, and two systems whose rankings differ"
            )
        self.value = mean.value
        self.patients = int((mean.images.sum(axis=1) > 0).sum())
        self.positives = int((mean.images[:, 0] > 0).sum())
        self.images = float(mean.images.sum() / self.patients)
        pilot_seeds = [len(of_system) for of_system in systems]
        self.seeds = list(seeds) if seeds is not None else pilot_seeds
        self._freedom = mean.freedom
        self._variance = mean.variance
        self._scale = 1.0
        self._pilot = [_seeds_of_pilot(of_system) for of_system in systems]
        if any(n > 1 for n in self.seeds) and any(n == 1 for n in pilot_seeds):
            raise InputError(
                "how trainings differ cannot be seen in one training: give the pilot two or more "
                "seeds of each system (NAME=RUN,RUN), or plan for one"
            )

    def study(self, patients: int) -> PlannedStudy:
        """Compute the precision of the study with at least `least` patients.

        The share of positive patients is that of the pilot study.
        """
        share = self.patients / patients * self._scale
        # The variance that seeds share stays; each seed's own variance is divided by their number.
        own_in_pilot = sum(system.own / system.trainings for system in self._pilot)
        over_patients = max(self._variance - own_in_pilot, 0.0) * share
        seeds = [
            _Seeds(count, system.own * share, system.between)
            for count, system in zip(self.seeds, self._pilot, strict=True)
        ]
        over_patients += sum(system.own for system in seeds if system.trainings == 1)
        study = _with_seeds(
            patients,
            round(patients * self.positives / self.patients),
            over_patients,
            max(self._freedom * patients / self.patients, 1.0),
            seeds,
        )
        return replace(study, auroc=self.value if len(self.seeds) == 1 else None)

    @property
    def least(self) -> int:
        """Smallest number of patients for which the plan can be computed.

        The study must have two patients of either class.
        """
        return _with_two_of_a_class(self.positives / self.patients)

    def scaled(self, factor: float) -> PilotPlan:
        """Return the plan with another variance over patients than the pilot study found.

        The factor is above 0, for example an end of `variance_range`.
        """
        other = copy(self)
        other._scale = factor
        return other

    def variance_range(self) -> VarianceRange:
        """Compute the 95 % interval of the variance over patients, relative to its estimate."""
        tails = scipy.special.chdtri(self._freedom, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return VarianceRange(float(self._freedom / tails[0]), float(self._freedom / tails[1]))


def _with_two_of_a_class(positives: float) -> int:
    """Return the fewest patients who have two of either class, for a share of positive patients."""
    return max(_FEWEST_PATIENTS, int(np.ceil(2 / min(positives, 1 - positives) - 1e-9)))


class _Seeds(NamedTuple):
    """Trainings of one system.

    `own` is the part of the variance over patients that trainings do not share; `between` is the
    variance of the true AUROC between trainings.
    """

    trainings: int
    own: float
    between: float


def _seeds_of_pilot(seeds: Sequence[AurocParts]) -> _Seeds:
    """Estimate a system's variances within and between trainings."""
    n = len(seeds)
    if n == 1:
        return _Seeds(1, 0.0, 0.0)
    contributions = [seed.contributions for seed in seeds if seed.contributions is not None]
    columns = np.column_stack(contributions)
    covariance = columns.T @ columns
    shared = (covariance.sum() - np.trace(covariance)) / (n * (n - 1))
    own = max(float(np.trace(covariance) / n - shared), 0.0)
    mean_square = float(np.var([seed.value for seed in seeds], ddof=1))
    return _Seeds(n, own, max(mean_square - own, 0.0))


def _with_seeds(
    patients: int,
    positives: int,
    over_patients: float,
    freedom: float,
    systems: Sequence[_Seeds],
) -> PlannedStudy:
    """Add the variance between trainings, which are nested readers in `analyse_nested`.

    The mean square between trainings contains both kinds of variance. The test takes this mean
    square as at least a training's own variance over patients.
    """
    total = over_patients
    variance = np.array([over_patients])
    spread = np.array([over_patients**2 / freedom])
    for n, own, between in systems:
        if n > 1:
            total += (own + between) / n
            squares = np.maximum((own + between) * _mean_squares(n - 1), own) / n
            variance = (variance[:, None] + squares).ravel()
            spread = (spread[:, None] + squares**2 / (n - 1)).ravel()
    possible = None
    if len(variance) > 1:
        possible = PossibleErrors(np.sqrt(variance), variance**2 / spread)
    return PlannedStudy(
        patients, positives, float(np.sqrt(total)), freedom, possible_errors=possible
    )


@cache
def _mean_squares(freedom: int) -> Floats:
    """Return equally likely quantiles of a mean square, in units of its expectation."""
    tails = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    return np.asarray(scipy.special.chdtri(freedom, tails) / freedom)


@dataclass(frozen=True)
class CrossedPlan:
    """Plan of a study in which readers read all cases with both of two modalities.

    A modality is a way of reading, such as with or without a system's help. A case is what is read
    at once, such as the images of a patient.

    Attributes:
        components: Variance components of a pilot study (`analyse_crossed`), or assumed ones.
        pilot_cases: Number of cases in the pilot study, which must have the same share of positives
            as the plan.
        positives: Share of the cases that have the disease, in (0, 1).
        readers: Number of readers in the planned study. Its results shall hold for all readers and
            cases like those of the study (both are random).
        published: True to test few readers by the published method, False to test them by the
            cautious method, by which this program decides what it reports as shown.

    Source:
        Hillis, Obuchowski and Berbaum 2011, Acad Radiol 18:129, equation 10.

    Example:
        >>> plan = CrossedPlan.assumed((0.80, 0.85), prevalence=0.5, readers=6, deviation=0.03)
        >>> round(plan.study(200).power(0.05), 2)
        0.79
    """

    components: Components
    pilot_cases: int
    positives: float
    readers: int
    published: bool = False

    @classmethod
    def assumed(
        cls, aurocs: Sequence[float], prevalence: float, readers: int, deviation: float
    ) -> CrossedPlan:
        """Plan a study without a pilot study, with correlations from the literature.

        `aurocs` are the expected means of the readers with each of the two modalities, and
        `deviation` the standard deviation of the readers' true AUROCs.

        Source:
            The correlations are those of the R package MRMCsamplesize 1.0.0, after Obuchowski 2000,
            AJR 175:603. The correlation 0.47 is from Rockette et al. 1999, Acad Radiol 6:723, who
            found 0.35 to 0.59.
        """
        cases = 100_000
        positives = round(cases * prevalence)
        covariance = binormal_auroc_covariance(aurocs, positives, cases - positives)
        error = float(np.diagonal(covariance).mean())
        parts = Components(
            reader=0.8 * deviation**2,
            interaction=0.2 * deviation**2,
            cov1=0.47 * error,
            cov2=0.3 * error,
            cov3=0.3 * error,
            error=error,
        )
        return cls(parts, cases, prevalence, readers)

    def study(self, patients: int) -> PlannedStudy:
        """Compute the precision of the difference of the modalities with at least `least` cases."""
        parts = self.components
        share = self.pilot_cases / patients
        shared = max(parts.cov2 - parts.cov3, 0.0)
        interaction = max(parts.interaction, 0.0)
        own = interaction + share * (parts.error - parts.cov1 - shared)
        total = own + share * self.readers * shared
        freedom = (self.readers - 1) * (total / own) ** 2
        possible = None
        if self.readers - 1 < FREEDOM_OF_A_CLAIM and not self.published:
            squares = own * _mean_squares(self.readers - 1)
            possible = CautiousErrors(
                2 / self.readers * squares, self.readers - 1, 2 * share * shared
            )
        return PlannedStudy(
            patients,
            round(patients * self.positives),
            float(np.sqrt(2 / self.readers * total)),
            float(freedom),
            possible_errors=possible,
        )

    @property
    def least(self) -> int:
        """Smallest number of cases for which the plan can be computed.

        The study must have two cases of either class.
        """
        return _with_two_of_a_class(self.positives)


Plan = AssumedPlan | PilotPlan | CrossedPlan
"""Plan whose method ``study`` gives the planned study for a number of patients."""


def fewest_patients(plan: Plan, enough: Callable[[PlannedStudy], bool]) -> PlannedStudy | None:
    """Find the planned study with the fewest patients that satisfies a condition.

    The condition must hold for every study larger than one for which it holds. None if even
    100,000,000 patients are not enough.

    Example:
        >>> plan = AssumedPlan((0.9,), prevalence=0.3)
        >>> fewest_patients(plan, lambda study: study.half_width() <= 0.05).patients
        179
    """
    least = plan.least
    high = least
    while not enough(plan.study(high)):
        if high >= _MOST_PATIENTS:
            return None
        high = min(2 * high, _MOST_PATIENTS)
    low = high // 2 if high > least else least - 1
    while high - low > 1:
        middle = (low + high) // 2
        if enough(plan.study(middle)):
            high = middle
        else:
            low = middle
    return plan.study(high)
