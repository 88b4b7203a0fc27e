"""A rule learned on validation scores each patient as the others taught it."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_prep.contracts.errors import InputError
from evaluation.decisions.reduction import (
    Reduction,
    box_features,
    cross_fit,
    fit_learned,
    reduce_boxes,
    words_of,
)

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
    found = box_features(boxes, pd.Index(["a", "b", "c"]))
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
    features = box_features(boxes, y_true.index)
    rule = fit_learned(features, y_true.to_numpy() == 1)
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
    assert whole == fit_learned(box_features(boxes, y_true.index), y_true.to_numpy() == 1)


def test_the_same_images_give_the_same_rule(sample):
    boxes, y_true = sample
    shuffled = boxes.sample(frac=1, random_state=0)
    folds = np.arange(N) % 3
    assert cross_fit(shuffled, y_true, folds)[0] == cross_fit(boxes, y_true, folds)[0]


def test_a_rule_survives_its_file_and_says_its_weights(sample):
    boxes, y_true = sample
    rule = fit_learned(box_features(boxes, y_true.index), y_true.to_numpy() == 1)
    assert Reduction.from_json(rule.to_json()) == rule
    assert words_of(rule.weights).count(":") == 5


def test_one_class_or_missing_weights_are_refused(sample):
    boxes, y_true = sample
    with pytest.raises(InputError, match="needs positive and negative images"):
        fit_learned(np.zeros((4, 5)), np.ones(4, dtype=bool))
    with pytest.raises(InputError, match="needs 6 weights, got 0"):
        reduce_boxes(boxes, y_true.index, rule="learned")
