"""AUROC and its differences with the variance of images that come in patients.

An image of a patient says less than an image of somebody else, because the two resemble each
other. The variance is therefore summed by patient (Obuchowski 1997). With every image its own
patient it is that of DeLong (1988), which is given only beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, ndtri, stdtr, stdtrit

from evaluation.statistics.bootstrap import LEVEL, NO_WIDTH, cluster_index
from evaluation.statistics.ranking import Floats, Integers, check_truth_and_scores

_POWER = 0.8
FEW_PATIENTS = "no interval: fewer than two patients with images of each class"


@dataclass(frozen=True)
class ClusteredEstimate:
    """A figure or a difference, its standard error, and what follows from the two.

    Attributes:
        value: The estimate.
        error: Standard error; `None` where there is none.
        freedom: Degrees of freedom of its reference distribution; infinite: the normal one.
        bounded: Whether the figure lies in [0, 1]; its interval is then taken on the logit.
        note: Why there is no standard error.
    """

    value: float
    error: float | None
    freedom: float = np.inf
    bounded: bool = False
    note: str = ""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; on the logit for an AUROC, so that it stays inside [0, 1].

        Example:
            >>> [round(end, 3) for end in ClusteredEstimate(0.1, 0.05).interval]
            [0.002, 0.198]
        """
        return self.interval_at(LEVEL)

    def interval_at(self, level: float) -> tuple[float, float] | None:
        """As `interval`, with another coverage."""
        if not self.error:
            return None
        reach = float(stdtrit(self.freedom, (1 + level) / 2)) * self.error
        if not self.bounded:
            return self.value - reach, self.value + reach
        if not 0 < self.value < 1:
            return None
        reach /= self.value * (1 - self.value)
        middle = logit(self.value)
        return float(expit(middle - reach)), float(expit(middle + reach))

    @property
    def p_value(self) -> float | None:
        """Two-sided p-value of a difference of 0; `None` without a standard error."""
        if not self.error:
            return None
        return float(2 * stdtr(self.freedom, -abs(self.value) / self.error))

    @property
    def detectable(self) -> float | None:
        """The smallest true difference that 80 % of such test sets would show; see below."""
        return smallest_detectable(self.error) if self.error else None


def smallest_detectable(error: float, power: float = _POWER, level: float = LEVEL) -> float:
    """The smallest true difference that a test set of this kind shows with a given power.

    ``(z[1 - alpha / 2] + z[power]) x standard error of the paired difference``, two-sided.

    Args:
        error: Standard error of the paired difference, by patient.
        power: How often it must be shown.
        level: ``1 - alpha``.

    Source:
        The usual sample size formula for a difference, solved for the difference.

    Example:
        >>> round(smallest_detectable(0.01), 4)
        0.028
    """
    return float(ndtri((1 + level) / 2) + ndtri(power)) * error


@dataclass(frozen=True)
class AurocParts:
    """An AUROC, or a difference of two on the same images, and what each patient adds to it.

    Attributes:
        value: The AUROC or the difference.
        of_positive: Per patient, the sum over its positive images of (share of the negatives
            that the image outscores - value) / positives, shape ``(patients,)``.
        of_negative: Likewise over its negative images.
        patients: How many patients have a positive image, a negative one, any.
        bounded: Whether it is an AUROC, not a difference.
    """

    value: float
    of_positive: Floats
    of_negative: Floats
    patients: tuple[int, int, int]
    bounded: bool = True

    @property
    def sums(self) -> Floats:
        """What each patient adds in all, shape ``(patients,)``."""
        return np.asarray(self.of_positive + self.of_negative)

    @cached_property
    def variance(self) -> float | None:
        """Obuchowski's variance; `None` with fewer than two patients of either class."""
        if min(self.patients) < 2:
            return None
        among_positive, among_negative, among_all = (n / (n - 1) for n in self.patients)
        return float(
            among_positive * (self.of_positive**2).sum()
            + among_negative * (self.of_negative**2).sum()
            + 2 * among_all * (self.of_positive * self.of_negative).sum()
        )

    def __sub__(self, other: AurocParts) -> AurocParts:
        """The difference of two systems on the same images; their covariance is in it."""
        return AurocParts(
            self.value - other.value,
            self.of_positive - other.of_positive,
            self.of_negative - other.of_negative,
            self.patients,
            bounded=False,
        )

    def estimate(self, seeds: Sequence[SeedSpread] = ()) -> ClusteredEstimate:
        """The figure with its standard error, over patients and, where there are any, seeds."""
        variance = self.variance
        if variance is None:
            return ClusteredEstimate(self.value, None, note=FEW_PATIENTS)
        total, freedom = add_seeds(variance, self.patients[2] - 1, seeds)
        # Rounding leaves some 1e-17 where a system is held against itself.
        if total < 1e-24:
            return ClusteredEstimate(self.value, None, note=NO_WIDTH)
        return ClusteredEstimate(self.value, float(np.sqrt(total)), freedom, self.bounded)


@dataclass(frozen=True)
class SeedSpread:
    """How a figure differs between the training seeds of one system.

    Attributes:
        variance: Of the figure between seeds (divisor ``n - 1``).
        n_seeds: At least 2.
    """

    variance: float
    n_seeds: int

    @classmethod
    def of(cls, figures: Sequence[float]) -> list[SeedSpread]:
        """The spread of one figure per seed; empty for a single seed.

        Example:
            >>> SeedSpread.of([0.25, 0.75]), SeedSpread.of([0.25])
            ([SeedSpread(variance=0.125, n_seeds=2)], [])
        """
        return [cls(float(np.var(figures, ddof=1)), len(figures))] if len(figures) > 1 else []


def add_seeds(variance: float, freedom: float, seeds: Sequence[SeedSpread]) -> tuple[float, float]:
    """Add the variance of a mean over seeds to that of patients.

    Args:
        variance: Over patients, of the mean over seeds.
        freedom: Patients - 1.
        seeds: The spread of every system in the figure that has several seeds.

    Returns:
        The variance, and its degrees of freedom after Satterthwaite (1946); infinite without
        seeds, since the variance over patients has many.

    Example:
        >>> add_seeds(0.0004, 99, [SeedSpread(0.0, 2)])[0], add_seeds(1.0, 9, [])
        (0.0004, (1.0, inf))
    """
    parts = [each.variance / each.n_seeds for each in seeds]
    total = variance + sum(parts)
    spread = sum(p**2 / (each.n_seeds - 1) for p, each in zip(parts, seeds, strict=True))
    if not spread:
        return total, np.inf
    return total, total**2 / (spread + variance**2 / freedom)


def auroc_parts(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    clusters: Integers,
    n_clusters: int,
    *,
    folds: Integers | None = None,
) -> AurocParts | None:
    """An AUROC and what each patient adds to it, of labels and scores that are valid.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``; see `check_truth_and_scores`.
        y_score: Finite scores, shape ``(N,)``; a tie between a positive and a negative counts half.
        clusters: Patient of each image as an index from 0, shape ``(N,)``.
        n_clusters: How many patients there are.
        folds: Fold of each image, shape ``(N,)``, where each fold was scored by a model of its
            own: only images of one fold are compared. Left out: all are.

    Returns:
        `None` where a class is absent, of each fold where there are folds.

    Source:
        Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data"; the components are
        those of DeLong, DeLong and Clarke-Pearson 1988.

    Example:
        >>> parts = auroc_parts([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8], np.arange(4), 4)
        >>> parts.value, parts.patients
        (0.875, (2, 2, 4))
    """
    truth, scores = np.asarray(y_true, dtype=bool), np.asarray(y_score, dtype=np.float64)
    owner = np.asarray(clusters)
    # Half a point for a tie; sums of halves are exact.
    points, rivals = np.zeros(len(truth)), np.zeros(len(truth))
    each = [slice(None)] if folds is None else [folds == fold for fold in np.unique(folds)]
    for rows in each:
        points[rows], rivals[rows] = _points(truth[rows], scores[rows])
    pairs = rivals[truth].sum()
    if not pairs:
        return None
    value = float(points[truth].sum() / pairs)
    added = (points - value * rivals) / pairs
    of_positive, of_negative = (
        np.asarray(np.bincount(owner[of], weights=added[of], minlength=n_clusters), np.float64)
        for of in (truth, ~truth)
    )
    having = [len(np.unique(owner[of])) for of in (truth, ~truth, truth | ~truth)]
    return AurocParts(value, of_positive, of_negative, (having[0], having[1], having[2]))


def _points(truth: npt.NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats]:
    """Images of the other class that each image is ranked rightly against, and all of them."""
    points, rivals = np.zeros(len(truth)), np.zeros(len(truth))
    for of, sign in ((truth, 1.0), (~truth, -1.0)):
        others = np.sort(sign * scores[~of])
        own = sign * scores[of]
        below = np.searchsorted(others, own, side="left")
        points[of] = (below + np.searchsorted(others, own, side="right")) / 2
        rivals[of] = len(others)
    return points, rivals


def mean_parts(parts: Sequence[AurocParts]) -> AurocParts:
    """The mean over training seeds of one system, all on the same images."""
    return AurocParts(
        float(np.mean([each.value for each in parts])),
        np.mean([each.of_positive for each in parts], axis=0),
        np.mean([each.of_negative for each in parts], axis=0),
        parts[0].patients,
    )


def auroc_difference(
    y_true: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    patients: npt.ArrayLike | None = None,
) -> ClusteredEstimate | None:
    """The paired difference of two AUROCs on the same images.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        first: Scores of one system, shape ``(N,)``.
        second: Scores of the other, shape ``(N,)``.
        patients: A name per image, shape ``(N,)``; left out: images are taken as independent,
            which is DeLong's test.

    Returns:
        The difference, with interval, p-value and smallest detectable difference; `None` where a
        class is absent.

    Raises:
        InputError: Labels or scores are not one valid value per image.

    Source:
        Obuchowski 1997; DeLong, DeLong and Clarke-Pearson 1988.

    Example:
        >>> truth, scores = [0, 0, 0, 1, 1, 1], np.array([1, 2, 4, 3, 5, 6.0])
        >>> gap = auroc_difference(truth, scores, -scores)
        >>> round(gap.value, 3)
        0.778
    """
    checked = [check_truth_and_scores(y_true, scores) for scores in (first, second)]
    names = np.arange(len(checked[0][0])) if patients is None else patients
    owner, count = cluster_index(names)
    parts = [auroc_parts(*valid, owner, count) for valid in checked]
    if parts[0] is None or parts[1] is None:
        return None
    return (parts[0] - parts[1]).estimate()
