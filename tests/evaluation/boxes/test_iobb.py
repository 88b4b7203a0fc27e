"""IoBB accuracy and its false marks: by hand, and under resampling."""

import numpy as np
import pandas as pd
import pytest

from evaluation.boxes.froc import WeightedIobb
from evaluation.boxes.iou import CORNERS, pair_boxes
from evaluation.metrics.registry import family


def table(rows, *more):
    return pd.DataFrame(rows, columns=["image_id", *CORNERS, *more])


def figures(boxes, truth, ids, cut=0.5, weights=None):
    pairs = pair_boxes(boxes, truth, pd.Index(ids))
    judge = WeightedIobb(pairs, np.arange(len(ids)), len(ids), cut)
    weights = np.ones((1, len(ids)), dtype=int) if weights is None else weights
    return [dict(zip(family("iobb"), row.tolist(), strict=True)) for row in judge(weights)]


def test_a_hand_counted_case():
    truth = table([("a", 0, 0, 10, 10), ("a", 50, 50, 60, 60), ("b", 0, 0, 10, 10)])
    boxes = table(
        [
            ("a", 0, 0, 10, 40, 0.9),  # a quarter of it on the first lesion: found at .1 and .25
            ("a", 2, 2, 4, 4, 0.8),  # wholly on it, however small: found at all
            ("a", 52, 52, 58, 58, 0.4),  # wholly on the second, but below the cut
            ("b", 5, 0, 55, 10, 0.5),  # a tenth, at the cut
            ("c", 0, 0, 5, 5, 0.7),  # no lesion in this image: false at all
        ],
        "score",
    )
    (found,) = figures(boxes, truth, ["a", "b", "c", "d"])
    assert found == {
        "iobb_accuracy_10": pytest.approx(2 / 3),
        "iobb_accuracy_25": pytest.approx(1 / 3),
        "iobb_accuracy_50": pytest.approx(1 / 3),
        "iobb_false_marks_10": 1 / 4,
        "iobb_false_marks_25": 2 / 4,
        "iobb_false_marks_50": 3 / 4,
    }


def test_a_box_over_the_whole_picture_finds_nothing():
    # By IoU's other half, intersection over the true area, it would find every lesion.
    truth = table([("a", 40, 40, 50, 50)])
    (found,) = figures(table([("a", 0, 0, 100, 100, 1.0)], "score"), truth, ["a"])
    assert [found[name] for name in family("iobb")] == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]


def test_one_box_on_two_lesions_finds_both():
    truth = table([("a", 0, 0, 10, 10), ("a", 10, 0, 20, 10)])
    (found,) = figures(table([("a", 0, 0, 20, 10, 1.0)], "score"), truth, ["a"])
    assert found["iobb_accuracy_50"] == 1.0
    assert found["iobb_false_marks_50"] == 0.0


def test_without_lesions_accuracy_is_undefined_and_false_marks_are_not():
    (found,) = figures(table([("a", 0, 0, 9, 9, 1.0)], "score"), table([]), ["a", "b"])
    assert np.isnan(found["iobb_accuracy_10"])
    assert found["iobb_false_marks_10"] == 0.5


def test_no_boxes_find_nothing_and_mark_nothing_false():
    (found,) = figures(table([], "score"), table([("a", 0, 0, 9, 9)]), ["a"])
    assert set(found.values()) == {0.0}


def test_a_weight_counts_an_image_as_often_as_repeating_it_does():
    rng = np.random.default_rng(5)
    ids = [f"i{k}" for k in range(12)]
    corner = rng.uniform(0, 60, (40, 2))
    boxes = table([], "score")
    names = rng.choice(ids, 40)
    low, high = corner, corner + rng.uniform(5, 30, (40, 2))
    boxes = pd.DataFrame(np.hstack([low, high]), columns=CORNERS)
    boxes.insert(0, "image_id", names)
    truth, found = boxes[:15], boxes[15:].assign(score=rng.random(25))
    weights = rng.integers(0, 4, (3, 12))
    for row, given in zip(weights, figures(found, truth, ids, 0.3, weights), strict=True):
        copies = [(name, f"{name}-{n}") for name, w in zip(ids, row, strict=True) for n in range(w)]
        again = pd.DataFrame(copies, columns=["image_id", "copy"])
        parts = [
            part.merge(again, on="image_id")
            .drop(columns="image_id")
            .rename(columns={"copy": "image_id"})
            for part in (found, truth)
        ]
        (expected,) = figures(*parts, [copy for _, copy in copies], 0.3)
        assert given == pytest.approx(expected)
