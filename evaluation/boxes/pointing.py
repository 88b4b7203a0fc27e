"""Localisation by one point an image: the point, and the true boxes that it lies in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.statistics.arrays import Floats


def top_box_centres(boxes: pd.DataFrame, image_ids: pd.Index) -> pd.DataFrame:
    """The centre of each image's most confident box.

    Among equal scores the box nearest the top left decides, whatever the order of the rows.

    Returns ``point_x`` and ``point_y`` in original px, one row per image in the order of
    `image_ids`; NaN where an image has no box.
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
    """Whether each image's point lies in one of its true boxes, borders included.

    A point of NaN is a miss. `tolerance` widens boxes on each side, across and down, original px.
    """
    row = points.index.get_indexer(pd.Index(truth["image_id"]))
    wanted = row >= 0
    row, corners = row[wanted], truth[EDGES].to_numpy(np.float64)[wanted]
    at = points[["point_x", "point_y"]].to_numpy(np.float64)[row]
    slack = 0.0 if tolerance is None else tolerance[row]
    inside = ((at >= corners[:, :2] - slack) & (at <= corners[:, 2:] + slack)).all(axis=1)
    result = np.zeros(len(points), dtype=bool)
    result[row[inside]] = True
    return result
