"""Box scores reduced to one score of the image."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.evaluation.reduction import CANDIDATES, Reduction, reduce_boxes

IMAGES = pd.Index(["a", "b", "empty"])
BOXES = pd.DataFrame(
    {"image_id": ["b", "a", "a", "a", "a"], "score": [0.75, 0.5, 0.25, 0.125, 0.0625]}
)


@pytest.mark.parametrize(
    ("rule", "min_score", "expected"),
    [
        ("max", 0.0, [0.5, 0.75, 0.0]),
        ("noisy_or", 0.0, [1 - 0.5 * 0.75 * 0.875 * 0.9375, 0.75, 0.0]),
        ("noisy_or", 0.25, [1 - 0.5 * 0.75, 0.75, 0.0]),  # a box at the floor takes part
        ("noisy_or", 0.8, [0.0, 0.0, 0.0]),  # all below the floor: as if there were no box
        ("top_k", 0.0, [(0.5 + 0.25 + 0.125) / 3, 0.75 / 3, 0.0]),  # missing boxes count 0
    ],
)
def test_rules_by_hand(rule, min_score, expected):
    reduced = reduce_boxes(BOXES, IMAGES, Reduction(rule, min_score))
    assert reduced.tolist() == pytest.approx(expected)
    assert reduced.index.equals(IMAGES)


def test_three_hundred_faint_boxes_are_no_finding_under_the_floor():
    # The known mistake: noisy-or over 300 boxes at 0.01 is 0.95.
    faint = pd.DataFrame({"image_id": ["a"] * 300, "score": [0.01] * 300})
    one = pd.Index(["a"])
    assert reduce_boxes(faint, one, Reduction("noisy_or"))["a"] > 0.95
    assert reduce_boxes(faint, one, Reduction("noisy_or", 0.05))["a"] == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=8), st.randoms(use_true_random=False))
def test_order_of_rows_never_matters_and_scores_stay_in_bounds(scores, random):
    shuffled = random.sample(scores, len(scores))
    for candidate in CANDIDATES:
        results = []
        for values in (scores, shuffled):
            boxes = pd.DataFrame({"image_id": ["a"] * len(values), "score": values})
            boxes = boxes.astype({"image_id": TEXT, "score": "float64"})
            reduced = reduce_boxes(boxes, pd.Index(["a"]), candidate)
            results.append(reduced["a"])
        assert results[0] == results[1]
        assert 0 <= results[0] <= 1


@pytest.mark.parametrize(
    ("boxes", "image_ids", "message"),
    [
        (BOXES, pd.Index(["a", "a", "b"]), "'a' repeats"),
        (BOXES, pd.Index(["a"]), "'b' is not among"),
        (BOXES.assign(score=1.5), IMAGES, r"must be in \[0, 1\]; row 0"),
        (BOXES.assign(score=np.nan), IMAGES, "score=nan"),
    ],
)
def test_bad_boxes_are_refused_by_position(boxes, image_ids, message):
    with pytest.raises(InputError, match=message):
        reduce_boxes(boxes, image_ids)
