"""Localisation by one point an image: the point, and the true boxes that it lies in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.statistics.arrays import Floats


def top_box_centres(boxes: pd.DataFrame, image_ids: pd.Index) -> pd.DataFrame:
    """Compute the centre of each image's most confident box.

    Among equal scores the box nearest the top left decides, whatever the order of the rows.

    Args:
        boxes: Boxes with ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px) and ``score``.
        image_ids: All images, unique, shape ``(images,)``.

    Returns:
        ``point_x`` and ``point_y`` in original px, one row per image in the order of `image_ids`;
        NaN where an image has no box.

    Example:
        >>> boxes = pd.DataFrame({"image_id": ["a", "a"], "x1": [0, 8], "y1": [0, 4],
        ...     "x2": [2, 12], "y2": [2, 6], "score": [0.4, 0.9]})
        >>> top_box_centres(boxes, pd.Index(["a"])).iloc[0].tolist()
        [10.0, 5.0]
    """
    highest = boxes.groupby("image_id")["score"].transform("max")
    tied = boxes[boxes["score"] == highest].sort_values(["y1", "x1", "y2", "x2"])
    top = tied.drop_duplicates("image_id").set_index("image_id")
    points = pd.DataFrame(
        {"point_x": (top["x1"] + top["x2"]) / 2, "point_y": (top["y1"] + top["y2"]) / 2}
    )
    return points.reindex(image_ids).astype(np.float64)


def points_in_boxes(
    points: pd.DataFrame, truth: pd.DataFrame, tolerance: Floats | None = None
) -> npt.NDArray[np.bool_]:
    """Test whether each image's point lies in one of its true boxes, borders included.

    Args:
        points: ``point_x`` and ``point_y`` in original px, one row per image, indexed by image id;
            NaN is a miss.
        truth: True boxes with ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px).
        tolerance: Width that is added on each side of the boxes of each image, across and down,
            original px, shape ``(images, 2)``.

    Returns:
        True where the point lies in a box, shape ``(images,)``.

    Source:
        Zhang et al. 2018, the pointing game.

    Example:
        >>> points = pd.DataFrame({"point_x": [4.0, 9.0], "point_y": [1.0, 1.0]}, index=["a", "b"])
        >>> truth = pd.DataFrame({"image_id": ["a", "b"], "x1": 0, "y1": 0, "x2": 4, "y2": 4})
        >>> points_in_boxes(points, truth).tolist()
        [True, False]
    """
    image = points.index.get_indexer(pd.Index(truth["image_id"]))
    evaluated = image >= 0
    image = image[evaluated]
    corners = truth[EDGES].to_numpy(np.float64)[evaluated]
    point = points[["point_x", "point_y"]].to_numpy(np.float64)[image]
    margin = 0.0 if tolerance is None else tolerance[image]
    inside = (point >= corners[:, :2] - margin) & (point <= corners[:, 2:] + margin)
    result = np.zeros(len(points), dtype=bool)
    result[image[inside.all(axis=1)]] = True
    return result
