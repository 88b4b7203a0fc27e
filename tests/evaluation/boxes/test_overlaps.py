"""Overlapping boxes: which stay."""

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.boxes.froc import froc
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.boxes.overlaps import (
    OverlappingBoxes,
    StoredPairs,
    overlap_candidates,
)


def without_overlaps(boxes, limit):
    return OverlappingBoxes.from_boxes(boxes).left(limit)


def random_boxes(n_boxes=400, n_images=20, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 100, (n_boxes, 2))
    edges = np.hstack([corner, corner + rng.uniform(5, 60, (n_boxes, 2))])
    images = [f"i{number}" for number in rng.integers(0, n_images, n_boxes)]
    scores = rng.permutation(n_boxes) / n_boxes
    return pd.DataFrame(edges, columns=EDGES).assign(image_id=images, score=scores)


@pytest.mark.parametrize("limit", [0.1, 0.3, 0.6])
def test_the_boxes_that_stay_are_those_of_torchvision(limit):
    boxes = random_boxes()
    kept = OverlappingBoxes.from_boxes(boxes).kept(limit)
    rows = torchvision.ops.batched_nms(
        torch.tensor(boxes[EDGES].to_numpy()),
        torch.tensor(boxes["score"].to_numpy()),
        torch.tensor(pd.factorize(boxes["image_id"])[0]),
        limit,
    )
    assert np.flatnonzero(kept).tolist() == sorted(rows.tolist())


def test_of_three_nested_boxes_one_stays_and_the_box_elsewhere_stays():
    boxes = pd.DataFrame(
        {
            "image_id": "a",
            "x1": [10.0, 0.0, 5.0, 70.0],
            "y1": [10.0, 0.0, 5.0, 70.0],
            "x2": [40.0, 50.0, 45.0, 90.0],
            "y2": [40.0, 50.0, 45.0, 90.0],
            "score": [0.5, 0.6, 0.9, 0.1],
        }
    )
    assert without_overlaps(boxes, 0.3)["score"].tolist() == [0.9, 0.1]
    # A box that only a removed box overlaps stays: suppression is greedy.
    assert without_overlaps(boxes, 0.6)["score"].tolist() == [0.5, 0.9, 0.1]


def test_boxes_of_other_images_never_remove_a_box():
    boxes = random_boxes(60, 1).assign(image_id=[f"i{row}" for row in range(60)])
    assert len(without_overlaps(boxes, 0.1)) == 60


def test_no_boxes_stay_no_boxes():
    empty = random_boxes(4).iloc[:0]
    assert without_overlaps(empty, 0.3).empty
    pairs = StoredPairs.on_images(OverlappingBoxes.from_boxes(empty), empty, pd.Index(["i1"]))
    assert [len(left.boxes.score) for _, left in overlap_candidates(pairs)] == [0] * 7


@pytest.mark.parametrize("limit", [None, 0.1, 0.4])
def test_pairs_of_the_boxes_that_stay_are_those_of_these_boxes_alone(limit):
    boxes = random_boxes(900, 4)  # some 225 of an image, of which 100 count
    boxes["score"] = boxes["score"].round(2)  # with equal scores
    truth = random_boxes(12, 6, seed=1).drop(columns="score")
    images = pd.Index(["i3", "i0", "i5", "i1"])
    stored = OverlappingBoxes.from_boxes(boxes)
    found = StoredPairs.on_images(stored, truth, images).left(limit)
    expected = pair_boxes(stored.left(limit), truth, images)
    for name in ("image", "rank", "score", "corners"):
        np.testing.assert_array_equal(getattr(found.boxes, name), getattr(expected.boxes, name))
    for name in ("box", "true", "iou"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_second_box_beside_its_lesion_stops_being_a_false_positive():
    truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [10.0], "y2": [10.0]})
    near = truth.assign(x2=30.0, y2=30.0, score=0.4)  # IoU 0.11 with the lesion: no hit
    boxes = pd.concat([truth.assign(x2=20.0, y2=20.0, score=0.9), near])
    all_boxes = froc(boxes, truth, ["a"])
    assert all_boxes.false_positives_per_image.max() == 1
    left = froc(without_overlaps(boxes, 0.4), truth, ["a"])
    assert left.false_positives_per_image.max() == 0
