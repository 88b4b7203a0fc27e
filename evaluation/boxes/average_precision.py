"""COCO average precision of boxes, for one set of images or for many weightings of the patients.

The predicted boxes of an image are matched in the order of falling scores; equal scores keep the
order of their rows. Each predicted box is matched to the unmatched true box with which its IoU is
highest, if that IoU reaches the threshold. Among true boxes of equal IoU the later one is matched.
Boxes on images without lesions count as false positives. Average precision is the mean of the
interpolated precision at COCO's 101 recall levels 0, 0.01, ... 1. `WeightedAveragePrecision` can
take Pascal VOC's in its place, the area under the interpolated precision.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.evaluation.boxes.best_precision import best_precision
from cxr_compare.evaluation.boxes.boxes_table import box_arguments
from cxr_compare.evaluation.boxes.matching import (
    IOU_THRESHOLDS,
    MAX_BOXES,
    BoxMatches,
    BoxPairs,
    pair_boxes,
)
from cxr_compare.evaluation.boxes.other_readings import other_readings
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.ranking import area_under_best
from cxr_compare.evaluation.statistics.running_sums import RunningRows, SegmentSums

_RECALL_POINTS = np.linspace(0.0, 1.0, 101)
_MARGIN = 1e-6  # pycocotools decides on pairs whose IoU is this near to a threshold


class WeightedAveragePrecision:
    """Average precision of matched boxes, for many weightings of the patients at once.

    It is that of COCO over 101 recall levels or, with `every_recall`, that of Pascal VOC from 2010
    on. Average precision needs the precision only at the boxes that match a true box. Most boxes
    match none at any threshold; they are counted for each patient once, before any weighting.
    `clusters` numbers the patient of each image from 0 to `n_clusters` - 1.

    Source:
        Lin et al. 2014 (COCO); Everingham et al. 2010 (Pascal VOC).

    Example:
        >>> from cxr_compare.evaluation.boxes.matching import match_boxes
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> boxes = pd.concat([truth.assign(image_id="b", score=0.9), truth.assign(score=0.4)])
        >>> matches = match_boxes(boxes, truth, ["a", "b"], [0.5])
        >>> precision = WeightedAveragePrecision(matches, np.array([0, 1]), 2)
        >>> precision(np.array([[1, 1], [1, 0]])).round(3).tolist()
        [[0.5], [1.0]]
    """

    def __init__(
        self,
        matches: BoxMatches,
        clusters: Integers,
        n_clusters: int,
        *,
        every_recall: bool = False,
    ) -> None:
        self._every_recall = every_recall
        patients = np.asarray(clusters)
        self._n_true = np.bincount(patients, weights=matches.n_true, minlength=n_clusters)
        patient_of_box = patients[matches.image]
        finds = matches.hit.any(axis=1)
        self._patient_of_finder = patient_of_box[finds]
        self._hits = [np.flatnonzero(hit) for hit in matches.hit[finds].T]
        # Boxes that match no true box, counted in segments: before the first matching box, between
        # the first and the second, and so on. Those after the last one change no precision.
        segment: npt.NDArray[np.int64] = np.cumsum(finds) - finds
        counted = ~finds & (segment < finds.sum())
        self._others = SegmentSums(
            segment[counted], patient_of_box[counted], int(finds.sum()), n_clusters
        )

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
            found = np.take(finder, hit, axis=1)
            called_at_hits = np.take(called, hit, axis=1)
            if self._every_recall:
                precision = np.cumsum(found, axis=1) / called_at_hits
                figures[:, column] = area_under_best(precision, found, n_true)
            else:
                figures[:, column] = _interpolated(RunningRows(found), called_at_hits, needed)
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


@partial(with_known_keywords, name="box_average_precision")
def average_precision(
    boxes: Any, truth: Any, image_ids: Iterable[Any] | None = None
) -> dict[str, float | None]:
    """Compute COCO's AP50 and AP of the boxes of one class, with the result of pycocotools.

    AP50 is the average precision at an IoU threshold of 0.5; AP is its mean over the thresholds
    0.50, 0.55, ... 0.95. Boxes on images without lesions count as false positives. Both figures are
    0 if nothing is predicted. The 100 most confident boxes of each image count. Boxes of equal
    score are ranked in the order of `image_ids`. A true box that COCO marks as a crowd
    (``iscrowd``) is no lesion to find, and a predicted box that lies on it is not counted. If far
    more boxes would match if they were read in another way, such as y before x, a warning says so.

    Args:
        boxes: Predicted boxes, as a table with the columns ``image_id``, ``x1``, ``y1``, ``x2``,
            ``y2`` (original px) and ``score`` (in [0, 1]), or as a list of the outputs of a
            detection library (torchvision, Ultralytics or supervision), one for each image. The
            table may be empty. Boxes of images that are not in `image_ids` are ignored.
        truth: True boxes of the lesions, in one of the same two forms, without scores. The optional
            column ``crowd`` is True for COCO's crowds.
        image_ids: Ids of all images that are evaluated, with and without boxes, each once. None is
            allowed if `boxes` and `truth` are lists that hold one output for each image, in the
            same order.

    Returns:
        The figures ``ap50`` and ``ap`` in [0, 1]; both are None if no image has a true box.

    Raises:
        InputError: A box or a score is invalid, an id in `image_ids` repeats, no image of a table
            is in `image_ids`, or a table spells the id of an image in another way than `image_ids`.

    Source:
        Lin et al. 2014 (COCO), as computed by pycocotools.

    Example:
        >>> from cxr_compare import metrics
        >>> truth = [{"boxes": [[0, 0, 9, 9]]}, {"boxes": []}]
        >>> predicted = [{"boxes": [[0, 0, 9, 9]], "scores": [0.9]}, {"boxes": [], "scores": []}]
        >>> figures = metrics.box_average_precision(predicted, truth)
        >>> {name: round(figure, 6) for name, figure in figures.items()}
        {'ap50': 1.0, 'ap': 1.0}
    """
    boxes, truth, ids = box_arguments(boxes, truth, image_ids, crowds=True)
    if "crowd" not in truth:
        _warn_if_misread(boxes, truth, ids)
        return unchecked_average_precision(boxes, truth, ids)
    is_crowd = truth["crowd"].eq(True).to_numpy(bool)  # missing: none
    _warn_if_misread(boxes, truth[~is_crowd], ids)
    pairs = pair_boxes(boxes, truth[~is_crowd], ids)
    on_crowd = share_on_crowds(pair_boxes(boxes, truth[is_crowd], ids))
    return coco_average_precision(pairs, on_crowd)


def _warn_if_misread(boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index) -> None:
    """Warn if far more boxes would match if they were read in another way."""
    for reading in other_readings(boxes, truth, pd.DataFrame({"image_id": image_ids}))[:1]:
        warnings.warn(f"boxes: {reading.text()}", UserWarning, stacklevel=4)


def unchecked_average_precision(
    boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index
) -> dict[str, float | None]:
    """Compute `average_precision` without checks of the input, for tables that are valid already.

    Training calls it at each validation, on boxes that the network has just predicted.
    """
    return coco_average_precision(pair_boxes(boxes, truth, image_ids))


def share_on_crowds(pairs: BoxPairs) -> Floats:
    """Return the largest share of each predicted box that lies on one crowd, shape ``(boxes,)``."""
    box = pairs.boxes.corners[pairs.box]
    crowd = pairs.truth.corners[pairs.true]
    sides = np.minimum(box[:, 2:], crowd[:, 2:]) - np.maximum(box[:, :2], crowd[:, :2])
    overlap = np.maximum(sides, 0).prod(axis=1) / (box[:, 2:] - box[:, :2]).prod(axis=1)
    share = np.zeros(len(pairs.boxes.score))
    np.maximum.at(share, pairs.box, overlap)
    return share


def coco_average_precision(
    pairs: BoxPairs, on_crowd: Floats | None = None
) -> dict[str, float | None]:
    """Compute COCO's AP50 and AP from pairs of predicted and true boxes of one class.

    A predicted box whose IoU with every true box is below 0.5 matches none. If a predicted and a
    true box have an IoU of 0.5 or more with each other only, they match where this IoU reaches the
    threshold. Only the remaining boxes are given to pycocotools, which is slow. The result,
    ``ap50`` and ``ap``, equals that of pycocotools on all boxes; both are None without a true box.

    `on_crowd` is the share of each predicted box that lies on a crowd: a box that matches no true
    box is not counted at IoU thresholds that its share reaches.

    Source:
        Lin et al. 2014 (COCO), as computed by pycocotools.

    Example:
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> boxes = truth.assign(x2=3.0, score=0.9)  # an IoU of 0.75
        >>> figures = coco_average_precision(pair_boxes(boxes, truth, pd.Index(["a"])))
        >>> {name: round(figure, 6) for name, figure in figures.items()}
        {'ap50': 1.0, 'ap': 0.6}
    """
    n_true = len(pairs.truth.image)
    if not n_true:
        return {"ap50": None, "ap": None}
    hit = _coco_hits(pairs)
    counted = np.ones_like(hit)
    if on_crowd is not None:
        counted = hit | (on_crowd < IOU_THRESHOLDS[:, None])
    precision = _precision(hit, counted, pairs.boxes.score, n_true)
    return {"ap50": float(precision[0].mean()), "ap": float(precision.mean())}


def _coco_hits(pairs: BoxPairs) -> npt.NDArray[np.bool_]:
    """Return True for the predicted boxes that pycocotools matches, ``(thresholds, boxes)``."""
    hit = np.zeros((len(IOU_THRESHOLDS), len(pairs.boxes.score)), dtype=bool)
    near = pairs.iou >= IOU_THRESHOLDS.min() - _MARGIN
    box = pairs.box[near]
    true = pairs.true[near]
    iou = pairs.iou[near]
    # If two boxes reach an IoU of 0.5 with each other only, they match where it is high enough.
    plain = (np.bincount(box)[box] == 1) & (np.bincount(true)[true] == 1)
    plain &= np.abs(iou[:, None] - IOU_THRESHOLDS).min(axis=1) > _MARGIN
    hit[:, box[plain]] = iou[plain] >= IOU_THRESHOLDS[:, None]
    competing = np.unique(box[~plain])
    if not len(competing):
        return hit
    boxes = pairs.boxes
    images = np.unique(boxes.image[competing])
    predicted = coco_annotations(
        boxes.image[competing], boxes.corners[competing], boxes.score[competing]
    )
    evaluated = np.isin(pairs.truth.image, images)
    truth = coco_annotations(pairs.truth.image[evaluated], pairs.truth.corners[evaluated])
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(_coco(truth, images), _coco(predicted, images), "bbox")
        parameters = evaluator.params
        parameters.maxDets = [MAX_BOXES]
        # All sizes together: COCO's three ranges of sizes would take three times as long again.
        parameters.areaRng = parameters.areaRng[:1]
        parameters.areaRngLbl = ["all"]
        evaluator.evaluate()
    matches = np.concatenate([image["dtMatches"] for image in evaluator.evalImgs], axis=1)
    ids = np.concatenate([image["dtIds"] for image in evaluator.evalImgs])
    hit[:, competing[ids - 1]] = matches > 0
    return hit


def _precision(
    hit: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_], scores: Floats, n_true: int
) -> Floats:
    """Compute the interpolated precision of pycocotools, shape ``(thresholds, recall levels)``.

    `hit` and `counted` have the shape ``(thresholds, boxes)``; every hit is counted.
    """
    falling = np.argsort(-scores, kind="stable")
    hit = hit[:, falling]
    rank = counted[:, falling].cumsum(axis=1)
    ranks = [rank[row, at_threshold] for row, at_threshold in enumerate(hit)]
    return np.array([best_precision(called, n_true, _RECALL_POINTS) for called in ranks])


def coco_annotations(
    image: Integers, corners: Floats, scores: Floats | None = None
) -> list[dict[str, Any]]:
    """Convert boxes (xyxy, original px) to the dictionaries of COCO's annotations and results.

    ``category_id`` is always 1, ``iscrowd`` 0, and the score 1 where none is given. Ids start at 1,
    because pycocotools uses 0 for "not matched".

    Example:
        >>> (box,) = coco_annotations(np.array([7]), np.array([[1.0, 2.0, 4.0, 8.0]]))
        >>> box["id"], box["image_id"], box["bbox"], box["area"]
        (1, 7, [1.0, 2.0, 3.0, 6.0], 18.0)
    """
    sizes = corners[:, 2:] - corners[:, :2]
    bboxes = np.hstack([corners[:, :2], sizes]).tolist()
    areas = sizes.prod(axis=1).tolist()
    all_scores = np.ones(len(image)) if scores is None else scores
    return [
        {
            "id": number,
            "image_id": image_id,
            "category_id": 1,
            "bbox": bbox,
            "area": area,
            "iscrowd": 0,
            "score": score,
        }
        for number, (image_id, bbox, area, score) in enumerate(
            zip(image.tolist(), bboxes, areas, all_scores.tolist(), strict=True), start=1
        )
    ]


def _coco(annotations: list[dict[str, Any]], images: Integers) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in images.tolist()],
        "categories": [{"id": 1, "name": "target"}],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
