"""Types of errors of boxes, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.evaluation.boxes.error_types import count_error_types
from cxr_compare.evaluation.boxes.lesion_hits import find_lesions
from cxr_compare.evaluation.boxes.matching import pair_boxes

CORNERS = ["image_id", "x1", "y1", "x2", "y2"]


def boxes(*rows):
    names = CORNERS if rows and len(rows[0]) == 5 else [*CORNERS, "score"]
    return pd.DataFrame(rows, columns=names)


def test_every_called_box_and_every_lesion_has_one_kind():
    truth = boxes(
        ("a", 0.0, 0.0, 10.0, 10.0),
        ("a", 50.0, 50.0, 60.0, 60.0),
        ("a", 80.0, 80.0, 90.0, 90.0),
        ("b", 0.0, 0.0, 10.0, 10.0),
    )
    predicted = boxes(
        ("a", 0.0, 0.0, 10.0, 9.0, 0.9),  # takes the first lesion
        ("a", 0.0, 0.0, 10.0, 8.0, 0.8),  # the same lesion again: duplicate
        ("a", 50.0, 50.0, 55.0, 58.0, 0.7),  # IoU 0.4 with the second: a poor box
        ("a", 30.0, 0.0, 40.0, 10.0, 0.6),  # nothing there: background
        ("b", 0.0, 0.0, 10.0, 10.0, 0.2),  # below the cut: not called, so a miss
        ("c", 0.0, 0.0, 10.0, 10.0, 0.9),  # an image without lesions: background
    )
    kinds = count_error_types(pair_boxes(predicted, truth, pd.Index(["a", "b", "c"])), 0.5)
    assert {name: count.tolist() for name, count in kinds.items()} == {
        "lesions": [3, 1, 0],
        "found": [1, 0, 0],
        "poorly_boxed": [1, 0, 0],
        "missed": [1, 1, 0],
        "poor_box": [1, 0, 0],
        "duplicate": [1, 0, 0],
        "background": [1, 0, 1],
    }


@pytest.mark.parametrize("seed", range(3))
def test_kinds_add_up_to_lesions_and_to_called_boxes(seed):
    rng = np.random.default_rng(seed)

    def drawn(n, scored):
        corner = rng.uniform(0, 30, (n, 2))
        frame = pd.DataFrame({"image_id": rng.choice(list("abcd"), n), "x1": corner[:, 0]})
        frame = frame.assign(y1=corner[:, 1], x2=corner[:, 0] + 12, y2=corner[:, 1] + 12)
        return frame.assign(score=rng.random(n)) if scored else frame

    pairs = pair_boxes(drawn(60, True), drawn(14, False), pd.Index(list("abcd")))
    kinds = count_error_types(pairs, 0.3)
    of_lesions = kinds["found"] + kinds["poorly_boxed"] + kinds["missed"]
    assert (of_lesions == kinds["lesions"]).all()
    called = np.bincount(pairs.boxes.image[pairs.boxes.score >= 0.3], minlength=4)
    of_boxes = kinds["found"] + kinds["poor_box"] + kinds["duplicate"] + kinds["background"]
    assert (of_boxes == called).all()
    assert (find_lesions(pairs).best >= 0.3).sum() >= kinds["found"].sum()
