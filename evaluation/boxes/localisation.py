"""Right place: COCO's average precision, and whether the point that decided lies on a lesion.

Both need images whose boxes can be trusted to be all of them; the caller passes only those.
"""

import contextlib
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from data_prep.contracts.text_lookup import positions
from evaluation.boxes.average_precision import IOU_THRESHOLDS
from evaluation.boxes.iou import CORNERS, MAX_BOXES, BoxPairs, pair_boxes
from evaluation.statistics.ranking import Floats, Integers

_MARGIN = 1e-6  # around the lowest threshold pycocotools decides itself


def average_precision(
    boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index
) -> dict[str, float | None]:
    """COCO's AP50 and AP[.5:.95] of one class, by pycocotools itself.

    Negative images take part, no prediction at all scores 0, and of the boxes of an image the
    100 most confident count. Equal scores are ranked in the order of `image_ids`.

    Args:
        boxes: Predicted boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px),
            ``score``. May be empty; boxes of other images are ignored.
        truth: True boxes, the same columns without ``score``.
        image_ids: Every image judged, with and without boxes, unique.

    Returns:
        ``ap50`` and ``ap`` in [0, 1]; `None` where no image has a true box.

    Source:
        Lin et al. 2014, as computed by pycocotools.

    Example:
        >>> true = pd.DataFrame({"image_id": ["a"], "x1": [0], "y1": [0], "x2": [9], "y2": [9]})
        >>> figures = average_precision(true.assign(score=0.9), true, pd.Index(["a", "b"]))
        >>> {name: round(figure, 6) for name, figure in figures.items()}
        {'ap50': 1.0, 'ap': 1.0}
    """
    return coco_figures(pair_boxes(boxes, truth, image_ids))


def coco_figures(pairs: BoxPairs) -> dict[str, float | None]:
    """The figures of `average_precision` from boxes that are paired already.

    A box that overlaps no true box by half can match none, so pycocotools is asked which of the
    others match, which are few, and then for the precision of all of them.

    Args:
        pairs: Every predicted with every true box of its image.

    Returns:
        ``ap50`` and ``ap`` in [0, 1]; `None` where no image has a true box.
    """
    n_true, boxes = len(pairs.true_image), pairs.boxes
    if not n_true:
        return {"ap50": None, "ap": None}
    if not len(boxes.score):
        return {"ap50": 0.0, "ap": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        precision = _precision(_matched(pairs), boxes.score, n_true)
    return {"ap50": float(precision[0].mean()), "ap": float(precision.mean())}


def _matched(pairs: BoxPairs) -> npt.NDArray[np.bool_]:
    """Which boxes pycocotools matches, shape ``(thresholds, boxes)``."""
    hit = np.zeros((len(IOU_THRESHOLDS), len(pairs.boxes.score)), dtype=bool)
    near = np.unique(pairs.box[pairs.iou >= IOU_THRESHOLDS.min() - _MARGIN])
    images = np.unique(pairs.boxes.image[near])
    if not len(images):
        return hit
    boxes, scores = pairs.boxes, pairs.boxes.score[near]
    found = _annotations(boxes.image[near], boxes.corners[near], scores)
    asked = np.isin(pairs.true_image, images)
    true = _annotations(pairs.true_image[asked], pairs.true_corners[asked])
    judge = COCOeval(_coco(true, images), _coco(found, images), "bbox")
    _ask_for_all_sizes(judge, MAX_BOXES)
    judge.evaluate()
    matches = np.concatenate([image["dtMatches"] for image in judge.evalImgs], axis=1)
    ids = np.concatenate([image["dtIds"] for image in judge.evalImgs])
    hit[:, near[ids - 1]] = matches > 0
    return hit


def _precision(hit: npt.NDArray[np.bool_], scores: Floats, n_true: int) -> Floats:
    """Precision as pycocotools accumulates it, shape ``(thresholds, recall points)``."""
    judge = COCOeval(iouType="bbox")
    _ask_for_all_sizes(judge, len(scores))
    judge.params.imgIds, judge.params.catIds = [0], [1]
    judge._paramsEval = judge.params  # type: ignore[assignment]
    # All images as one: the boxes lie image by image, in the order in which it would lay them.
    everything = {
        "dtScores": scores,
        "dtMatches": hit,
        "dtIgnore": np.zeros_like(hit),
        "gtIgnore": np.zeros(n_true),
    }
    judge.evalImgs = [everything]  # type: ignore[assignment]
    judge.accumulate()
    return np.asarray(judge.eval["precision"][:, :, 0, 0, 0], dtype=np.float64)


def _ask_for_all_sizes(judge: COCOeval, max_boxes: int) -> None:
    """Leave out the three ranges of sizes, which would take three times as long again."""
    judge.params.maxDets = [max_boxes]
    judge.params.areaRng, judge.params.areaRngLbl = judge.params.areaRng[:1], ["all"]


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


def deciding_points(boxes: pd.DataFrame, image_ids: pd.Index) -> pd.DataFrame:
    """The centre of each image's most confident box.

    Among equal scores the box nearest the top left decides, whatever the order of the rows.

    Args:
        boxes: Predicted boxes, original px.
        image_ids: Images asked for, unique, shape ``(N,)``.

    Returns:
        ``point_x`` and ``point_y`` in original px, one row per image in the order of
        `image_ids`; NaN where an image has no box.

    Example:
        >>> boxes = pd.DataFrame(
        ...     {"image_id": "a", "x1": [0, 4], "y1": [0, 4], "x2": [2, 8], "y2": [2, 8],
        ...      "score": [0.2, 0.9]})
        >>> deciding_points(boxes, pd.Index(["a"])).to_dict("list")
        {'point_x': [6.0], 'point_y': [6.0]}
    """
    highest = boxes.groupby("image_id")["score"].transform("max")
    tied = boxes[boxes["score"] == highest].sort_values(["y1", "x1", "y2", "x2"])
    top = tied.drop_duplicates("image_id").set_index("image_id")
    points = pd.DataFrame(
        {"point_x": (top["x1"] + top["x2"]) / 2, "point_y": (top["y1"] + top["y2"]) / 2}
    )
    return points.reindex(image_ids).astype(np.float64)


def localised(points: pd.DataFrame, truth: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Whether each image's point lies in one of its true boxes, borders included.

    Args:
        points: ``point_x``, ``point_y`` in original px, indexed by image id; NaN is a miss.
        truth: True boxes, original px.

    Returns:
        Shape ``(len(points),)``, in its order.

    Example:
        >>> true = pd.DataFrame({"image_id": ["a"], "x1": [0], "y1": [0], "x2": [4], "y2": [4]})
        >>> points = pd.DataFrame({"point_x": [4.0, 1], "point_y": [2.0, 1]}, index=["a", "b"])
        >>> localised(points, true).tolist()
        [True, False]
    """
    row = positions(truth["image_id"], points.index)
    asked = row >= 0
    row, corners = row[asked], truth[CORNERS].to_numpy(np.float64)[asked]
    at = points[["point_x", "point_y"]].to_numpy(np.float64)[row]
    inside = ((at >= corners[:, :2]) & (at <= corners[:, 2:])).all(axis=1)
    result = np.zeros(len(points), dtype=bool)
    result[row[inside]] = True
    return result
