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
    """Sensitivity per lesion at 1/8 to 8 false positives per image, and its mean.

    A lesion is found by any mark that hits it; a mark that hits no lesion is false; further marks
    on a lesion are neither. Of the operating points that keep a rate (marks from a score up, equal
    scores together), the most sensitive counts: a step, never a line between points.

    Source:
        Chakraborty 1989; the rates are those of LUNA16 (Setio et al. 2017).
    """

    def __init__(self, finds: LesionHits, clusters: Integers, n_clusters: int) -> None:
        owner, best = np.asarray(clusters), finds.best
        found = np.flatnonzero(best > -np.inf)
        found = found[np.argsort(-best[found], kind="stable")]
        self._finder = owner[finds.lesion_image[found]]
        # A false mark is called wherever a lesion of no higher score is: add up over lesions.
        segment = np.searchsorted(-best[found], -finds.mark_score[finds.false], side="left")
        of_box = owner[finds.mark_image[finds.false]]
        counted = segment < len(found)
        self._false = SegmentSums(segment[counted], of_box[counted], len(found), n_clusters)
        self._images = np.bincount(owner, minlength=n_clusters)
        self._lesions = np.bincount(owner[finds.lesion_image], minlength=n_clusters)

    def figures(self, weights: Integers, rates: Sequence[float] = FROC_RATES) -> Floats:
        """The mean, then the sensitivity at each of the rates; NaN without a lesion."""
        weight = np.asarray(weights, dtype=np.float64)
        n_images, n_lesions = weight @ self._images, weight @ self._lesions
        false = RunningRows(self._false(weights))
        found = np.cumsum(np.take(weights, self._finder, axis=1), axis=1, dtype=np.int64)
        found = np.pad(found, ((0, 0), (1, 0)))  # before the first find, nothing is found
        kept = false.search(np.floor(np.outer(n_images, rates)), side="right")  # (R, rates)
        at_rates = np.take_along_axis(found, kept, axis=1)
        mean = at_rates.sum(axis=1, keepdims=True) / len(rates)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.hstack([mean, at_rates]) / n_lesions[:, None])


class FrocCurve(NamedTuple):
    """Sensitivity per lesion against false positives per image, rising; empty without lesions."""

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
    """Sensitivity against false positives per image, a point per score that adds a lesion.

    Args:
        boxes: Predicted boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px),
            ``score``; or outputs of a detection library, as `cxr_compare.boxes_table` takes them.
            The 100 most confident of an image count. Other images are ignored.
        truth: True boxes, the same without scores.
        image_ids: Every image evaluated, with and without boxes, unique; any sequence. Left out:
            boxes and truth are lists with an output for each image, in the same order.
        hit: What finds a lesion: ``iou``, an overlap of at least 0.2; ``centre``, the centre of a
            box that lies in it.

    Returns:
        Both figures start at 0, and the last point calls every box. Empty where no image has a
        true box.

    Raises:
        InputError: A value is no box or no score, an id repeats, or ids match nothing.

    Source:
        Chakraborty 1989.

    Example:
        >>> import pandas as pd
        >>> from cxr_compare import metrics
        >>> true = pd.DataFrame({"image_id": ["a"], "x1": [0], "y1": [0], "x2": [9], "y2": [9]})
        >>> marks = pd.concat([true.assign(score=0.4), true.assign(score=0.8, image_id="b")])
        >>> curve = metrics.froc(marks, true, ["a", "b"])
        >>> curve.false_positives_per_image.tolist(), curve.sensitivity.tolist()
        ([0.0, 0.5, 0.5], [0.0, 1.0, 1.0])
    """
    boxes, truth, ids = box_arguments(boxes, truth, image_ids)
    ids = check_arguments(boxes, truth, ids)
    return froc_curve(find_lesions(pair_boxes(boxes, truth, ids), HIT_RULES[hit]))


def froc_curve(finds: LesionHits) -> FrocCurve:
    """See `froc`; of boxes of which is known what they find."""
    best = finds.best
    if not len(best):
        return FrocCurve(np.empty(0), np.empty(0))
    rising = np.sort(-best[best > -np.inf])
    cuts, wrong = np.unique(rising), np.sort(-finds.mark_score[finds.false])
    found = np.searchsorted(rising, cuts, side="right")
    called = np.searchsorted(wrong, cuts, side="right")
    return FrocCurve(
        np.concatenate([[0], called, [len(wrong)]]) / finds.n_images,
        np.concatenate([[0], found, [len(rising)]]) / len(best),
    )
