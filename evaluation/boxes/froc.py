"""Lesions that boxes find, and FROC: sensitivity per lesion against false positives per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.running_sums import RunningRows, SegmentSums

HIT = 0.2
"""Least IoU of a predicted box and a lesion that it hits."""


class LesionHits(NamedTuple):
    """Lesions with the scores of the boxes that find them, and the boxes of all images.

    Attributes:
        lesion_image: Position of the image of each lesion, shape ``(lesions,)``.
        best: Highest score of a box that hits each lesion, minus infinity where no box does,
            shape ``(lesions,)``.
        box_image: Position of the image of each box, shape ``(boxes,)``.
        box_score: Score of each box, shape ``(boxes,)``.
        false: True for boxes that hit no lesion, shape ``(boxes,)``.
        n_images: Number of images, with and without lesions.
    """

    lesion_image: Integers
    best: Floats
    box_image: Integers
    box_score: Floats
    false: npt.NDArray[np.bool_]
    n_images: int


def find_lesions(pairs: BoxPairs) -> LesionHits:
    """Find the lesions that predicted boxes hit, and the predicted boxes that hit no lesion.

    A lesion may be hit by several boxes, and a box may hit several lesions.

    Source:
        Chakraborty 1989 (free-response marks).
    """
    hits = pairs.iou >= HIT
    best = np.full(len(pairs.truth.image), -np.inf)
    np.maximum.at(best, pairs.true[hits], pairs.boxes.score[pairs.box[hits]])
    false = np.ones(len(pairs.boxes.score), dtype=bool)
    false[pairs.box[hits]] = False
    return LesionHits(
        lesion_image=pairs.truth.image,
        best=best,
        box_image=pairs.boxes.image,
        box_score=pairs.boxes.score,
        false=false,
        n_images=len(pairs.truth.per_image),
    )


class WeightedFroc:
    """Sensitivity per lesion at given false positives per image, for many weightings of patients.

    A lesion is found if at least one box hits it; further boxes on it change nothing. A box that
    hits no lesion is a false positive. Each score is an operating point, at which the boxes of this
    score or a higher one count. The sensitivity at a rate of false positives is the highest one
    among the operating points that do not exceed the rate. There is no interpolation between
    operating points.

    `clusters` numbers the patient of each image from 0 to `n_clusters` - 1.

    Source:
        Chakraborty 1989.

    Examples:
        >>> hits = LesionHits(np.array([0, 0]), np.array([0.9, 0.3]), np.array([0, 0, 1]),
        ...     np.array([0.9, 0.3, 0.4]), np.array([False, False, True]), 2)
        >>> froc = WeightedFroc(hits, np.array([0, 1]), 2)
        >>> froc.figures(np.ones((1, 2), dtype=int), (0.25, 0.5)).tolist()
        [[0.75, 0.5, 1.0]]
    """

    def __init__(self, hits: LesionHits, clusters: Integers, n_clusters: int) -> None:
        patients = np.asarray(clusters)
        lesions_found = np.flatnonzero(hits.best > -np.inf)
        lesions_found = lesions_found[np.argsort(-hits.best[lesions_found], kind="stable")]
        self._patient_of_found = patients[hits.lesion_image[lesions_found]]
        # Lesions are ordered by falling score. A false box counts at the scores of all lesions
        # that do not exceed its own score, so running sums over the lesions give its counts.
        false_scores = hits.box_score[hits.false]
        segment = np.searchsorted(-hits.best[lesions_found], -false_scores, side="left")
        patient_of_false = patients[hits.box_image[hits.false]]
        counted = segment < len(lesions_found)
        self._false = SegmentSums(
            segment[counted], patient_of_false[counted], len(lesions_found), n_clusters
        )
        self._n_images = np.bincount(patients, minlength=n_clusters)
        self._n_lesions = np.bincount(patients[hits.lesion_image], minlength=n_clusters)

    def figures(self, weights: Integers, rates: Sequence[float]) -> Floats:
        """Compute the mean over the rates and the sensitivity at each rate, ``(R, 1 + rates)``.

        `weights` has the shape ``(R, P)``, and a rate is a number of false positives per image.
        Rows in which no patient with a lesion has a weight are NaN.
        """
        weight = np.asarray(weights, dtype=np.float64)
        n_images = weight @ self._n_images
        n_lesions = weight @ self._n_lesions
        false = RunningRows(self._false(weights))
        n_found = np.cumsum(
            np.take(weights, self._patient_of_found, axis=1), axis=1, dtype=np.int64
        )
        n_found = np.pad(n_found, ((0, 0), (1, 0)))  # before the first lesion, none is found
        position = false.search(np.floor(np.outer(n_images, rates)), side="right")  # (R, rates)
        at_rates = np.take_along_axis(n_found, position, axis=1)
        mean = at_rates.sum(axis=1, keepdims=True) / len(rates)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.hstack([mean, at_rates]) / n_lesions[:, None])


class FrocCurve(NamedTuple):
    """FROC curve: sensitivity per lesion against the mean number of false positives per image.

    From point to point, neither array falls. Both have the shape ``(points,)``, and are empty if
    there is no lesion.
    """

    false_positives_per_image: Floats
    sensitivity: Floats

    def __repr__(self) -> str:
        if not len(self.sensitivity):
            return "<FROC curve without a true box>"
        last_rate = self.false_positives_per_image[-1]
        return (
            f"<FROC curve of {len(self.sensitivity)} points, up to sensitivity "
            f"{self.sensitivity[-1]:.3f} at {last_rate:.3f} false positives per image>"
        )


def froc_curve(hits: LesionHits) -> FrocCurve:
    """Compute the FROC curve, from (0, 0) to the point at which every box counts.

    It is empty if there is no lesion.

    Source:
        Chakraborty 1989.
    """
    n_lesions = len(hits.best)
    if not n_lesions:
        return FrocCurve(np.empty(0), np.empty(0))
    found_scores = np.sort(-hits.best[hits.best > -np.inf])
    false_scores = np.sort(-hits.box_score[hits.false])
    cuts = np.unique(found_scores)
    n_found = np.searchsorted(found_scores, cuts, side="right")
    false = np.searchsorted(false_scores, cuts, side="right")
    return FrocCurve(
        np.concatenate([[0], false, [len(false_scores)]]) / hits.n_images,
        np.concatenate([[0], n_found, [len(found_scores)]]) / n_lesions,
    )
