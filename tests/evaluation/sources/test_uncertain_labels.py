"""Uncertain labels are left out and counted."""

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.sources.from_frames import truth_from_values

N = 80
DOUBTFUL = [1, 6, 11, 16]  # positions of the images whose label is uncertain


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, N)
    label[DOUBTFUL] = -1
    return pd.DataFrame({"image_id": [f"i{n:02d}" for n in range(N)], "label": label})


@pytest.fixture
def scores(truth):
    rng = np.random.default_rng(1)
    values = 1 / (1 + np.exp(-(truth["label"].clip(0) + rng.normal(size=N))))
    return pd.Series(values.to_numpy(), truth["image_id"])


def figures(scores, truth, **options):
    return cxr_compare.compare({"A": scores}, truth=truth, replicates=100, **options)


@pytest.mark.parametrize("written", [int, float, str, object])
def test_minus_one_beside_both_classes_is_uncertain(truth, written):
    labels = truth.assign(label=truth["label"].astype(written))
    read, _ = truth_from_values(labels)
    assert read.uncertain.tolist() == truth["image_id"].iloc[DOUBTFUL].tolist()
    assert read.label.isna().sum() == len(DOUBTFUL)
    by_array, _ = truth_from_values(labels["label"].to_numpy())
    assert len(by_array.uncertain) == len(DOUBTFUL)


@pytest.mark.parametrize("labels", [[1, -1, 1, -1], [0, -1, 0], ["1", "-1"]])
def test_minus_one_beside_one_class_is_asked_about(labels):
    with pytest.raises(InputError, match="row 1"):
        truth_from_values(labels)


def test_uncertain_images_are_left_out_and_counted(truth, scores):
    result = figures(scores, truth)
    known = truth[truth["label"] >= 0]
    same = figures(scores[known["image_id"]], known)
    columns = ["metric", "estimate", "ci_low", "ci_high"]
    pd.testing.assert_frame_equal(result.to_frame()[columns], same.to_frame()[columns])
    page = str(result)
    assert "4 labels" in page
    assert "4 of them because readers were uncertain" in page


def test_validation_images_of_uncertain_label_choose_no_threshold(truth, scores):
    is_doubtful = truth["label"] == -1
    roles = truth.assign(role=np.where(truth.index % 2 == 1, "val", "test"))
    result = figures(scores, roles)
    certain = figures(scores[~is_doubtful.to_numpy()], roles[~is_doubtful])
    of_a = result.decisions.set_index("image_id")["decision_max_f1"]
    of_certain = certain.decisions.set_index("image_id")["decision_max_f1"]
    pd.testing.assert_series_equal(of_a[of_certain.index], of_certain)


def test_an_uncertain_image_with_a_box_counts_with_it_or_without(truth, scores):
    boxed = truth[truth["label"] != 0]
    boxes = boxed[["image_id"]].assign(x1=10, y1=10, x2=50, y2=50)
    as_positive, _ = truth_from_values(truth, boxes=boxes, uncertain="positive")
    assert len(as_positive.true_boxes) == len(boxed)
    as_negative, _ = truth_from_values(truth, boxes=boxes, uncertain="negative")
    assert len(as_negative.true_boxes) == (truth["label"] == 1).sum()
    assert len(as_negative.boxes_trusted) == N
