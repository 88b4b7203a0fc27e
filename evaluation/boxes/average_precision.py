"""COCO average precision of boxes: of one set of images, and for many image weightings at once.

Boxes of an image choose in falling score (equal scores in the order of their rows). Each takes the
free true box of highest IoU if that reaches the threshold (among equal IoU the later true box).
Images without lesions take part. Average precision is COCO's 101-point interpolation.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cxr_compare.evaluation.boxes.box_checks import check_arguments
from cxr_compare.evaluation.boxes.boxes_table import box_arguments
from cxr_compare.evaluation.boxes.matching import (
    IOU_THRESHOLDS,
    MAX_BOXES,
    BoxMatches,
    BoxPairs,
    pair_boxes,
)
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.running_sums import RunningRows, SegmentSums

_RECALL_POINTS = np.linspace(0.0, 1.0, 101)


class WeightedAveragePrecision:
    """COCO average precision of matched boxes, for many image weightings at once.

    Precision matters only where a true box is found, so the boxes that find none at any
    threshold, most of them, are summed per patient beforehand.
    """

    def __init__(self, matches: BoxMatches, clusters: Integers, n_clusters: int) -> None:
        owner = np.asarray(clusters)
        self._n_true = np.bincount(owner, weights=matches.n_true, minlength=n_clusters)
        of_box = owner[matches.image]
        finds = matches.hit.any(axis=1)
        self._finder = of_box[finds]
        self._hits = [np.flatnonzero(hit) for hit in matches.hit[finds].T]
        # Boxes that find nothing: above the first find, between the first and the second, ...
        segment: npt.NDArray[np.int64] = np.cumsum(finds) - finds
        counted = ~finds & (segment < finds.sum())
        self._idle = SegmentSums(segment[counted], of_box[counted], int(finds.sum()), n_clusters)

    def __call__(self, weights: Integers) -> Floats:
        """Average precision, shape ``(R, thresholds)``; NaN where a weighting has no true box."""
        n_true = np.asarray(weights, dtype=np.float64) @ self._n_true  # (R,)
        finder = np.take(weights, self._finder, axis=1)  # (R, finds)
        called = np.cumsum(self._idle(weights) + finder, axis=1, dtype=np.int64) + np.spacing(1)
        needed = _needed(n_true)  # (R, 101)
        figures = np.full((len(weights), len(self._hits)), np.nan)
        for column, hit in enumerate(self._hits):
            true = RunningRows(np.take(finder, hit, axis=1))
            figures[:, column] = _interpolated(true, np.take(called, hit, axis=1), needed)
        figures[n_true == 0] = np.nan
        return figures


def _interpolated(true: RunningRows, called: Floats, needed: Floats) -> Floats:
    """Mean over 101 recall levels of the best precision at that recall or beyond."""
    n_finds = called.shape[1]
    if not n_finds:
        return np.zeros(len(called))
    precision = np.zeros(called.size + 1)  # row behind row, and an end
    np.divide(true.sums, called, out=precision[:-1].reshape(called.shape))
    place = true.search(needed)  # (R, 101), rising
    # The best between one recall level and the next, then the best from there on. The first level
    # is at the start of its row, so that no stretch runs into the next row.
    best = np.maximum.reduceat(precision, (place + true.starts).ravel()).reshape(place.shape)
    best[place == n_finds] = 0.0
    best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(best.sum(axis=1) / len(_RECALL_POINTS))


def _needed(n_true: Floats) -> Floats:
    """The fewest finds whose recall, as a float, reaches each recall point: shape ``(R, 101)``."""
    total = np.maximum(n_true, 1.0)[:, None]
    needed = np.ceil(_RECALL_POINTS * total)
    needed = np.where((needed - 1) / total >= _RECALL_POINTS, needed - 1, needed)
    return np.where(needed / total < _RECALL_POINTS, needed + 1, needed)


_MARGIN = 1e-6  # around a threshold pycocotools decides itself


def average_precision(
    boxes: Any, truth: Any, image_ids: Iterable[Any] | None = None
) -> dict[str, float | None]:
    """COCO's AP50 and AP[.5:.95] of one class, by pycocotools itself.

    Negative images take part, no prediction at all scores 0, and of the boxes of an image the
    100 most confident count. Equal scores are ranked in the order of `image_ids`.

    Args:
        boxes: Predicted boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px),
            ``score``; or outputs of a detection library, as `cxr_compare.boxes_table` takes them,
            one for each of `image_ids`. May be empty; boxes of other images are ignored.
        truth: True boxes, the same without scores.
        image_ids: Every image evaluated, with and without boxes, unique; any sequence. Left out:
            boxes and truth are lists with an output for each image, in the same order.

    Returns:
        ``ap50`` and ``ap`` in [0, 1]; `None` where no image has a true box.

    Raises:
        InputError: A value is no box or no score, an id repeats, or ids match nothing.

    Source:
        Lin et al. 2014, as computed by pycocotools.

    Example:
        >>> from cxr_compare import metrics
        >>> true = [{"boxes": [[0, 0, 9, 9]]}, {"boxes": []}]
        >>> found = [{"boxes": [[0, 0, 9, 9]], "scores": [0.9]}, {"boxes": [], "scores": []}]
        >>> figures = metrics.box_average_precision(found, true)
        >>> {name: round(figure, 6) for name, figure in figures.items()}
        {'ap50': 1.0, 'ap': 1.0}
    """
    boxes, truth, ids = box_arguments(boxes, truth, image_ids)
    ids = check_arguments(boxes, truth, ids)
    return unchecked_average_precision(boxes, truth, ids)


def unchecked_average_precision(
    boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index
) -> dict[str, float | None]:
    """Return the figures of `average_precision` of boxes that a network of ours has just made."""
    return coco_average_precision(pair_boxes(boxes, truth, image_ids))


def coco_average_precision(pairs: BoxPairs) -> dict[str, float | None]:
    """The figures of `average_precision` from boxes that are paired already.

    A box that overlaps no true box by half can match none, so pycocotools is asked about the
    others alone, and only where two compete. Its loop over all is replaced: the same, to the last
    digit.
    """
    n_true = len(pairs.truth.image)
    if not n_true:
        return {"ap50": None, "ap": None}
    precision = _precision(_matched(pairs), pairs.boxes.score, n_true)
    return {"ap50": float(precision[0].mean()), "ap": float(precision.mean())}


def _matched(pairs: BoxPairs) -> npt.NDArray[np.bool_]:
    """Which boxes pycocotools matches, shape ``(thresholds, boxes)``."""
    hit = np.zeros((len(IOU_THRESHOLDS), len(pairs.boxes.score)), dtype=bool)
    near = pairs.iou >= IOU_THRESHOLDS.min() - _MARGIN
    box, true, iou = pairs.box[near], pairs.true[near], pairs.iou[near]
    # A box and a true box with no other near either of them match where they overlap enough.
    plain = (np.bincount(box)[box] == 1) & (np.bincount(true)[true] == 1)
    plain &= np.abs(iou[:, None] - IOU_THRESHOLDS).min(axis=1) > _MARGIN
    hit[:, box[plain]] = iou[plain] >= IOU_THRESHOLDS[:, None]
    near = np.unique(box[~plain])
    images = np.unique(pairs.boxes.image[near])
    if not len(images):
        return hit
    boxes, scores = pairs.boxes, pairs.boxes.score[near]
    found = _annotations(boxes.image[near], boxes.corners[near], scores)
    evaluated = np.isin(pairs.truth.image, images)
    true = _annotations(pairs.truth.image[evaluated], pairs.truth.corners[evaluated])
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(_coco(true, images), _coco(found, images), "bbox")
        evaluator.params.maxDets = [MAX_BOXES]
        # Without the three ranges of sizes, which would take three times as long again.
        evaluator.params.areaRng, evaluator.params.areaRngLbl = (
            evaluator.params.areaRng[:1],
            ["all"],
        )
        evaluator.evaluate()
    matches = np.concatenate([image["dtMatches"] for image in evaluator.evalImgs], axis=1)
    ids = np.concatenate([image["dtIds"] for image in evaluator.evalImgs])
    hit[:, near[ids - 1]] = matches > 0
    return hit


def _precision(hit: npt.NDArray[np.bool_], scores: Floats, n_true: int) -> Floats:
    """Precision as pycocotools accumulates it, shape ``(thresholds, recall points)``."""
    falling = np.argsort(-scores, kind="stable")
    places = [np.flatnonzero(of_threshold[falling]) + 1 for of_threshold in hit]
    return np.array([best_precision(called, n_true, _RECALL_POINTS) for called in places])


def best_precision(
    called: Integers, n_true: int, recall: Floats, *, beyond: bool = False
) -> Floats:
    """The best precision at each recall or above it (strictly, if beyond); 0 past the last hit.

    `called` are the places of the hits, from 1, among the boxes in falling score.
    """
    true = np.arange(1, len(called) + 1)
    best = np.maximum.accumulate((true / (called + np.spacing(1)))[::-1])[::-1]
    side: Literal["left", "right"] = "right" if beyond else "left"
    return np.append(best, 0)[np.searchsorted(true / n_true, recall, side=side)]


def _annotations(
    image: Integers, corners: Floats, scores: Floats | None = None
) -> list[dict[str, Any]]:
    """COCO annotations; ids start at 1, since pycocotools takes 0 for "not matched"."""
    given = np.ones(len(image)) if scores is None else scores
    sizes = corners[:, 2:] - corners[:, :2]
    columns = (image, np.hstack([corners[:, :2], sizes]), sizes.prod(axis=1), given)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {"id": number, "image_id": place, "category_id": 1, "bbox": bbox, "area": area,
         "iscrowd": 0, "score": score}
        for number, (place, bbox, area, score) in enumerate(rows, start=1)
    ]  # fmt: skip


def _coco(annotations: list[dict[str, Any]], images: Integers) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in images.tolist()],
        "categories": [{"id": 1, "name": "target"}],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
