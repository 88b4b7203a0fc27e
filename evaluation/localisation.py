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

from evaluation.matching import MAX_BOXES

CORNERS = ["x1", "y1", "x2", "y2"]


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
    true = _annotations(truth, image_ids)
    if not true:
        return {"ap50": None, "ap": None}
    found = _annotations(boxes, image_ids)
    if not found:
        return {"ap50": 0.0, "ap": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(_coco(true, len(image_ids)), _coco(found, len(image_ids)), "bbox")
        judge.params.maxDets = [MAX_BOXES]
        # Boxes of all sizes only: the other three ranges would take three times as long again.
        judge.params.areaRng, judge.params.areaRngLbl = judge.params.areaRng[:1], ["all"]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, 0, 0, 0]  # (thresholds, recall points)
    return {"ap50": float(precision[0].mean()), "ap": float(precision.mean())}


def _annotations(boxes: pd.DataFrame, image_ids: pd.Index) -> list[dict[str, Any]]:
    """COCO annotations; ids start at 1, since pycocotools takes 0 for "not matched"."""
    images = np.asarray(image_ids.get_indexer(pd.Index(boxes["image_id"])))
    corners = boxes[CORNERS].to_numpy(np.float64)
    scores = boxes["score"].to_numpy(np.float64) if "score" in boxes else np.ones(len(boxes))
    annotations: list[dict[str, Any]] = []
    for image, (x1, y1, x2, y2), score in zip(images, corners, scores, strict=True):
        if image < 0:
            continue
        width, height = x2 - x1, y2 - y1
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": int(image),
                "category_id": 1,
                "bbox": [x1, y1, width, height],
                "area": width * height,
                "iscrowd": 0,
                "score": score,
            }
        )
    return annotations


def _coco(annotations: list[dict[str, Any]], n_images: int) -> COCO:
    """A COCO object that knows every image, those without boxes too."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(n_images)],
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
    row = np.asarray(points.index.get_indexer(pd.Index(truth["image_id"])))
    asked = row >= 0
    row, corners = row[asked], truth[CORNERS].to_numpy(np.float64)[asked]
    at = points[["point_x", "point_y"]].to_numpy(np.float64)[row]
    inside = ((at >= corners[:, :2]) & (at <= corners[:, 2:])).all(axis=1)
    result = np.zeros(len(points), dtype=bool)
    result[row[inside]] = True
    return result
