"""FROC: sensitivity per lesion against false positives per image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cxr_compare.evaluation.boxes.box_checks import check_arguments
from cxr_compare.evaluation.boxes.boxes_table import box_arguments
from cxr_compare.evaluation.boxes.lesion_hits import HIT_RULES, Hit, LesionHits, find_lesions
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.running_sums import RunningRows, SegmentSums

FROC_RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False positives per image at which sensitivity is given and averaged."""


class WeightedFroc:
    """Sensitivity per lesion at 1/8 to 8 false positives per image, for many image weightings.

    A lesion is found by any mark that hits it. A mark that hits no lesion is a false positive;
    further marks on a lesion are neither. Of the operating points within a rate (marks from a score
    up, equal scores together), the most sensitive counts: a step, never a line between points.

    Args:
        hits: Lesions and marks.
        clusters: Number of each image's patient from 0, shape ``(images,)``.
        n_clusters: Number of patients, P.

    Source:
        Chakraborty 1989; the rates are those of LUNA16 (Setio et al. 2017).

    Example:
        >>> hits = LesionHits(np.array([0, 0]), np.array([0.9, 0.3]), np.array([0, 0, 1]),
        ...     np.array([0.9, 0.3, 0.4]), np.array([False, False, True]), 2)
        >>> froc = WeightedFroc(hits, np.array([0, 1]), 2)
        >>> froc.figures(np.ones((1, 2), dtype=int), rates=(0.25, 0.5)).tolist()
        [[0.75, 0.5, 1.0]]
    """

    def __init__(self, hits: LesionHits, clusters: Integers, n_clusters: int) -> None:
        patients = np.asarray(clusters)
        found = np.flatnonzero(hits.best > -np.inf)
        found = found[np.argsort(-hits.best[found], kind="stable")]
        self._patient_of_found = patients[hits.lesion_image[found]]
        # A false mark is called wherever a lesion of no higher score is: add up over lesions.
        false_scores = hits.mark_score[hits.false]
        segment = np.searchsorted(-hits.best[found], -false_scores, side="left")
        patient_of_false = patients[hits.mark_image[hits.false]]
        counted = segment < len(found)
        self._false = SegmentSums(
            segment[counted], patient_of_false[counted], len(found), n_clusters
        )
        self._n_images = np.bincount(patients, minlength=n_clusters)
        self._n_lesions = np.bincount(patients[hits.lesion_image], minlength=n_clusters)

    def figures(self, weights: Integers, rates: Sequence[float] = FROC_RATES) -> Floats:
        """Compute the mean sensitivity and the sensitivity at each rate.

        Args:
            weights: Whole-number weights of patients, shape ``(R, P)``.
            rates: False positives per image.

        Returns:
            The mean, then the sensitivity at each rate, shape ``(R, 1 + rates)``; NaN where a row
            has no lesion.
        """
        weight = np.asarray(weights, dtype=np.float64)
        n_images = weight @ self._n_images
        n_lesions = weight @ self._n_lesions
        false = RunningRows(self._false(weights))
        found = np.cumsum(np.take(weights, self._patient_of_found, axis=1), axis=1, dtype=np.int64)
        found = np.pad(found, ((0, 0), (1, 0)))  # before the first lesion, none is found
        position = false.search(np.floor(np.outer(n_images, rates)), side="right")  # (R, rates)
        at_rates = np.take_along_axis(found, position, axis=1)
        mean = at_rates.sum(axis=1, keepdims=True) / len(rates)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.hstack([mean, at_rates]) / n_lesions[:, None])


class FrocCurve(NamedTuple):
    """FROC curve; both figures rise, and both are empty without lesions.

    Attributes:
        false_positives_per_image: Mean number of false positives per image, shape ``(points,)``.
        sensitivity: Share of the lesions that is found, shape ``(points,)``.

    Example:
        >>> curve = FrocCurve(np.array([0.0, 0.5]), np.array([0.4, 0.8]))
        >>> curve
        <FROC curve of 2 points, up to sensitivity 0.800 at 0.500 false positives per image>
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


def froc(
    boxes: Any, truth: Any, image_ids: Iterable[Any] | None = None, *, hit: Hit = "iou"
) -> FrocCurve:
    """Compute sensitivity against false positives per image, a point per score that adds a lesion.

    Args:
        boxes: Predicted boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px),
            ``score``; or outputs of a detection library, as `cxr_compare.boxes_table` takes them.
            The 100 most confident of an image count. Other images are ignored.
        truth: True boxes, the same without scores.
        image_ids: Every image evaluated, with and without boxes, unique; any sequence. Left out:
            boxes and truth are lists with an output for each image, in the same order.
        hit: Rule by which a box finds a lesion: ``iou``, an overlap of at least 0.2; ``centre``,
            the centre of the box lies in the lesion.

    Returns:
        The curve. Both figures start at 0, and the last point calls every box. Empty where no
        image has a true box.

    Raises:
        InputError: A value is no box or no score, an id repeats, or ids match nothing.

    Source:
        Chakraborty 1989.

    Example:
        >>> import pandas as pd
        >>> from cxr_compare import metrics
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0], "y1": [0], "x2": [9], "y2": [9]})
        >>> marks = pd.concat([truth.assign(score=0.4), truth.assign(score=0.8, image_id="b")])
        >>> curve = metrics.froc(marks, truth, ["a", "b"])
        >>> curve.false_positives_per_image.tolist(), curve.sensitivity.tolist()
        ([0.0, 0.5, 0.5], [0.0, 1.0, 1.0])
    """
    boxes, truth, ids = box_arguments(boxes, truth, image_ids)
    ids = check_arguments(boxes, truth, ids)
    return froc_curve(find_lesions(pair_boxes(boxes, truth, ids), HIT_RULES[hit]))


def froc_curve(hits: LesionHits) -> FrocCurve:
    """Compute the curve of `froc` from lesions and marks.

    Args:
        hits: Lesions and marks, see `find_lesions`.

    Returns:
        The curve; empty without lesions.

    Source:
        Chakraborty 1989.

    Example:
        >>> hits = LesionHits(np.array([0]), np.array([0.9]), np.array([0, 1]),
        ...     np.array([0.9, 0.4]), np.array([False, True]), 2)
        >>> froc_curve(hits)
        <FROC curve of 3 points, up to sensitivity 1.000 at 0.500 false positives per image>
    """
    n_lesions = len(hits.best)
    if not n_lesions:
        return FrocCurve(np.empty(0), np.empty(0))
    found_scores = np.sort(-hits.best[hits.best > -np.inf])
    false_scores = np.sort(-hits.mark_score[hits.false])
    cuts = np.unique(found_scores)
    found = np.searchsorted(found_scores, cuts, side="right")
    false = np.searchsorted(false_scores, cuts, side="right")
    return FrocCurve(
        np.concatenate([[0], false, [len(false_scores)]]) / hits.n_images,
        np.concatenate([[0], found, [len(found_scores)]]) / n_lesions,
    )
