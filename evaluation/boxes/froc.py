"""Free-response ROC (FROC) curve: sensitivity per lesion against false positives per image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.evaluation.boxes.boxes_table import box_arguments
from cxr_compare.evaluation.boxes.lesion_hits import HIT_RULES, Hit, LesionHits, find_lesions
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.running_sums import RunningRows, SegmentSums

FROC_RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""Numbers of false positives per image at which the sensitivity is reported and averaged."""


class WeightedFroc:
    """Sensitivity per lesion at given false positives per image, for many weightings of patients.

    A mark is a predicted box, or a box or point that a reader set. A lesion is found if at least
    one mark hits it; further marks on it change nothing. A mark that hits no lesion is a false
    positive. Each score is an operating point, at which the marks of this score or a higher one
    count. The sensitivity at a rate of false positives is the highest one among the operating
    points that do not exceed the rate. There is no interpolation between operating points.

    `clusters` numbers the patient of each image from 0 to `n_clusters` - 1.

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
        # Lesions are ordered by falling score. A false mark counts at the scores of all lesions
        # that do not exceed its own score, so running sums over the lesions give its counts.
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
        """Compute the mean over the rates and the sensitivity at each rate, ``(R, 1 + rates)``.

        `weights` has the shape ``(R, P)``, and a rate is a number of false positives per image.
        Rows in which no patient with a lesion has a weight are NaN.
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


@with_known_keywords
def froc(
    boxes: Any, truth: Any, image_ids: Iterable[Any] | None = None, *, hit: Hit = "iou"
) -> FrocCurve:
    """Compute the FROC curve of predicted boxes.

    The curve gives the share of lesions that are found against the mean number of false positives
    per image. A lesion is found if at least one box hits it. A box that hits no lesion is a false
    positive. The curve has one point for each score at which a further lesion is found.

    Args:
        boxes: Predicted boxes, as a table with the columns ``image_id``, ``x1``, ``y1``, ``x2``,
            ``y2`` (original px) and ``score`` (in [0, 1]), or as a list of the outputs of a
            detection library (torchvision, Ultralytics or supervision), one for each image. The 100
            most confident boxes of each image count. Boxes of images that are not in `image_ids`
            are ignored.
        truth: True boxes, one for each lesion, in one of the same two forms, without scores.
        image_ids: Ids of all images that are evaluated, with and without boxes, each once. None is
            allowed if `boxes` and `truth` are lists that hold one output for each image, in the
            same order.
        hit: Rule by which a box hits a lesion. With ``iou``, the IoU of the two must be at least
            0.2; with ``centre``, the centre of the box must lie in the lesion's box.

    Returns:
        The curve. Its first point is (0, 0), and at its last point every box counts. The curve is
        empty if no image has a true box.

    Raises:
        InputError: A box or a score is invalid, an id in `image_ids` repeats, no image of a table
            is in `image_ids`, or a table spells the id of an image in another way than `image_ids`.

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
    if hit not in HIT_RULES:
        raise InputError(f"hit: {hit!r} is unknown; choose {', '.join(HIT_RULES)}")
    boxes, truth, ids = box_arguments(boxes, truth, image_ids)
    return froc_curve(find_lesions(pair_boxes(boxes, truth, ids), HIT_RULES[hit]))


def froc_curve(hits: LesionHits) -> FrocCurve:
    """Compute the FROC curve, from (0, 0) to the point at which every mark counts.

    It is empty if there is no lesion.

    Source:
        Chakraborty 1989.
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
