"""Accuracy by intersection over the predicted box, by hand."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.boxes.iobb import WeightedIobb
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.metrics.registry import family


def table(rows, *more):
    return pd.DataFrame(rows, columns=["image_id", *EDGES, *more])


def figures(boxes, truth, ids, cut=0.5, weights=None):
    pairs = pair_boxes(boxes, truth, pd.Index(ids))
    evaluate = WeightedIobb(pairs, np.arange(len(ids)), len(ids))
    weights = np.ones((1, len(ids)), dtype=int) if weights is None else weights
    rows = evaluate.at(weights, np.full(len(weights), cut))
    return [dict(zip(family("iobb"), row.tolist(), strict=True)) for row in rows]


def test_iobb_of_a_hand_counted_case():
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
    (row,) = figures(boxes, truth, ["a", "b", "c", "d"])
    assert row == {
        "iobb_accuracy_10": pytest.approx(2 / 3),
        "iobb_accuracy_25": pytest.approx(1 / 3),
        "iobb_accuracy_50": pytest.approx(1 / 3),
        "iobb_false_marks_10": 1 / 4,
        "iobb_false_marks_25": 2 / 4,
        "iobb_false_marks_50": 3 / 4,
    }


LESION = ("a", 0, 0, 10, 10)


@pytest.mark.parametrize(
    ("box", "lesions", "accuracy", "false"),
    [
        # By IoU's other half, intersection over the true area, it would find every lesion.
        ([("a", 0, 0, 100, 100, 1.0)], [("a", 40, 40, 50, 50)], 0.0, 1.0),
        ([("a", 0, 0, 20, 10, 1.0)], [LESION, ("a", 10, 0, 20, 10)], 1.0, 0.0),
        ([("a", 0, 0, 9, 9, 1.0)], [], np.nan, 1.0),
        ([], [LESION], 0.0, 0.0),
    ],
    ids=["whole image", "one box on two lesions", "no lesions", "no boxes"],
)
def test_iobb_of_one_box_or_none(box, lesions, accuracy, false):
    (row,) = figures(table(box, "score"), table(lesions), ["a"])
    expected = [accuracy] * 3 + [false] * 3
    assert [row[name] for name in family("iobb")] == pytest.approx(expected, nan_ok=True)


def test_iobb_under_weights_is_that_of_repeated_images():
    rng = np.random.default_rng(5)
    ids = [f"i{k}" for k in range(12)]
    corner = rng.uniform(0, 60, (40, 2))
    names = rng.choice(ids, 40)
    low, high = corner, corner + rng.uniform(5, 30, (40, 2))
    boxes = pd.DataFrame(np.hstack([low, high]), columns=EDGES)
    boxes.insert(0, "image_id", names)
    truth = boxes[:15]
    predicted = boxes[15:].assign(score=rng.random(25))
    weights = rng.integers(0, 4, (3, 12))
    for row, weighted in zip(weights, figures(predicted, truth, ids, 0.3, weights), strict=True):
        copies = [(name, f"{name}-{n}") for name, w in zip(ids, row, strict=True) for n in range(w)]
        again = pd.DataFrame(copies, columns=["image_id", "copy"])
        parts = [
            part.merge(again, on="image_id")
            .drop(columns="image_id")
            .rename(columns={"copy": "image_id"})
            for part in (predicted, truth)
        ]
        (expected,) = figures(*parts, [copy for _, copy in copies], 0.3)
        assert weighted == pytest.approx(expected)
