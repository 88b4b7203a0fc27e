"""Mean IoU of regions."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.evaluation.boxes import miou
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


def expected_ious(called, true):
    ious = []
    for count in range(len(called) + 1):
        first = pixels(called[:count])
        ious.append((first & pixels(true)).sum() / (first | pixels(true)).sum())
    return ious


@pytest.mark.parametrize("seed", range(5))
def test_regions_are_those_of_a_count_of_pixels(seed):
    rng = np.random.default_rng(seed)
    called = np.stack([random_corners(rng, 5) for _ in range(4)])
    true = np.stack([random_corners(rng, 3) for _ in range(4)])
    expected = [expected_ious(*each) for each in zip(called, true, strict=True)]
    found = region_ious(called.astype(float), true.astype(float))
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("at_once", [1, 2_000, 10**6])
def test_images_of_different_numbers_of_boxes_are_computed_together_or_apart(monkeypatch, at_once):
    monkeypatch.setattr(miou, "_CELLS_AT_ONCE", at_once)
    rng = np.random.default_rng(3)
    images = [f"i{number}" for number in range(12)]
    true = {name: random_corners(rng, rng.integers(1, 4)) for name in images[:9]}
    called = {name: random_corners(rng, rng.integers(0, 6)) for name in images}
    scores = {name: np.sort(rng.random(len(each)))[::-1] for name, each in called.items()}

    def table(boxes):
        frames = [pd.DataFrame(each, columns=CORNERS).assign(image_id=n) for n, each in boxes]
        return pd.concat(frames, ignore_index=True).astype(dict.fromkeys(CORNERS, float))

    predicted = table(called.items()).assign(score=np.concatenate(list(scores.values())))
    pairs = pair_boxes(predicted, table(true.items()), pd.Index(images))
    figure = WeightedMeanIou(pairs, np.arange(12), 12)
    for cut in (0.7, 0.2, 0.5):  # a lower cut calls more boxes of images that are known already
        expected = np.mean(
            [
                expected_ious(called[name][scores[name] >= cut], boxes)[-1]
                for name, boxes in true.items()
            ]
        )
        found = figure.at(np.ones((1, 12)), np.array([cut]))
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
