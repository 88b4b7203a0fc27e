"""Localisation by one point in each image: choosing the point, and testing if it is on a lesion."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.evaluation.statistics.arrays import Flags, Floats, Integers


def top_box_centres(boxes: pd.DataFrame, image_ids: pd.Index) -> pd.DataFrame:
    """Compute the centre of the most confident box of each image.

    If several boxes share the highest score, the uppermost of them is taken, and of equally high
    ones the leftmost. The order of the rows has no effect. The table has ``point_x`` and
    ``point_y`` in original px, one row for each image in the order of `image_ids`; both are NaN for
    an image without a box.

    Examples:
        >>> boxes = pd.DataFrame({"image_id": ["a", "a"], "x1": [0, 8], "y1": [0, 4],
        ...     "x2": [2, 12], "y2": [2, 6], "score": [0.4, 0.9]})
        >>> top_box_centres(boxes, pd.Index(["a"])).iloc[0].tolist()
        [10.0, 5.0]
    """
    image = image_ids.get_indexer(pd.Index(boxes["image_id"]))
    listed = boxes[image >= 0]
    corners, scores = listed[EDGES].to_numpy(np.float64), listed["score"].to_numpy(np.float64)
    centres = best_centres(corners, scores, image[image >= 0], len(image_ids))
    return pd.DataFrame(centres, index=image_ids, columns=["point_x", "point_y"])


def best_centres(corners: Floats, scores: Floats, image: Integers, n_images: int) -> Floats:
    """Return the centre of the best box of each image, as `top_box_centres`, shape ``(I, 2)``.

    `image` has the number of the image of each box ``(B, 4)``.
    """
    x1, y1, x2, y2 = corners.T
    best_first = np.lexsort((x2, y2, x1, y1, -scores, image))
    boxed, first = np.unique(image[best_first], return_index=True)
    best = corners[best_first[first]]
    centres = np.full((n_images, 2), np.nan)
    centres[boxed] = (best[:, :2] + best[:, 2:]) / 2
    return centres


def points_in_boxes(points: pd.DataFrame, truth: pd.DataFrame) -> Flags:
    """Return True for images whose point lies in a true box or on the border of one, ``(images,)``.

    `points` has ``point_x`` and ``point_y`` in original px by image id; a NaN lies in no box.

    Source:
        Zhang et al. 2018, the pointing game.

    Examples:
        >>> points = pd.DataFrame({"point_x": [4.0, 9.0], "point_y": [1.0, 1.0]}, index=["a", "b"])
        >>> truth = pd.DataFrame({"image_id": ["a", "b"], "x1": 0, "y1": 0, "x2": 4, "y2": 4})
        >>> points_in_boxes(points, truth).tolist()
        [True, False]
    """
    image = points.index.get_indexer(pd.Index(truth["image_id"]))
    evaluated = image >= 0
    corners = truth[EDGES].to_numpy(np.float64)[evaluated]
    return in_boxes(points[["point_x", "point_y"]].to_numpy(np.float64), image[evaluated], corners)


def in_boxes(points: Floats, image: Integers, corners: Floats) -> Flags:
    """Return True for the points ``(N, 2)`` that lie in a box ``(B, 4)`` of their image.

    `image` has the number of the image, and so of the point, of each box.
    """
    point = points[image]
    inside = (point >= corners[:, :2]) & (point <= corners[:, 2:])
    result = np.zeros(len(points), dtype=bool)
    result[image[inside.all(axis=1)]] = True
    return result
