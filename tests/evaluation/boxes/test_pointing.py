"""Points of a system inside the true boxes."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.evaluation.boxes.pointing import points_in_boxes, top_box_centres
from tests.evaluation.boxes.simulated import simulate


@pytest.mark.parametrize(
    ("x", "y", "inside"),
    [
        (5.0, 5.0, True),
        (2.0, 2.0, True),  # the corner belongs to the box
        (8.0, 5.0, True),  # so does the border
        (8.01, 5.0, False),
        (np.nan, np.nan, False),  # no point is a miss
    ],
)
def test_borders_are_inside(x, y, inside):
    truth = pd.DataFrame({"image_id": ["a"], "x1": [2.0], "y1": [2.0], "x2": [8.0], "y2": [8.0]})
    points = pd.DataFrame({"point_x": [x], "point_y": [y]}, index=["a"])
    assert points_in_boxes(points, truth).tolist() == [inside]


def test_any_of_several_true_boxes_will_do():
    truth = pd.DataFrame(
        {"image_id": ["a", "a"], "x1": [0, 6], "y1": [0, 6], "x2": [2, 9], "y2": [2, 9]}
    )
    points = pd.DataFrame({"point_x": [7.0, 7.0], "point_y": [7.0, 7.0]}, index=["a", "b"])
    assert points_in_boxes(points, truth).tolist() == [True, False]


def test_among_equal_scores_the_same_box_decides_in_any_order():
    boxes = pd.DataFrame(
        {"image_id": "a", "x1": [5.0, 1.0], "y1": [1.0, 1.0], "x2": [7.0, 3.0], "y2": [3.0, 3.0],
         "score": 0.5}
    )  # fmt: skip
    for frame in (boxes, boxes.iloc[::-1]):
        assert top_box_centres(frame, pd.Index(["a"]))["point_x"].tolist() == [2.0]


def test_an_image_without_boxes_has_no_point():
    points = top_box_centres(simulate(0, n_images=60)[0].iloc[:0], pd.Index(["a"]))
    assert points.isna().all(axis=None)
