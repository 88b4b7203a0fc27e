"""From boxes to one score per image."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_prep.contracts.errors import InputError
from evaluation.decisions.reduction import (
    CANDIDATES,
    Reduction,
    _box_features,
    _fit_learned,
    combine_findings,
    cross_fit,
    reduce_boxes,
    words_of,
)

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
    reduced = reduce_boxes(BOXES, IMAGES, rule=rule, min_score=min_score)
    assert reduced.tolist() == pytest.approx(expected)
    assert reduced.index.equals(IMAGES)


@pytest.mark.parametrize("candidate", CANDIDATES, ids=str)
def test_an_image_without_boxes_scores_zero_and_stays(candidate):
    none = BOXES.iloc[:0]
    reduced = reduce_boxes(none, IMAGES, rule=candidate.rule, min_score=candidate.min_score)
    assert reduced.tolist() == [0.0, 0.0, 0.0]


def test_three_hundred_faint_boxes_are_no_finding_under_the_floor():
    # The known mistake: noisy-or over 300 boxes at 0.01 is 0.95.
    faint = pd.DataFrame({"image_id": ["a"] * 300, "score": [0.01] * 300})
    one = pd.Index(["a"])
    assert reduce_boxes(faint, one, rule="noisy_or")["a"] > 0.95
    assert reduce_boxes(faint, one, rule="noisy_or", min_score=0.05)["a"] == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=8), st.randoms(use_true_random=False))
def test_order_of_rows_never_matters_and_scores_stay_in_bounds(scores, random):
    shuffled = random.sample(scores, len(scores))
    for candidate in CANDIDATES:
        results = []
        for values in (scores, shuffled):
            boxes = pd.DataFrame({"image_id": ["a"] * len(values), "score": values})
            boxes = boxes.astype({"image_id": "str", "score": "float64"})
            reduced = reduce_boxes(
                boxes, pd.Index(["a"]), rule=candidate.rule, min_score=candidate.min_score
            )
            results.append(reduced["a"])
        assert results[0] == results[1]
        assert 0 <= results[0] <= 1


def test_noisy_or_is_the_product_of_misses():
    rng = np.random.default_rng(0)
    scores = rng.random(20)
    boxes = pd.DataFrame({"image_id": ["a"] * 20, "score": scores})
    expected = 1 - math.prod(1 - np.sort(scores)[::-1])
    assert reduce_boxes(boxes, pd.Index(["a"]), rule="noisy_or")["a"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("boxes", "image_ids", "message"),
    [
        (BOXES, pd.Index(["a", "a", "b"]), "'a' repeats"),
        (BOXES, pd.Index(["a"]), "'b' is not among"),
        (BOXES.assign(score=1.5), IMAGES, r"must be in \[0, 1\]; row 0"),
        (BOXES.assign(score=np.nan), IMAGES, "score=nan"),
    ],
)
def test_bad_boxes_are_refused_by_place(boxes, image_ids, message):
    with pytest.raises(InputError, match=message):
        reduce_boxes(boxes, image_ids)


def test_an_unknown_rule_is_refused():
    with pytest.raises(InputError, match="unknown reduction rule 'mean'"):
        reduce_boxes(BOXES, IMAGES, rule="mean")


def test_a_target_of_several_findings_takes_the_highest_score():
    rows = pd.DataFrame(
        {"image_id": ["a", "a", "b"], "finding": ["x", "y", "z"], "score": [0.2, 0.6, 0.9]}
    )
    combined = combine_findings(rows, pd.Index(["b", "a"]), ("x", "y"))
    assert combined["a"] == 0.6
    assert math.isnan(combined["b"])  # its only score is for a finding outside the target


N = 90


@pytest.fixture
def sample():
    """Images with one or two boxes; a second box speaks for the finding."""
    rng = np.random.default_rng(6)
    ids = pd.Index([f"i{number:02d}" for number in range(N)], name="image_id")
    y_true = pd.Series((rng.random(N) < 0.4).astype(float), index=ids)
    first = pd.DataFrame({"image_id": ids, "score": expit(rng.normal(y_true - 1, 1.0))})
    second = first[(y_true == 1).to_numpy() & (rng.random(N) < 0.8)].assign(score=0.3)
    boxes = pd.concat([first, second])
    return boxes[~boxes["image_id"].isin(ids[:3])], y_true  # three images have no box


def test_features_counted_by_hand():
    boxes = pd.DataFrame({"image_id": list("bbbba"), "score": [0.04, 0.5, 0.2, 0.05, 0.1]})
    found = _box_features(boxes, pd.Index(["a", "b", "c"]))
    nothing = np.log(1e-4 / (1 - 1e-4))
    logit = {score: np.log(score / (1 - score)) for score in (0.5, 0.2, 0.1, 0.05)}
    np.testing.assert_allclose(
        found,
        [
            [logit[0.1], nothing, nothing, np.log(2), 0.0],
            [logit[0.5], logit[0.2], logit[0.05], np.log(4), np.log(3)],  # floors take part
            [nothing, nothing, nothing, 0.0, 0.0],
        ],
    )


def test_the_rule_is_ridge_logistic_regression_on_standardised_features(sample):
    boxes, y_true = sample
    features = _box_features(boxes, y_true.index)
    rule = _fit_learned(features, y_true.to_numpy() == 1)
    oracle = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, max_iter=5000))
    expected = oracle.fit(features, y_true).predict_proba(features)[:, 1]
    scores = reduce_boxes(boxes, y_true.index, rule="learned", weights=rule.weights).to_numpy()
    with_boxes = y_true.index.isin(boxes["image_id"])
    np.testing.assert_allclose(scores[with_boxes], expected[with_boxes], atol=1e-4)
    assert (scores[~with_boxes] == 0).all()  # an image without boxes scores 0
    assert (~with_boxes).sum() == 3


def test_no_fold_is_scored_by_a_rule_that_saw_it(sample):
    boxes, y_true = sample
    folds = np.arange(N) % 3
    whole, unseen = cross_fit(boxes, y_true, folds)
    held = folds == 1
    flipped = y_true.where(~held, 1 - y_true)
    assert (cross_fit(boxes, flipped, folds)[1][held] == unseen[held]).all()
    assert (cross_fit(boxes, flipped, folds)[1][~held] != unseen[~held]).any()
    assert whole == _fit_learned(_box_features(boxes, y_true.index), y_true.to_numpy() == 1)


def test_the_same_images_give_the_same_rule(sample):
    boxes, y_true = sample
    shuffled = boxes.sample(frac=1, random_state=0)
    folds = np.arange(N) % 3
    assert cross_fit(shuffled, y_true, folds)[0] == cross_fit(boxes, y_true, folds)[0]


def test_a_rule_survives_its_file_and_says_its_weights(sample):
    boxes, y_true = sample
    rule = _fit_learned(_box_features(boxes, y_true.index), y_true.to_numpy() == 1)
    assert Reduction.from_json(rule.to_json()) == rule
    assert words_of(rule.weights).count(":") == 5


def test_one_class_or_missing_weights_are_refused(sample):
    boxes, y_true = sample
    with pytest.raises(InputError, match="needs positive and negative images"):
        _fit_learned(np.zeros((4, 5)), np.ones(4, dtype=bool))
    with pytest.raises(InputError, match="needs 6 weights, got 0"):
        reduce_boxes(boxes, y_true.index, rule="learned")
