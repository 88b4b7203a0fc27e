"""Figures that follow from counts of images, with closed intervals by patient.

A figure is a function of sums over patients, such as the true positives over the positive images.
The contribution of a patient to its error is the figure minus the figure without this patient (the
jackknife). For a share of images this is the patient's deviation from the share, corrected for the
patient's leverage after Mancl and DeRouen 2001; with one image per patient the variance is that of
a binomial share, times ``n / (n - 1)``. Intervals are computed on the logit with Student's t and
Satterthwaite's degrees of freedom.

The mean of several shares, such as balanced accuracy, joins their intervals. Another function of
them, such as MCC, has a delta interval on the four counts of a confusion matrix. Where a class has
no error, its part of the variance would be 0, so the interval is computed with one more patient of
each of the four outcomes, as Agresti and Caffo 2000 do for the difference of two shares. The
interval of one share needs no such patient: the interval of a share of 0 or 1 is exact.

Precision, negative predictive value, F1, MCC and the Brier score depend on how many images are
positive. If the patients of the rarer class are few and have unequal numbers of images, the sample
shows too little of that inequality, so the variance is multiplied by `class_inflation`. Accuracy
is a share, but its interval also contains the one with the four patients where a patient has
several images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cxr_compare.evaluation.statistics.arrays import Flags, Floats, Integers, undefined_is_nan
from cxr_compare.evaluation.statistics.bootstrap import per_cluster
from cxr_compare.evaluation.statistics.clustered_auroc import FEW_PATIENTS
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.clustered_variance import (
    class_inflation,
    effective_patients,
    satterthwaite_freedom,
)
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval

CLUSTERED_COUNTS = "counts by patient (jackknife, on the logit)"
"""Name of the method in results."""
NO_SPREAD = "no interval: the figure is the same without any patient"
"""Note of a figure strictly between 0 and 1 that every single patient has as well."""
_ONE_PATIENT = "no interval: fewer than two patients"
_LEAST_VARIANCE = 1e-24
"""Smaller variances are rounding errors."""
_CLASSES = np.array([[1, 0, 0, 1], [0, 1, 1, 0]], dtype=np.float64)
"""Outcomes (tp, fp, tn, fn) that are positive images, and those that are negative images."""
Formula = Callable[[Floats], Floats]
"""Function from sums, shape ``(..., K)``, to a figure, shape ``(...)``; NaN where undefined."""


def confusion_by_patient(
    y_true: Flags,
    called: Flags,
    patients: Integers,
    n_patients: int,
) -> Floats:
    """Count ``tp``, ``fp``, ``tn`` and ``fn`` by patient, in images, shape ``(n_patients, 4)``.

    Examples:
        >>> y_true, called = np.array([True, False]), np.array([True, True])
        >>> confusion_by_patient(y_true, called, np.array([0, 0]), 1).tolist()
        [[1.0, 1.0, 0.0, 0.0]]
    """
    outcomes = [y_true & called, ~y_true & called, ~y_true & ~called, y_true & ~called]
    return per_cluster(np.column_stack(outcomes), patients, n_patients)


def rarer_class_inflation(counts: Floats) -> float:
    """Return `class_inflation` of the class, positive or negative, with fewer effective patients.

    `counts` are those of `confusion_by_patient`.
    """
    classes = (counts @ _CLASSES.T).T  # (2, patients)
    return class_inflation(min(classes, key=effective_patients), classes.sum(axis=0))


def jackknife(formula: Formula, sums: Floats) -> Floats:
    """Compute the contribution of each patient to the error of a figure of sums, ``(patients, K)``.

    The squares of the contributions, shape ``(patients,)``, add up to the figure's variance, and
    their products with those of another figure to the covariance. Patients with only zeros do not
    count; a patient without whom the figure is undefined has NaN.

    Source:
        Efron and Stein 1981; Mancl and DeRouen 2001.

    Examples:
        >>> share = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
        >>> round(float((jackknife(lambda s: s[..., 0] / s[..., 1], share) ** 2).sum()), 4)
        0.0833
    """
    total = sums.sum(axis=0)
    used = sums.any(axis=1)
    count = int(np.count_nonzero(used))
    contributions = np.zeros(len(sums))
    with undefined_is_nan():
        change = formula(total) - formula(total - sums[used])
    contributions[used] = change * np.sqrt(max(count - 1, 0) / max(count, 1))
    return contributions


def _ratio(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., 1])


@dataclass(frozen=True)
class ShareParts:
    """A share, as a ratio of sums over patients, and each patient's contribution.

    Attributes:
        of: What each patient adds to the denominator, 0 or more, shape ``(patients,)``.
        value: The ratio; NaN if the denominator is 0.
        contributions: Contribution of each patient to its error, shape ``(patients,)``.
        inflation: Factor by which the variance is multiplied, see `rarer_class_inflation`.

    Examples:
        >>> parts = ShareParts.from_sums(np.array([2.0, 1.0, 0.0]), np.array([2.0, 2.0, 1.0]))
        >>> parts.value, parts.n_patients
        (0.6, 3)
        >>> parts.estimate()
        0.600 (95 % CI 0.059 to 0.986)
    """

    of: Floats
    value: float
    contributions: Floats
    inflation: float = 1.0

    @classmethod
    def from_sums(cls, counted: Floats, whole: Floats, inflation: float = 1.0) -> ShareParts:
        """Divide the sum of `counted` by that of `whole`, shape ``(patients,)`` each.

        What a patient adds to the first lies between 0 and what it adds to the second.
        """
        sums = np.column_stack([counted, whole])
        with undefined_is_nan():
            value = float(_ratio(sums.sum(axis=0)))
        return cls(whole, value, jackknife(_ratio, sums) * np.sqrt(inflation), inflation)

    @property
    def n_patients(self) -> int:
        """Number of patients in the denominator."""
        return int(np.count_nonzero(self.of))

    def estimate(self) -> ClusteredEstimate:
        """Return the share with its standard error over patients; none with fewer than two.

        The interval is computed on the logit and reaches no further than the exact interval with
        the effective number of patients as trials, which is the interval of a share of 0 or 1. An
        inflated variance lowers the number of trials, but not below two.
        """
        if self.n_patients < 2:
            return ClusteredEstimate(self.value, None, note=_ONE_PATIENT)
        trials = effective_patients(self.of)
        trials = max(trials / self.inflation, min(trials, 2.0))
        plain = ClusteredEstimate(self.value, None, bounded=True, trials=trials)
        variance = float((self.contributions**2).sum())
        if variance < _LEAST_VARIANCE:
            return plain if plain.exact else replace(plain, note=NO_SPREAD)
        freedom = min(trials - 1, satterthwaite_freedom(self.contributions))
        return replace(plain, error=float(np.sqrt(variance)), freedom=freedom)


def mean_interval(shares: Sequence[ShareParts]) -> Interval:
    """Return the mean of K shares of the same patients, such as recalls, with its 95 % interval.

    The distances of the ends of their own intervals from the shares are added as standard errors
    are, with the correlations of the patients' contributions. So a share that is exact, or of few
    patients, counts with its own uncertainty. There is none if one of the shares has none.

    Source:
        Zou and Donner 2008 (MOVER), here by patient.

    Examples:
        >>> hits, misses = np.array([1.0, 1, 1, 0]), np.array([0.0, 0, 0, 1])
        >>> share = ShareParts.from_sums(hits, hits + misses)
        >>> found = mean_interval([share, share])  # wholly alike: no surer than one of them
        >>> ends = share.estimate().interval_at(0.95)
        >>> np.allclose(ends, (found.ci_low, found.ci_high))
        True
    """
    value = np.array([share.value for share in shares])
    estimates = [share.estimate() for share in shares]
    ends = [estimate.interval_at(LEVEL) for estimate in estimates]
    if any(end is None for end in ends):
        notes = dict.fromkeys(estimate.note for estimate in estimates if estimate.note)
        return Interval(float(value.mean()), note="; ".join(notes))
    low, high = np.array(ends, dtype=np.float64).T
    return joined_interval(value, low, high, np.stack([share.contributions for share in shares]))


def joined_interval(value: Floats, low: Floats, high: Floats, contributions: Floats) -> Interval:
    """Return the mean of K figures in [0, 1] with both ends of each, as `mean_interval` does.

    `contributions` to each of them, ``(K, P)``, have their correlation: those of P patients, or the
    deviations of P replicates.
    """
    spread = contributions @ contributions.T
    error = np.sqrt(np.diagonal(spread))
    of_both = np.outer(error, error)
    alike = np.divide(spread, of_both, out=np.eye(len(error)), where=of_both > _LEAST_VARIANCE)
    below, above = (np.sqrt(gap @ alike @ gap) / len(gap) for gap in (value - low, high - value))
    mean = float(value.mean())
    return Interval(mean, max(mean - float(below), 0.0), min(mean + float(above), 1.0))


def function_of_counts(
    formula: Formula, counts: Floats, inflation: float = 1.0
) -> ClusteredEstimate:
    """Estimate a function of the four counts of a confusion matrix, for an interval by patient.

    One more patient of each of the four outcomes is added, who has as many images as the patients
    of the class have on average. So the value of the estimate, from which the interval is computed
    on the logit, is not the figure itself but nearer the middle.

    `formula` takes ``tp``, ``fp``, ``tn`` and ``fn``, shape ``(..., 4)``, to a value in [0, 1];
    `counts` has them by patient, ``(patients, 4)``. There is no standard error if fewer than two
    patients have a positive image, or fewer than two a negative one. `inflation` multiplies the
    variance, see `rarer_class_inflation`.

    Source:
        Agresti and Caffo 2000, here by patient.

    Examples:
        >>> counts = np.repeat([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]], [8, 9, 3], axis=0)
        >>> def balanced_accuracy(c):
        ...     tp, fp, tn, fn = np.moveaxis(c, -1, 0)
        ...     return (tp / (tp + fn) + tn / (tn + fp)) / 2
        >>> low, high = function_of_counts(balanced_accuracy, counts).interval_at(0.95)
        >>> round(low, 3), round(high, 3)
        (0.569, 0.93)
    """
    images = counts @ _CLASSES.T  # (patients, 2): positive and negative images
    with_images = np.count_nonzero(images, axis=0)
    if with_images.min() < 2:
        return ClusteredEstimate(np.nan, None, note=FEW_PATIENTS)
    # A count of 0 would not change with any patient left out, and the interval be too narrow.
    of_positive, of_negative = images.sum(axis=0) / with_images
    added = np.diag([of_positive, of_negative, of_negative, of_positive])
    sums = np.vstack([counts, added])
    contributions = jackknife(formula, sums) * np.sqrt(inflation)
    error = float(np.sqrt((contributions**2).sum()))
    freedom = satterthwaite_freedom(contributions)
    return ClusteredEstimate(float(formula(sums.sum(axis=0))), error, freedom, bounded=True)
