"""AUROC, and the paired difference of two, with the variance of images that come in patients.

Two images of one patient resemble each other, so they say less than images of two patients. The
variance is therefore summed by patient (Obuchowski 1997). With one image per patient it equals the
variance of DeLong (1988), which is given only beside it.

A sum over few patients, or over patients with very different numbers of images, is too small and
itself uncertain. Each patient's contribution is therefore divided by 1 minus its share of the
images of the class (with equal shares that is Obuchowski's factor). Intervals and tests use
Student's t with Satterthwaite's degrees of freedom, the smaller of two: those of the effective
patients of either class, and those that the contributions themselves show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats, Integers, check_truth_and_scores
from cxr_compare.evaluation.statistics.bootstrap import cluster_index
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.clustered_variance import (
    effective_patients,
    satterthwaite_freedom,
    without_leverage,
)
from cxr_compare.evaluation.statistics.intervals import NO_WIDTH
from cxr_compare.evaluation.statistics.obuchowski_rockette import estimate_over_seeds

OBUCHOWSKI = "Obuchowski 1997, clustered by patient"


_DELONG = "DeLong 1988, images taken as independent"


_FEW_PATIENTS = "no interval: fewer than two patients with images of each class"


@dataclass(frozen=True)
class AurocParts:
    """An AUROC, or a difference of two on the same images, and what each patient adds to it."""

    value: float  # the AUROC or the difference
    # per patient, the sum over its positive images of (share of the negatives that the image
    # outscores - value) / positives, shape `(patients,)`
    of_positive: Floats
    of_negative: Floats  # likewise over its negative images
    images: Floats  # positive and negative images of each patient, shape `(patients, 2)`
    trials: int = 0  # pairs of a positive and a negative patient, no patient in two pairs
    bounded: bool = True  # whether it is an AUROC, not a difference

    @property
    def effective_patients(self) -> float:
        """Of the rarer class, the fewer."""
        return min(effective_patients(of_class) for of_class in self.images.T)

    @cached_property
    def contributions(self) -> Floats | None:
        """What each patient adds, corrected for its share of the images, shape ``(patients,)``.

        The sum of squares is the variance, the sum of products with those of another system on
        the same images the covariance; `None` with fewer than two patients of either class.
        """
        if np.count_nonzero(self.images, axis=0).min() < 2:
            return None
        positive, negative = self.images.T
        of_positive = without_leverage(self.of_positive, positive)
        return of_positive + without_leverage(self.of_negative, negative)

    @property
    def variance(self) -> float | None:
        """By patient; `None` with fewer than two patients of either class."""
        return None if self.contributions is None else float((self.contributions**2).sum())

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the variance: of both classes' patients, or of what they add."""
        effective = np.array([effective_patients(of_class) for of_class in self.images.T])
        of_classes = (1 / effective).sum() ** 2 / (1 / (effective**2 * (effective - 1))).sum()
        contributions = self.contributions
        if contributions is None or not contributions.any():
            return float(of_classes)
        return min(float(of_classes), satterthwaite_freedom(contributions))

    @classmethod
    def mean(cls, seeds: Sequence[AurocParts]) -> AurocParts:
        """The mean over training seeds of one system, all on the same images."""
        return cls(
            float(np.mean([each.value for each in seeds])),
            np.mean([each.of_positive for each in seeds], axis=0),
            np.mean([each.of_negative for each in seeds], axis=0),
            seeds[0].images,
            seeds[0].trials,
        )

    def __sub__(self, other: AurocParts) -> AurocParts:
        """The difference of two systems on the same images; their covariance is in it."""
        return AurocParts(
            self.value - other.value,
            self.of_positive - other.of_positive,
            self.of_negative - other.of_negative,
            self.images,
            bounded=False,
        )

    def estimate(self) -> ClusteredEstimate:
        """The figure with its standard error over patients."""
        variance = self.variance
        if variance is None:
            return ClusteredEstimate(self.value, None, note=_FEW_PATIENTS)
        none = ClusteredEstimate(
            self.value,
            None,
            bounded=self.bounded,
            effective_patients=self.effective_patients,
            trials=min(self.trials, self.effective_patients),
        )
        # Rounding leaves some 1e-17 where a system is held against itself.
        if variance < 1e-24:
            return none if none.exact else replace(none, note=NO_WIDTH)
        return replace(none, error=float(np.sqrt(variance)), freedom=self.freedom)


def auroc_over_seeds(*systems: Sequence[AurocParts]) -> ClusteredEstimate:
    """The AUROC of a system, or the difference of two, each of one training seed or several."""
    means = [AurocParts.mean(seeds) for seeds in systems]
    mean = means[0] if len(means) == 1 else means[0] - means[1]
    alone = mean.estimate()
    each = [part.contributions for seeds in systems for part in seeds]
    known = [contributions for contributions in each if contributions is not None]
    values = [[part.value for part in seeds] for seeds in systems]
    if len(known) < len(each) or max(map(len, systems)) == 1 or alone.exact:
        return alone
    added = np.column_stack(known)
    found = estimate_over_seeds(values, added.T @ added, mean.freedom, bounded=mean.bounded)
    return replace(found, effective_patients=alone.effective_patients)


def auroc_parts(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    clusters: Integers,
    n_clusters: int,
    *,
    folds: Integers | None = None,
) -> AurocParts | None:
    """An AUROC and what each patient adds to it, of labels and scores that are valid.

    Returns `None` where a class is absent, of each fold where there are folds.

    `clusters` holds each image's patient as an index from 0. With `folds` each fold was scored by a
    model of its own: only images of one fold are compared.

    Source:
        Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data"; the components are
        those of DeLong, DeLong and Clarke-Pearson 1988.
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
    images = np.stack([np.bincount(owner[of], minlength=n_clusters) for of in (truth, ~truth)], 1)
    trials = sum(_pairs_of_patients(truth[rows], owner[rows]) for rows in each)
    return AurocParts(value, of_positive, of_negative, images.astype(np.float64), trials)


def _pairs_of_patients(truth: npt.NDArray[np.bool_], owner: Integers) -> int:
    """The most pairs of a positive and a negative patient, no patient in two pairs."""
    found = (np.bincount(owner[of]) for of in (truth, ~truth, slice(None)))
    positive, negative, all_ = (np.count_nonzero(images) for images in found)
    return int(min(positive, negative, all_ // 2))


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
            which is DeLong's test, with the normal distribution.

    Returns:
        The difference, with interval, p-value and smallest detectable difference; `None` where a
        class is absent.

    Raises:
        InputError: Labels or scores are not one valid value per image.

    Source:
        Obuchowski 1997; DeLong, DeLong and Clarke-Pearson 1988.

    Example:
        >>> truth, scores = [0, 0, 0, 1, 1, 1], np.array([1, 2, 4, 3, 5, 6.0])
        >>> from cxr_compare import metrics
        >>> gap = metrics.auroc_difference(truth, scores, -scores)
        >>> gap
        0.778 (95 % CI 0.162 to 1.000), p = 0.013; DeLong 1988, images taken as independent
    """
    checked = [check_truth_and_scores(y_true, scores) for scores in (first, second)]
    names = np.arange(len(checked[0][0])) if patients is None else patients
    owner, count = cluster_index(names)
    parts = [auroc_parts(*valid, owner, count) for valid in checked]
    if parts[0] is None or parts[1] is None:
        return None
    gap = (parts[0] - parts[1]).estimate()
    if patients is None:
        return replace(gap, freedom=np.inf, note=_by_image(gap.note), method=_DELONG)
    return replace(gap, method=OBUCHOWSKI)


def _by_image(note: str) -> str:
    """Return a note on images that each count as a patient of their own."""
    return note.replace(_FEW_PATIENTS, "no interval: fewer than two images of each class")
