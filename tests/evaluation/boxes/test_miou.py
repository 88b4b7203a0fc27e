"""Mean IoU of regions."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.boxes.miou import WeightedMeanIou, region_ious

CORNERS = ["x1", "y1", "x2", "y2"]


def pixels(boxes, side=40):
    mask = np.zeros((side, side), dtype=bool)
    for x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = True
    return mask


def random_corners(rng, count, side=40):
    first = rng.integers(0, side - 1, (count, 2))
    return np.hstack([first, np.minimum(first + rng.integers(1, 25, (count, 2)), side)])


@pytest.mark.parametrize("seed", range(5))
def test_regions_are_those_of_a_count_of_pixels(seed):
    rng = np.random.default_rng(seed)
    called = random_corners(rng, 5)
    true = random_corners(rng, 3)
    expected = []
    for count in range(6):
        first = pixels(called[:count])
        expected.append((first & pixels(true)).sum() / (first | pixels(true)).sum())
    found = region_ious(called.astype(float), true.astype(float))
    np.testing.assert_allclose(found, expected)


def test_only_called_boxes_of_images_with_a_lesion_count_and_patients_have_weights():
    truth = pd.DataFrame([[0, 0, 10, 10], [0, 0, 10, 10]], columns=CORNERS, dtype=float)
    truth["image_id"] = ["a", "b"]
    boxes = pd.DataFrame(
        [[0, 0, 10, 20], [0, 0, 10, 10], [0, 0, 10, 10]], columns=CORNERS, dtype=float
    ).assign(image_id=["a", "a", "c"], score=[0.9, 0.4, 0.9])
    pairs = pair_boxes(boxes, truth, pd.Index(["a", "b", "c"]))
    figure = WeightedMeanIou(pairs, np.array([0, 1, 2]), 3)
    weights = np.array([[1.0, 1, 1], [3, 1, 0], [0, 1, 1], [0, 0, 1]])
    values = figure.at(weights, np.array([0.5, 0.5, 0.5, 0.5]))
    np.testing.assert_allclose(values, [0.25, 0.375, 0.0, np.nan])
    assert figure.at(weights[:1], np.array([np.nan]))[0] != 0.25
