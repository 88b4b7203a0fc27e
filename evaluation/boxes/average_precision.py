"""COCO average precision of boxes, for one set of images or for many weightings of the patients.

The predicted boxes of an image are matched in the order of falling scores; equal scores keep the
order of their rows. Each predicted box is matched to the unmatched true box with which its IoU is
highest, if that IoU reaches the threshold. Among true boxes of equal IoU the later one is matched.
Boxes on images without lesions count as false positives, and boxes on a crowd are not counted.
Average precision is the mean of the interpolated precision at COCO's 101 recall levels 0, 0.01,
... 1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr_compare.evaluation.boxes.matching import BoxMatches, match_pairs, pair_boxes
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.running_sums import RunningRows, SegmentSums

_RECALL_POINTS = np.linspace(0.0, 1.0, 101)


class WeightedAveragePrecision:
    """Average precision of matched boxes, for many weightings of the patients at once.

    It is that of COCO over 101 recall levels. It needs the precision only at the boxes that match a
    true box. Most boxes match none at any threshold; they are counted for each patient once, before
    any weighting. `clusters` numbers the patient of each image from 0 to `n_clusters` - 1.

    Source:
        Lin et al. 2014 (COCO).

    Examples:
        >>> from cxr_compare.evaluation.boxes.matching import match_pairs, pair_boxes
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> boxes = pd.concat([truth.assign(image_id="b", score=0.9), truth.assign(score=0.4)])
        >>> matches = match_pairs(pair_boxes(boxes, truth, pd.Index(["a", "b"])), [0.5])
        >>> precision = WeightedAveragePrecision(matches, np.array([0, 1]), 2)
        >>> precision(np.array([[1, 1], [1, 0]])).round(3).tolist()
        [[0.5], [1.0]]
    """

    def __init__(self, matches: BoxMatches, clusters: Integers, n_clusters: int) -> None:
        patients = np.asarray(clusters)
        self._n_true = np.bincount(patients, weights=matches.n_true, minlength=n_clusters)
        patient_of_box = patients[matches.image]
        finds = matches.hit.any(axis=1)
        self._patient_of_finder = patient_of_box[finds]
        self._hits = [np.flatnonzero(hit) for hit in matches.hit[finds].T]
        # Boxes that match no true box, counted in segments: before the first matching box, between
        # the first and the second, and so on. Those after the last one change no precision.
        segment: Integers = np.cumsum(finds) - finds
        counted = ~finds & (segment < finds.sum())
        self._others = SegmentSums(
            segment[counted], patient_of_box[counted], int(finds.sum()), n_clusters
        )
        # Boxes on a crowd do not count; which ones differs between the thresholds.
        self._ignored: list[SegmentSums] = []
        if matches.is_ignored.any():
            for is_ignored in (matches.is_ignored & (segment < finds.sum())[:, None]).T:
                of_box = segment[is_ignored], patient_of_box[is_ignored]
                self._ignored.append(SegmentSums(*of_box, int(finds.sum()), n_clusters))

    def __call__(self, weights: Integers) -> Floats:
        """Compute the average precision, ``(R, thresholds)``, under R weightings, shape ``(R, P)``.

        It is in [0, 1], and NaN where no patient with a true box has a weight.
        """
        n_true = np.asarray(weights, dtype=np.float64) @ self._n_true  # (R,)
        finder = np.take(weights, self._patient_of_finder, axis=1)  # (R, finds)
        n_called = np.cumsum(self._others(weights) + finder, axis=1, dtype=np.int64)
        called = n_called + np.spacing(1)
        needed = _finds_needed(n_true)  # (R, 101)
        figures = np.full((len(weights), len(self._hits)), np.nan)
        for column, hit in enumerate(self._hits):
            if self._ignored:
                n_ignored = np.cumsum(self._ignored[column](weights), axis=1, dtype=np.int64)
                called = n_called - n_ignored + np.spacing(1)
            weight_of_hits = np.take(finder, hit, axis=1)
            called_at_hits = np.take(called, hit, axis=1)
            figures[:, column] = _interpolated(RunningRows(weight_of_hits), called_at_hits, needed)
        figures[n_true == 0] = np.nan
        return figures


def _interpolated(true: RunningRows, called: Floats, needed: Floats) -> Floats:
    """Average the highest precision at or beyond each of the 101 recall levels, shape ``(R,)``."""
    n_finds = called.shape[1]
    if not n_finds:
        return np.zeros(len(called))
    precision = np.zeros(called.size + 1)  # all rows, one after the other, and a 0 at the end
    np.divide(true.sums, called, out=precision[:-1].reshape(called.shape))
    position = true.search(needed)  # (R, 101), rising
    # First the highest precision between one recall level and the next, then the highest from each
    # level to the end of its row. The first level starts a row, so no section crosses two rows.
    starts = (position + true.starts).ravel()
    best = np.maximum.reduceat(precision, starts).reshape(position.shape)
    best[position == n_finds] = 0.0
    best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(best.sum(axis=1) / len(_RECALL_POINTS))


def _finds_needed(n_true: Floats) -> Floats:
    """Return the fewest matched true boxes that reach each recall level, shape ``(R, 101)``.

    Recall is compared as a float, as pycocotools does.
    """
    total = np.maximum(n_true, 1.0)[:, None]
    needed = np.ceil(_RECALL_POINTS * total)
    needed = np.where((needed - 1) / total >= _RECALL_POINTS, needed - 1, needed)
    return np.where(needed / total < _RECALL_POINTS, needed + 1, needed)


def box_precision(
    boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index
) -> dict[str, float | None]:
    """Compute ``ap50`` and ``ap`` of the boxes of one class; None without a true box.

    Both tables have ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px), that of predicted
    boxes also ``score``. A true box whose optional column ``crowd`` is True is no lesion to find,
    and a predicted box on it is not counted. Boxes of other images than `image_ids` are ignored.

    Source:
        Lin et al. 2014 (COCO).
    """
    pairs = pair_boxes(boxes, truth, image_ids)
    if not pairs.truth.per_image.any():
        return {"ap50": None, "ap": None}
    one_cluster = np.zeros(len(image_ids), np.int64)
    kernel = WeightedAveragePrecision(match_pairs(pairs), one_cluster, n_clusters=1)
    at_iou = kernel(np.ones((1, 1), np.int64))[0]  # (IoU thresholds,)
    return {"ap50": float(at_iou[0]), "ap": float(at_iou.mean())}
