"""AUROC, and the paired difference of two, with the variance of images that come in patients.

Two images of one patient resemble each other, so they say less than images of two patients. The
variance is therefore summed by patient (Obuchowski 1997). With one image per patient it equals the
variance of DeLong (1988).

Such a sum is too small and itself uncertain where patients are few, or where their numbers of
images differ much. Each patient's contribution is therefore divided by 1 minus the patient's share
of the images of the class, after Mancl and DeRouen 2001. With equal shares this gives Obuchowski's
factor; with unequal shares a patient with many images counts for more. Intervals and tests use
Student's t with Satterthwaite's degrees of freedom. These are computed from the effective numbers
of patients of both classes and from the spread of the contributions, and the smaller result is
used. For a difference with one image per patient, the numbers of patients suffice.

If few images are positive and many negative, the variance rests on the ranks of these few, and is
too small where all of them happen to be high. The interval of one AUROC therefore contains
Newcombe's interval (2006), whose variance follows from the AUROC and the numbers of images alone.
These numbers are divided by the design effect of several images of a patient.

The interval of an AUROC reaches no further than if each patient of the rarer class were a trial.
If the images of each of them outrank half of the other class, a missed one is taken to rank at
chance, not below all others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import (
    Flags,
    Floats,
    Integers,
    check_truth_and_scores,
    patient_names,
    require_one_order,
)
from cxr_compare.evaluation.statistics.bootstrap import cluster_index
from cxr_compare.evaluation.statistics.clustered_estimate import (
    ClusteredEstimate,
)
from cxr_compare.evaluation.statistics.clustered_variance import (
    effective_patients,
    satterthwaite_freedom,
    without_leverage,
)
from cxr_compare.evaluation.statistics.intervals import LEVEL

OBUCHOWSKI = "Obuchowski 1997, clustered by patient"
"""Name of the method in results."""
_DELONG = "DeLong 1988, images taken as independent"
FEW_PATIENTS = "no interval: fewer than two patients with images of each class"
"""Note of a figure of both classes that has no interval."""
_EQUAL_SCORES = "no interval: all scores are equal"
_EQUAL_RANKS = "no interval: both systems rank the images alike"
_TOO_FEW_PAIRS = "no interval: too few patients for an AUROC of 0 or 1"
_NO_VARIANCE = "no interval: leaving out a patient does not change the value"
_LEAST_VARIANCE = 1e-24
"""Smaller variances are rounding errors, as where a system is compared with itself."""
_SAME_RANKS = 1e-12
CHANCE = 0.5
"""AUROC of a system whose scores are random."""


@dataclass(frozen=True)
class AurocParts:
    """An AUROC, or a difference of two on the same images, and each patient's contribution to it.

    The operator ``-`` gives the difference of two AUROCs, with their covariance taken into account.

    Attributes:
        value: The AUROC or the difference.
        of_positive: Contribution of each patient's positive images, shape ``(patients,)``: the sum
            over these images of (share of the negative images that the image outscores - value) /
            number of positive images.
        of_negative: Contribution of each patient's negative images, shape ``(patients,)``: the sum
            over these images of (share of the positive images that outscore the image - value) /
            number of negative images.
        images: Number of each patient's positive and negative images, shape ``(patients, 2)``.
        by_image: Sum of the squared contributions of single images; 0 for a difference.
        trials: Largest number of pairs of a positive and a negative patient in which no patient
            occurs twice, for the exact interval of an AUROC of 0 or 1; 0 for a difference.
        bounded: True for an AUROC, which lies in [0, 1]; False for a difference of two.
        equal_scores: True for an AUROC of scores that are all equal.
    """

    value: float
    of_positive: Floats
    of_negative: Floats
    images: Floats
    by_image: float = 0.0
    trials: int = 0
    bounded: bool = True
    equal_scores: bool = False

    @property
    def effective_patients(self) -> float:
        """Effective number of patients in the class (positive or negative) that has fewer.

        It is the number of patients with one image each that would give as much information as the
        patients, some of whom have several images.
        """
        return min(effective_patients(images_of_class) for images_of_class in self.images.T)

    @cached_property
    def contributions(self) -> Floats | None:
        """Contribution of each patient to the error of the estimated AUROC, shape ``(patients,)``.

        A patient with many images pulls the AUROC towards itself (leverage), and the contributions
        are corrected for that. The sum of their squares is the variance of the AUROC. The sum of
        their products with the contributions to another system's AUROC on the same images is the
        covariance of the two AUROCs. The value is None if fewer than two patients have a positive
        image, or fewer than two a negative one.
        """
        if np.count_nonzero(self.images, axis=0).min() < 2:
            return None
        positive_images, negative_images = self.images.T
        return without_leverage(self.of_positive, positive_images) + without_leverage(
            self.of_negative, negative_images
        )

    @property
    def variance(self) -> float | None:
        """Variance of the AUROC, or of the difference, due to the sampling of patients.

        None if fewer than two patients have a positive image, or fewer than two a negative one.
        """
        return None if self.contributions is None else float((self.contributions**2).sum())

    @property
    def freedom(self) -> float:
        """Degrees of freedom of `variance`, for Student's t distribution.

        They are computed from the effective numbers of patients of both classes and from the spread
        of the contributions; the smaller result is used. A difference with one image per patient
        needs only the former: with the smaller result, it would be shown less often, and with the
        normal distribution falsely in more than 5 % of test sets with few positive images.
        """
        of_classes = freedom_of_classes(self.images)
        of_images = not self.bounded and self.images.sum(axis=1).max() <= 1
        if self.contributions is None or of_images:
            return of_classes
        return min(of_classes, satterthwaite_freedom(self.contributions))

    @property
    def _effective_images(self) -> tuple[float, float] | None:
        """Numbers of positive and negative images of an AUROC, as if all were independent.

        They are the numbers of images divided by the design effect: the sum of the squared
        contributions of patients, before leverage, by that of single images. None for a difference.
        """
        by_patient = float(((self.of_positive + self.of_negative) ** 2).sum())
        if not self.bounded or by_patient < _LEAST_VARIANCE:
            return None
        n_positive, n_negative = self.images.sum(axis=0) * self.by_image / by_patient
        return float(n_positive), float(n_negative)

    @property
    def _missed(self) -> float:
        """Share of the other class that a missed image outranks: half, as by chance, or none.

        It is half if the images of each patient of the rarer class outrank so many on average, and
        random scores rank them so high in less than 2.5 %. An AUROC below 0.5 is turned round.
        """
        effective = [effective_patients(images_of_class) for images_of_class in self.images.T]
        rarer = int(effective[1] < effective[0])
        images = self.images[:, rarer]
        added = (self.of_positive, self.of_negative)[rarer]
        has = images > 0
        outranked = self.value + added[has] * images.sum() / images[has]
        least = float((outranked if self.value >= CHANCE else 1 - outranked).min())
        above = (1 - least) * effective[1 - rarer]
        guessed = scipy.special.betaln(effective[1 - rarer] + 1, effective[rarer])
        guessed -= scipy.special.betaln(above + 1, effective[rarer])
        is_right = least >= CHANCE - _SAME_RANKS and guessed < np.log((1 - LEVEL) / 2)
        return CHANCE if is_right else 0.0

    def __sub__(self, other: AurocParts) -> AurocParts:
        return AurocParts(
            self.value - other.value,
            self.of_positive - other.of_positive,
            self.of_negative - other.of_negative,
            self.images,
            bounded=False,
        )

    def estimate(self) -> ClusteredEstimate:
        """Return the AUROC or the difference with its standard error over patients.

        If the standard error cannot be computed, the `note` of the estimate gives the reason.
        """
        variance = self.variance
        if variance is None:
            return ClusteredEstimate(self.value, None, note=FEW_PATIENTS)
        without_error = ClusteredEstimate(
            self.value,
            None,
            bounded=self.bounded,
            trials=min(self.trials, self.effective_patients),
            missed=self._missed if self.bounded else 0.0,
        )
        if variance < _LEAST_VARIANCE:
            note = _EQUAL_SCORES if self.equal_scores else _NO_VARIANCE
            if self.bounded and self.value in (0.0, 1.0):
                note = _TOO_FEW_PAIRS
            elif not self.bounded and abs(self.value) < _SAME_RANKS:
                note = _EQUAL_RANKS
            return without_error if without_error.exact else replace(without_error, note=note)
        return replace(
            without_error,
            error=float(np.sqrt(variance)),
            freedom=self.freedom,
            images=self._effective_images,
        )


def freedom_of_classes(images: Floats) -> float:
    """Return the degrees of freedom by the effective patients of classes, of images ``(P, K)``."""
    effective = np.array([effective_patients(of_class) for of_class in images.T])
    return float((1 / effective).sum() ** 2 / (1 / (effective**2 * (effective - 1))).sum())


def margin_interval(first: AurocParts, second: AurocParts) -> tuple[float, float] | None:
    """Return the 95 % interval of a difference of two AUROCs for a test of another value than 0.

    A variance that is estimated where the difference is falls short of that at the end nearer to 0
    of a true difference. Each end is therefore where the difference has the variance at that end:
    the contributions of a system are scaled as those of the logit, by AUROC x (1 - AUROC), with the
    AUROCs that lie nearest and have this difference. The interval contains the one of the
    difference itself. None without that.

    Source:
        Miettinen and Nurminen 1985, "Comparative analysis of two rates", for shares.
    """
    gap = first - second
    estimate = gap.estimate()
    one, other = first.contributions, second.contributions
    if not estimate.has_interval or one is None or other is None:
        return None
    squares, others, products = float(one @ one), float(other @ other), float(one @ other)
    variance = squares + others - 2 * products
    pulls = (squares - products) / variance, (products - others) / variance
    quantile = float(scipy.special.stdtrit(gap.freedom, (1 + LEVEL) / 2))

    def beyond(step: float) -> float:
        """Return how much further a difference lies than the interval of its variance reaches."""
        scale, of_second = (
            _logit_scale(part.value, part.value + pull * step)
            for part, pull in zip((first, second), pulls, strict=True)
        )
        at_end = scale**2 * squares + of_second**2 * others - 2 * scale * of_second * products
        return step**2 - quantile**2 * at_end

    ends = []
    for end in (estimate.ci_low, estimate.ci_high):
        step = end - gap.value
        if abs(end) == 1 or beyond(step) >= 0:
            ends.append(end)
            continue
        while beyond(step) < 0:
            step *= 1.25
        step = float(scipy.optimize.brentq(beyond, step / 1.25, step))
        ends.append(min(max(gap.value + step, -1.0), 1.0))
    return ends[0], ends[1]


def _logit_scale(auroc: float, moved: float) -> float:
    """Return the standard error at another AUROC as a multiple of that at this one."""
    spread = auroc * (1 - auroc)
    moved = min(max(moved, 0.0), 1.0)
    return moved * (1 - moved) / spread if spread else 1.0


def auroc_parts(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    clusters: Integers,
    n_clusters: int,
    *,
    folds: Integers | None = None,
) -> AurocParts | None:
    """Compute an AUROC and the contribution of each patient; None if no fold has both classes.

    `clusters` numbers the patient of each image from 0. `folds` has the cross-validation fold of
    each image, if each fold was scored by another model; an image is then compared only with images
    of its fold.

    Source:
        Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data"; the components are
        those of DeLong, DeLong and Clarke-Pearson 1988.

    Examples:
        >>> parts = auroc_parts([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8], np.arange(4), 4)
        >>> parts.value, parts.trials
        (0.875, 2)
    """
    truth = np.asarray(y_true, dtype=bool)
    scores = np.asarray(y_score, dtype=np.float64)
    points = np.zeros(len(truth))
    rivals = np.zeros(len(truth))
    for rows in _rows_of_folds(folds):
        points[rows], rivals[rows] = _outscored(scores[rows], truth[rows])
    n_pairs = rivals[truth].sum()
    if not n_pairs:
        return None
    value = float(points[truth].sum() / n_pairs)
    added = (points - value * rivals) / n_pairs
    parts = _parts_of_patients(value, added, truth, np.asarray(clusters), n_clusters, folds)
    return replace(parts, equal_scores=bool((scores == scores[0]).all()))


def _rows_of_folds(folds: Integers | None) -> list[slice | Integers]:
    """Return the rows of each fold; without folds, one slice of all rows."""
    if folds is None:
        return [slice(None)]
    return [np.flatnonzero(folds == fold) for fold in np.unique(folds)]


def _parts_of_patients(
    value: float,
    added: Floats,
    truth: Flags,
    patients: Integers,
    n_patients: int,
    folds: Integers | None,
) -> AurocParts:
    """Sum the contribution of each image, `added`, by patient and class."""
    of_classes = []
    images = []
    for of_class in (truth, ~truth):
        owner = patients[of_class]
        sums = np.bincount(owner, weights=added[of_class], minlength=n_patients)
        of_classes.append(np.asarray(sums, np.float64))
        images.append(np.bincount(owner, minlength=n_patients))
    return AurocParts(
        value,
        of_positive=of_classes[0],
        of_negative=of_classes[1],
        images=np.stack(images, axis=1).astype(np.float64),
        by_image=float((added**2).sum()),
        trials=sum(
            _pairs_of_patients(truth[rows], patients[rows]) for rows in _rows_of_folds(folds)
        ),
    )


def _pairs_of_patients(truth: Flags, patients: Integers) -> int:
    """Return the largest number of positive-negative pairs in which no patient occurs twice."""
    n_with_positive = np.count_nonzero(np.bincount(patients[truth]))
    n_with_negative = np.count_nonzero(np.bincount(patients[~truth]))
    n_patients = np.count_nonzero(np.bincount(patients))
    return int(min(n_with_positive, n_with_negative, n_patients // 2))


def _outscored(scores: Floats, positive: Flags) -> tuple[Floats, Floats]:
    """Return for each image how many of the other class it ranks rightly, and their number.

    A positive image outscores negative ones, a negative image is outscored by positive ones. A tie
    is half a point, so all sums are exact in binary.
    """
    classes = [np.sort(scores[~positive]), np.sort(scores[positive])]
    below = [
        (
            np.searchsorted(sorted_scores, scores, "left")
            + np.searchsorted(sorted_scores, scores, "right")
        )
        / 2
        for sorted_scores in classes
    ]
    n_negative, n_positive = map(len, classes)
    points = np.where(positive, below[0], n_positive - below[1])
    return points, np.where(positive, float(n_negative), float(n_positive))


def auroc_difference(
    y_true: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    patients: npt.ArrayLike | None = None,
) -> ClusteredEstimate | None:
    """Test the paired difference of two AUROCs on the same images.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        first: Scores of the first model, shape ``(N,)``.
        second: Scores of the second model, shape ``(N,)``.
        patients: Name of each image's patient, shape ``(N,)``. If None, images are taken as
            independent, and the test is DeLong's with the normal distribution.

    Returns:
        The difference, first minus second, with its interval and its p-value; None if all labels
        are 0 or all are 1.

    Raises:
        InputError: A label is neither 0 nor 1, a score is not finite, a patient is missing, or the
            lengths differ.

    Source:
        Obuchowski 1997; DeLong, DeLong and Clarke-Pearson 1988.

    Examples:
        >>> import numpy as np
        >>> from cxr_compare import metrics
        >>> truth, scores = [0, 0, 0, 1, 1, 1], np.array([1, 2, 4, 3, 5, 6.0])
        >>> metrics.auroc_difference(truth, scores, -scores)
        0.778 (95 % CI 0.162 to 1), p = 0.013; DeLong 1988, images taken as independent
    """
    require_one_order(y_true=y_true, first=first, second=second, patients=patients)
    valid_first = check_truth_and_scores(y_true, first)
    valid_second = check_truth_and_scores(y_true, second)
    n_images = len(valid_first[0])
    names = np.arange(n_images) if patients is None else patient_names(patients, n_images)
    clusters, n_clusters = cluster_index(names)
    first_parts = auroc_parts(*valid_first, clusters, n_clusters)
    second_parts = auroc_parts(*valid_second, clusters, n_clusters)
    if first_parts is None or second_parts is None:
        return None
    gap = (first_parts - second_parts).estimate()
    if patients is None:
        return replace(gap, freedom=np.inf, note=_note_by_image(gap.note), method=_DELONG)
    return replace(gap, method=OBUCHOWSKI)


def _note_by_image(note: str) -> str:
    """Reword a note for a test in which images, not patients, are the units."""
    return note.replace(FEW_PATIENTS, "no interval: fewer than two images of each class")
