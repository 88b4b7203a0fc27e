"""Operating points are midpoints that validation supports, or none with the reason."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from data_prep.tables import InputError
from evaluation.metrics import classification_metrics
from evaluation.thresholds import check_policy, choose_threshold, threshold_candidates

SCORES = arrays.arrays(np.float64, 10, elements=st.sampled_from([0.0, 0.1, 0.2, 0.4, 0.7, 1.0]))
LABELS = arrays.arrays(np.int8, 10, elements=st.integers(0, 1))


def _figure(y_true, y_score, threshold, name):
    return classification_metrics(y_true, y_score, threshold)[name]


@settings(max_examples=150, deadline=None)
@given(LABELS, SCORES, st.sampled_from(["max_f1", "sensitivity>=0.80", "specificity>=0.75"]))
def test_the_choice_is_that_of_an_exhaustive_search(y_true, y_score, policy):
    choice = choose_threshold(y_true, y_score, policy)
    candidates = threshold_candidates(y_score).tolist()
    if not y_true.any() or y_true.all() or not candidates:
        assert choice.threshold is None
        return
    if policy == "max_f1":
        f1 = [_figure(y_true, y_score, t, "f1") for t in candidates]
        best = [t for t, value in zip(candidates, f1, strict=True) if value == max(f1)]
        expected = best[-1] if max(f1) > 0 else None
    else:
        name, floor, pick = (
            ("recall", 0.80, -1) if policy.startswith("sens") else ("specificity", 0.75, 0)
        )
        kept = [t for t in candidates if _figure(y_true, y_score, t, name) >= floor]
        expected = kept[pick] if kept else None
    assert choice.threshold == expected
    assert (choice.reason is None) == (expected is not None)


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float64, 6, elements=st.floats(0, 1, allow_subnormal=True)))
def test_every_candidate_separates_its_two_neighbours(scores):
    distinct = np.unique(scores)
    candidates = threshold_candidates(scores)
    assert (candidates > distinct[:-1]).all()
    assert (candidates <= distinct[1:]).all()


def test_neighbouring_floats_still_get_a_threshold_that_separates_them():
    low, high = 0.5, float(np.nextafter(0.5, 1))
    assert choose_threshold([0, 1], [low, high], "max_f1").threshold == high


def test_a_threshold_survives_json_unchanged():
    threshold = choose_threshold([0, 1], [0.1, 0.2 + 1e-17], "max_f1").threshold
    assert json.loads(json.dumps(threshold)) == threshold


def test_among_equal_f1_the_highest_threshold_wins():
    # Both 0.8 (1 of 1, 1 missed) and 0.2 (2 of 2 with 2 false) reach F1 = 2/3.
    choice = choose_threshold([1, 0, 0, 1, 0], [0.875, 0.625, 0.5, 0.375, 0.125], "max_f1")
    assert choice.threshold == 0.75


def test_youden_takes_the_highest_of_the_best_sums():
    # 0.35 (1 of 2 found, no false alarm) and 0.15 (both found, 1 of 2 false) reach J = 0.5.
    assert choose_threshold([1, 0, 1, 0], [0.4, 0.3, 0.2, 0.1], "youden").threshold == 0.35


def test_scores_that_only_mislead_give_youden_nothing():
    assert "better than chance" in choose_threshold([0, 1], [0.9, 0.1], "youden").reason


def test_a_specificity_floor_takes_the_lowest_threshold_that_meets_it():
    y_true = [0] * 10 + [1]
    y_score = [*np.arange(10) / 10, 0.95]
    assert choose_threshold(y_true, y_score, "specificity>=0.90").threshold == pytest.approx(0.85)


def test_a_sensitivity_floor_met_only_by_calling_all_positive_gives_none():
    choice = choose_threshold([1, 0, 1], [0.1, 0.5, 0.9], "sensitivity>=0.95")
    assert choice.threshold is None
    assert choice.reason == "sensitivity >= 0.95 is met only by calling every image positive"


@pytest.mark.parametrize(
    ("y_true", "y_score", "reason"),
    [
        ([1, 1], [0.1, 0.2], "no negative image"),
        ([0, 0], [0.1, 0.2], "no positive image"),
        ([0, 1], [0.3, 0.3], "same score"),
        ([1, 0], [0.1, 0.2], "no threshold"),  # the positive scores lowest: F1 is 0 everywhere
    ],
)
def test_validation_that_gives_no_threshold_says_why(y_true, y_score, reason):
    choice = choose_threshold(y_true, y_score, "max_f1")
    assert choice.threshold is None
    assert reason in choice.reason


@pytest.mark.parametrize("policy", ["max_f2", "sensitivity>0.9", "sensitivity>=1.2", "f1>=0.5", ""])
def test_an_unknown_policy_is_refused(policy):
    with pytest.raises(InputError, match="unknown policy"):
        check_policy(policy)
