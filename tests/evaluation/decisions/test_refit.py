"""Refitted thresholds are those that `choose_threshold` gives on each resample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from data_prep.contracts.errors import InputError
from evaluation.decisions.refit import ValidationScores, _ThresholdRefit, refit_thresholds
from evaluation.decisions.thresholds import choose_threshold
from evaluation.statistics.bootstrap import Resamples

POLICIES = (
    "max_f1", "youden", "sensitivity>=0.80", "sensitivity>=0", "sensitivity>=1",
    "specificity>=0.75", "specificity>=0", "specificity>=1", "cost:3/1", "cost:1/7",
    "cost:10/1@0.05", "threshold=0.3",
)  # fmt: skip
N = 14
SCORES = arrays.arrays(
    np.float64, N, elements=st.sampled_from([-1.5, 0.0, 0.1, 0.2, 0.4, 0.7, 1.0])
)
LABELS = arrays.arrays(np.int8, N, elements=st.integers(0, 1))
PATIENTS = arrays.arrays(np.int64, N, elements=st.integers(0, 5))
WEIGHTS = arrays.arrays(np.int16, (5, 6), elements=st.integers(0, 3))


def by_rows(validation, policy, of_row):
    """The oracle: the rows of a resample written out, given to `choose_threshold`."""
    rows = np.repeat(np.arange(len(validation.scores)), of_row)
    found = choose_threshold(validation.y_true[rows], validation.scores[rows], policy).threshold
    return np.nan if found is None else found


@settings(max_examples=120, deadline=None)
@given(LABELS, SCORES, PATIENTS, WEIGHTS)
def test_every_policy_gives_the_threshold_of_the_rows_written_out(y_true, scores, owner, weights):
    validation = ValidationScores(y_true, scores, owner.astype(str))
    found = _ThresholdRefit(validation, POLICIES, owner, 6)(weights)
    for policy in POLICIES:
        expected = [by_rows(validation, policy, row[owner]) for row in weights]
        np.testing.assert_array_equal(found[policy], expected, err_msg=policy)


def test_scores_without_ties_give_the_threshold_of_the_rows_written_out():
    rng = np.random.default_rng(2)
    y_true, owner = rng.random(300) < 0.3, rng.integers(0, 120, 300)
    scores = rng.normal(y_true * 1.3, 1)
    weights = rng.multinomial(120, np.full(120, 1 / 120), size=8)
    validation = ValidationScores(y_true, scores, owner.astype(str))
    policies = (*POLICIES, "sensitivity>=0.95", "specificity>=0.90", "sensitivity>=0.07")
    found = _ThresholdRefit(validation, policies, owner, 120)(weights)
    for policy in policies:
        expected = [by_rows(validation, policy, row[owner]) for row in weights]
        np.testing.assert_array_equal(found[policy], expected, err_msg=policy)


def test_systems_are_refitted_on_the_same_patients_whatever_rows_each_has():
    rng = np.random.default_rng(3)
    y_true, scores = rng.random(40) < 0.4, rng.random(40)
    owner = np.array([f"p{n // 2:02d}" for n in range(40)])
    whole = ValidationScores(y_true, scores, owner)
    # The other ran on the last thirty images only, in reverse order.
    part = ValidationScores(y_true[:9:-1], scores[:9:-1], owner[:9:-1])
    resamples = Resamples(7, n_replicates=50, seed=4)
    chosen = {"A": (whole, ["max_f1"]), "B": (whole, ["max_f1", "youden"]), "C": (part, ["max_f1"])}
    found = refit_thresholds(chosen, resamples)
    np.testing.assert_array_equal(found["A"]["max_f1"], found["B"]["max_f1"])
    assert len(np.unique(found["A"]["max_f1"])) > 5
    drawn = np.concatenate(
        [*Resamples(20, 50, seed=4, stream=1).chunks()]
    )  # patients in sorted order
    expected = [
        by_rows(part, "max_f1", row[np.unique(owner, return_inverse=True)[1]][:9:-1])
        for row in drawn
    ]
    np.testing.assert_array_equal(found["C"]["max_f1"], expected)


def test_validation_patients_are_not_drawn_as_the_test_patients_are():
    test, validation = (
        np.concatenate([*Resamples(50, 40, seed=1, stream=stream).chunks()]) for stream in (0, 1)
    )
    assert abs(np.corrcoef(test.ravel(), validation.ravel())[0, 1]) < 0.05


def test_validation_refuses_patients_of_other_images():
    with pytest.raises(InputError, match="2 scores, patients of 1"):
        ValidationScores([True, False], [0.1, 0.2], ["p"])
