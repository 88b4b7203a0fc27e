"""Accuracy by intersection over the predicted box, by hand."""

import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.boxes.iobb import iobb


def table(rows, *more):
    return pd.DataFrame(rows, columns=["image_id", *EDGES, *more])


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
    assert iobb(boxes, truth, ["a", "b", "c", "d"], cut=0.5) == {
        "accuracy_10": pytest.approx(2 / 3),
        "accuracy_25": pytest.approx(1 / 3),
        "accuracy_50": pytest.approx(1 / 3),
        "false_positives_10": 1 / 4,
        "false_positives_25": 2 / 4,
        "false_positives_50": 3 / 4,
    }


LESION = ("a", 0, 0, 10, 10)


@pytest.mark.parametrize(
    ("box", "lesions", "accuracy", "false"),
    [
        # By IoU's other half, intersection over the true area, it would find every lesion.
        ([("a", 0, 0, 100, 100, 1.0)], [("a", 40, 40, 50, 50)], 0.0, 1.0),
        ([("a", 0, 0, 20, 10, 1.0)], [LESION, ("a", 10, 0, 20, 10)], 1.0, 0.0),
        ([("a", 0, 0, 9, 9, 1.0)], [], None, 1.0),
        ([], [LESION], 0.0, 0.0),
    ],
    ids=["whole image", "one box on two lesions", "no lesions", "no boxes"],
)
def test_iobb_of_one_box_or_none(box, lesions, accuracy, false):
    figures = iobb(table(box, "score"), table(lesions), ["a"], cut=0.5)
    assert list(figures.values()) == [accuracy] * 3 + [false] * 3


def test_without_an_image_no_figure_is_defined():
    assert set(iobb([], [], [], cut=0.5).values()) == {None}
