"""How many test patients show a difference of two AUROCs, or measure one as exactly as wanted.

The variance of a planned study comes from one of two places: from assumptions (AUROCs, correlation
of the scores, prevalence), by the binormal model, or from a pilot's predictions, whose variance
shrinks with the number of patients. Power is that of the test of `auroc_difference`, which is
Student's t, hence the noncentral t distribution. Its degrees of freedom under assumptions are those
of both classes' patients; in a test they may be fewer (`AurocParts.freedom`), which simulated
studies show to widen intervals by a few percent where a class has few patients. Of several
trainings the test is that of `auroc_over_seeds`, whose standard error few trainings leave to luck:
power is then the mean over the errors that the study may find.

Studies with readers (`CrossedPlan`) follow Hillis, Obuchowski and Berbaum 2011.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import scipy  # whose parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.binormal import binormal_auroc_covariance
from cxr_compare.evaluation.statistics.clustered_auroc import AurocParts
from cxr_compare.evaluation.statistics.intervals import LEVEL
from cxr_compare.evaluation.statistics.obuchowski_rockette import FEW_READERS, Components
from cxr_compare.evaluation.statistics.patient_images import UNEQUAL_IMAGES

_MOST_PATIENTS = 100_000_000
"""A plan that needs more than this is no plan."""


_LEAST = 4
"""Two patients of either class."""


_STEPS = 32  # quantiles that stand for a mean square between trainings


@dataclass(frozen=True)
class PlannedStudy:
    """A study as it is planned: what its estimate varies by."""

    patients: int  # test patients
    positives: int  # those of them with the disease
    error: float  # standard error that its difference, or its AUROC, will have
    freedom: float  # degrees of freedom of its t test; infinite: the normal distribution
    # of the one system that is measured, whose interval is taken on the logit; `None` where two are
    # compared
    auroc: float | None = None
    # standard errors that the test may find, equally likely, and the degrees of freedom of each;
    # `None` where it is near `error`
    found: tuple[Floats, Floats] | None = None

    def power(self, difference: float, level: float = LEVEL) -> float:
        """How often a true difference is shown, by a two-sided test at ``1 - level``.

        Example:
            >>> study = PlannedStudy(1000, 300, error=0.01, freedom=np.inf)
            >>> round(study.power(0.028), 2), round(study.power(0.0), 3)
            (0.8, 0.05)
        """
        if self.found is None:
            return _power_of_t(difference / self.error, self.freedom, level)
        reach = self._reaches(level)
        tails = (difference - reach, -difference - reach)
        return float(sum(scipy.special.ndtr(tail / self.error).mean() for tail in tails))

    def _reaches(self, level: float) -> Floats:
        """How far the interval reaches to either side, by the standard error that is found."""
        errors, freedom = self.found or (np.array([self.error]), np.array([self.freedom]))
        return np.asarray(scipy.special.stdtrit(freedom, (1 + level) / 2) * errors)

    def half_width(self, level: float = LEVEL) -> float:
        """Half the width of its interval on the mean; about half of such studies have more.

        Example:
            >>> round(PlannedStudy(1000, 300, error=0.01, freedom=np.inf).half_width(), 4)
            0.0196
        """
        reach = self._reaches(level)
        if self.auroc is None:
            return float(reach.mean())
        reach /= self.auroc * (1 - self.auroc)
        middle = scipy.special.logit(self.auroc)
        ends = scipy.special.expit([middle - reach, middle + reach])
        return float(np.diff(ends, axis=0).mean()) / 2


def _power_of_t(effect: float, freedom: float, level: float = LEVEL) -> float:
    """Chance that a two-sided t test is significant.

    Source:
        The noncentral t distribution; both tails count.
    """
    reach = float(scipy.special.stdtrit(freedom, (1 + level) / 2))
    if np.isinf(freedom) or freedom > 1e6:
        return float(scipy.special.ndtr(effect - reach) + scipy.special.ndtr(-effect - reach))
    upper = scipy.special.nctdtr(freedom, effect, reach)
    return float(1 - upper + scipy.special.nctdtr(freedom, effect, -reach))


@dataclass(frozen=True)
class AssumedPlan:
    """A study of one system or two by assumptions; see `binormal_auroc_covariance`.

    Example:
        >>> plan = AssumedPlan((0.85, 0.80), prevalence=0.5, correlation=0.5)
        >>> first = fewest_patients(plan, lambda study: study.power(0.05) >= 0.8)
        >>> first.patients, first.positives
        (583, 292)
    """

    aurocs: tuple[float, ...]  # of one system, or of the two that are compared
    prevalence: float  # share of the patients that have the disease
    correlation: float = 0.0  # of the two systems' scores of one image, within a class
    images: int | str = 1  # of each patient, or as in ``rsna`` or ``nih``, see `UNEQUAL_IMAGES`
    within: float = 0.0  # correlation of one system's scores of two images of one patient
    seeds: int = 1  # trainings of each system; with one the result is for this trained model
    seed_deviation: float = 0.0  # standard deviation of a system's true AUROC between trainings
    seed_correlation: float = 1.0  # of two trainings' scores of one image, within a class

    least = _LEAST  # patients that can be planned

    def study(self, patients: int) -> PlannedStudy:
        """The study with so many patients, two of either class or more."""
        positives = min(max(round(patients * self.prevalence), 2), patients - 2)
        negatives, n = patients - positives, self.images
        *images, spread = (n, n**2, 1.0) if isinstance(n, int) else UNEQUAL_IMAGES[n]

        covariance = partial(
            binormal_auroc_covariance,
            positives=positives,
            negatives=negatives,
            images=(images[0], images[1]),
            within=self.within,
        )
        single = covariance(self.aurocs, correlation=self.correlation)
        contrast = np.array([1.0, -1.0][: len(self.aurocs)])
        over_patients = float(contrast @ single @ contrast)
        own = [0.0] * len(self.aurocs)
        if self.seeds > 1:
            alike = self.seed_correlation
            shared = [covariance((a, a), correlation=alike)[0, 1] for a in self.aurocs]
            own = (np.diagonal(single) - shared).tolist()
        counts = np.array([positives, negatives], dtype=np.float64)
        freedom = (1 / counts).sum() ** 2 / (1 / (counts**2 * (counts - 1))).sum()
        freedom = max(freedom / spread, 1.0)
        seeds = [self.seeds] * len(self.aurocs)
        between = [self.seed_deviation**2] * len(self.aurocs)
        over_patients -= sum(own)
        study = _with_seeds(patients, positives, over_patients, freedom, own, between, seeds)
        return replace(study, auroc=self.aurocs[0] if len(self.aurocs) == 1 else None)


class PilotPlan:
    """A study with patients like those of a pilot: one or two systems, a part for each seed."""

    def __init__(
        self, systems: Sequence[Sequence[AurocParts]], seeds: Sequence[int] | None = None
    ) -> None:
        means = [AurocParts.mean(each) for each in systems]
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
        self.seeds = list(seeds) if seeds is not None else [len(each) for each in systems]
        self._freedom = mean.freedom
        self._variance = mean.variance
        self._pilot_seeds = [len(each) for each in systems]
        self._scale = 1.0
        self._own, self._between = zip(*(_spread_of_seeds(each) for each in systems), strict=True)
        if any(n > 1 for n in self.seeds) and any(n == 1 for n in self._pilot_seeds):
            raise InputError(
                "how trainings differ cannot be seen in one training: give the pilot two or more "
                "seeds of each system (NAME=RUN,RUN), or plan for one"
            )

    def study(self, patients: int) -> PlannedStudy:
        """The study with so many patients, and as large a share of positives as in the pilot."""
        share = self.patients / patients * self._scale
        # What seeds have in common stays; what is a seed's own goes down with their number.
        in_pilot = sum(own / n for own, n in zip(self._own, self._pilot_seeds, strict=True))
        over_patients = max(self._variance - in_pilot, 0.0) * share
        own = [each * share for each in self._own]
        over_patients += sum(each for each, n in zip(own, self.seeds, strict=True) if n == 1)
        freedom = max(self._freedom * patients / self.patients, 1.0)
        positives = round(patients * self.positives / self.patients)
        study = _with_seeds(
            patients, positives, over_patients, freedom, own, self._between, self.seeds
        )
        return replace(study, auroc=self.value if len(self.seeds) == 1 else None)

    @property
    def least(self) -> int:
        """The fewest patients that can be planned: two of either class."""
        return _with_two_of_a_class(self.positives / self.patients)

    def scaled(self, factor: float) -> PilotPlan:
        """The same with the pilot's variance over patients times a factor, of `variance_range`."""
        other = copy(self)
        other._scale = factor
        return other

    def variance_range(self) -> tuple[float, float]:
        """Interval of the true variance over patients, as factors of the pilot's estimate."""
        tails = scipy.special.chdtri(self._freedom, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(self._freedom / tails[0]), float(self._freedom / tails[1])


def _with_two_of_a_class(positives: float) -> int:
    """Patients of whom a share is positive, and of whom two of either class are expected."""
    return max(_LEAST, int(np.ceil(2 / min(positives, 1 - positives) - 1e-9)))


def _spread_of_seeds(seeds: Sequence[AurocParts]) -> tuple[float, float]:
    """Of one system: what each training alone varies by over patients, and between trainings."""
    if len(seeds) == 1:
        return 0.0, 0.0
    added = np.column_stack(
        [each.contributions for each in seeds if each.contributions is not None]
    )
    covariance = added.T @ added
    n = len(seeds)
    shared = (covariance.sum() - np.trace(covariance)) / (n * (n - 1))
    own = max(float(np.trace(covariance) / n - shared), 0.0)
    square = float(np.var([each.value for each in seeds], ddof=1))
    return own, max(square - own, 0.0)


def _with_seeds(
    patients: int,
    positives: int,
    over_patients: float,
    freedom: float,
    own: Sequence[float],
    between: Sequence[float],
    seeds: Sequence[int],
) -> PlannedStudy:
    """Add what differs between trainings: readers nested in systems, see `analyse_nested`.

    Of each system: `own` is what a training alone varies by over patients, `between` its variance
    between trainings. The test sees both in the mean square between trainings, and takes that as
    no less than `own`.
    """
    total, variance = over_patients, np.array([over_patients])
    spread = np.array([over_patients**2 / freedom])
    for alone, apart, n in zip(own, between, seeds, strict=True):
        if n > 1:
            total += (alone + apart) / n
            squares = np.maximum((alone + apart) * _mean_squares(n - 1), alone) / n
            variance = (variance[:, None] + squares).ravel()
            spread = (spread[:, None] + squares**2 / (n - 1)).ravel()
    found = (np.sqrt(variance), variance**2 / spread) if len(variance) > 1 else None
    return PlannedStudy(patients, positives, float(np.sqrt(total)), freedom, found=found)


@cache
def _mean_squares(freedom: int) -> Floats:
    """Quantiles of a mean square, equally likely, in units of what is expected."""
    tails = (np.arange(_STEPS) + 0.5) / _STEPS
    return np.asarray(scipy.special.chdtri(freedom, tails) / freedom)


@dataclass(frozen=True)
class CrossedPlan:
    """Readers who read all cases with both modalities, planned from components of variance.

    Source:
        Hillis, Obuchowski and Berbaum 2011, Acad Radiol 18:129, equation 10.
    """

    components: Components  # of a pilot (`obuchowski_rockette.analyse_crossed`), or assumed
    pilot_cases: int  # cases of the pilot, with as large a share of positives as is planned
    positives: float  # share of the cases that have the disease
    readers: int  # readers of the planned study; they are random, and so are cases
    published: bool = False  # whether few readers are tested as published, not as they are claimed

    @classmethod
    def assumed(
        cls, aurocs: Sequence[float], prevalence: float, readers: int, deviation: float
    ) -> CrossedPlan:
        """Without a pilot: readers' true AUROCs have the standard deviation `deviation`.

        Source:
            The correlations of the R package MRMCsamplesize 1.0.0, after Obuchowski 2000, AJR
            175:603; 0.47 from Rockette et al. 1999, Acad Radiol 6:723, who found 0.35 to 0.59.
        """
        cases = 100_000
        positives = round(cases * prevalence)
        covariance = binormal_auroc_covariance(aurocs, positives, cases - positives)
        error = float(np.diagonal(covariance).mean())
        reader, interaction = 0.8 * deviation**2, 0.2 * deviation**2
        parts = Components(
            reader, interaction, cov1=0.47 * error, cov2=0.3 * error, cov3=0.3 * error, error=error
        )
        return cls(parts, cases, prevalence, readers)

    def study(self, patients: int) -> PlannedStudy:
        """The study with so many cases."""
        parts, share = self.components, self.pilot_cases / patients
        both = max(parts.cov2 - parts.cov3, 0.0)
        interaction = max(parts.interaction, 0.0)
        own = interaction + share * (parts.error - parts.cov1 - both)
        total = own + share * self.readers * both
        freedom = (self.readers - 1) * (total / own) ** 2
        error, found = float(np.sqrt(2 / self.readers * total)), None
        if self.readers < FEW_READERS and not self.published:
            # The claim takes a mean square as no less than that of readers who are changed alike.
            squares = np.maximum(own * _mean_squares(self.readers - 1), own - interaction)
            totals = squares + share * self.readers * both
            spread = (self.readers - 1) * (totals / squares) ** 2
            found = np.sqrt(2 / self.readers * totals), spread
        positives = round(patients * self.positives)
        return PlannedStudy(patients, positives, error, float(freedom), found=found)

    @property
    def least(self) -> int:
        """The fewest cases that can be planned: two of either class."""
        return _with_two_of_a_class(self.positives)


Plan = AssumedPlan | PilotPlan | CrossedPlan
"""Tells what a study of any number of patients would be."""


def fewest_patients(plan: Plan, enough: Callable[[PlannedStudy], bool]) -> PlannedStudy | None:
    """The smallest study that is enough; `None` where even the most that are thought of are not."""
    high = least = plan.least
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
