"""Operating points are midpoints that validation supports, or none with the reason.

Refitted thresholds are those that `choose_threshold` gives on each resample.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.metrics.image_metrics import classification_metrics
from cxr_compare.evaluation.replicates import refit_choices
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.thresholds import (
    ValidationScores,
    check_policy,
    choose_threshold,
    midpoints,
)

SCORES = arrays.arrays(np.float64, 10, elements=st.sampled_from([0.0, 0.1, 0.2, 0.4, 0.7, 1.0]))
LABELS = arrays.arrays(np.int8, 10, elements=st.integers(0, 1))


def threshold_candidates(scores):
    """Midpoints of distinct scores."""
    distinct = np.unique(scores)
    return midpoints(distinct[:-1], distinct[1:])


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


@pytest.mark.parametrize(
    ("y_true", "y_score", "policy", "threshold"),
    [
        # Both 0.8 (1 of 1, 1 missed) and 0.2 (2 of 2 with 2 false) reach F1 = 2/3.
        ([1, 0, 0, 1, 0], [0.875, 0.625, 0.5, 0.375, 0.125], "max_f1", 0.75),
        # 0.35 (1 of 2 found, no false alarm) and 0.15 (both found, 1 of 2 false) reach J = 0.5.
        ([1, 0, 1, 0], [0.4, 0.3, 0.2, 0.1], "youden", 0.35),
        ([0] * 10 + [1], [*np.arange(10) / 10, 0.95], "specificity>=0.90", 0.85),
        ([0, 1], [0.5, float(np.nextafter(0.5, 1))], "max_f1", float(np.nextafter(0.5, 1))),
    ],
    ids=["highest of equal F1", "highest of equal J", "lowest that meets it", "next float"],
)
def test_a_threshold_by_hand(y_true, y_score, policy, threshold):
    chosen = choose_threshold(y_true, y_score, policy).threshold
    assert chosen == pytest.approx(threshold, rel=1e-15, abs=0)


POSITIVE = "calling every image positive"


@pytest.mark.parametrize(
    ("y_true", "y_score", "policy", "reason"),
    [
        ([1, 1], [0.1, 0.2], "max_f1", "no negative image"),
        ([0, 0], [0.1, 0.2], "max_f1", "no positive image"),
        ([0, 1], [0.3, 0.3], "max_f1", "same score"),
        ([1, 0], [0.1, 0.2], "max_f1", "no threshold"),  # the positive scores lowest: F1 is 0
        ([0, 1], [0.9, 0.1], "youden", "better than chance"),
        ([1, 0, 1], [0.1, 0.5, 0.9], "sensitivity>=0.95", f"0.95 is reached only by {POSITIVE}"),
        ([1, 0, 1], [0.1, 0.5, 0.9], "cost:1000/1", f"{POSITIVE} is cheaper than any threshold"),
    ],
)
def test_validation_that_gives_no_threshold_says_why(y_true, y_score, policy, reason):
    choice = choose_threshold(y_true, y_score, policy)
    assert choice.threshold is None
    assert reason in choice.reason


@settings(max_examples=80, deadline=None)
@given(LABELS, SCORES, st.sampled_from([(1, 1, None), (10, 1, None), (5, 2, 0.1)]))
def test_the_cheapest_threshold_is_that_of_an_exhaustive_search(y_true, y_score, costs):
    missed, alarm, prevalence = costs
    policy = f"cost:{missed}/{alarm}" + ("" if prevalence is None else f"@{prevalence}")
    choice = choose_threshold(y_true, y_score, policy)
    candidates = threshold_candidates(y_score).tolist()
    if not y_true.any() or y_true.all() or not candidates:
        assert choice.threshold is None
        return
    share = y_true.mean() if prevalence is None else prevalence

    def cost(threshold):
        called = y_score >= threshold
        lost = missed * share * (1 - called[y_true == 1].mean())
        return lost + alarm * (1 - share) * called[y_true == 0].mean()

    costs_of = [cost(t) for t in candidates]
    all_or_none = min(cost(-1), cost(2))
    if all_or_none < min(costs_of) - 1e-9:
        assert choice.threshold is None
        assert "is cheaper than any threshold" in choice.reason
    elif all_or_none > min(costs_of) + 1e-9:
        best = [t for t, c in zip(candidates, costs_of, strict=True) if c < min(costs_of) + 1e-9]
        assert choice.threshold == best[-1]


@pytest.mark.parametrize("y_true", [[0, 1, 0], [0, 0, 0]])
def test_a_declared_threshold_is_taken_whatever_validation_says(y_true):
    choice = choose_threshold(y_true, [0.3, 0.3, 0.3], "threshold=0.3")
    assert (choice.threshold, choice.reason) == (0.3, None)
    assert choose_threshold([], [], "threshold=1").threshold == 1.0


@pytest.mark.parametrize(
    "policy",
    [
        "max_f2", "sensitivity>0.9", "sensitivity>=1.2", "", "cost:0/1", "cost:1/1@0",
        "cost:1/1@1.5", "threshold=1.5", "threshold>=0.3",
    ],
)  # fmt: skip
def test_an_unknown_policy_is_refused(policy):
    with pytest.raises(InputError, match="unknown policy"):
        check_policy(policy)


POLICIES = (
    "max_f1", "youden", "sensitivity>=0.80", "sensitivity>=0", "sensitivity>=1",
    "specificity>=0.75", "specificity>=0", "specificity>=1", "cost:3/1", "cost:1/7",
    "cost:10/1@0.05", "threshold=0.3",
)  # fmt: skip
N = 14
SIGNED_SCORES = arrays.arrays(
    np.float64, N, elements=st.sampled_from([-1.5, 0.0, 0.1, 0.2, 0.4, 0.7, 1.0])
)
ALL_LABELS = arrays.arrays(np.int8, N, elements=st.integers(0, 1))
PATIENTS = arrays.arrays(np.int64, N, elements=st.integers(0, 5))
WEIGHTS = arrays.arrays(np.int16, (5, 6), elements=st.integers(0, 3))


def by_rows(validation, policy, of_row):
    """The oracle: the rows of a resample written out, given to `choose_threshold`.

    Where no candidate reaches a floor, the oracle takes the one closest to it.
    """
    rows = np.repeat(np.arange(len(validation.scores)), of_row)
    truth, scores = validation.y_true[rows], validation.scores[rows]
    found = choose_threshold(truth, scores, policy).threshold
    if found is None and ">=" in policy and 0 < truth.sum() < len(truth):
        candidates = threshold_candidates(scores).tolist()
        extreme = min if policy.startswith("sensitivity") else max
        found = extreme(candidates, default=None)
    return np.nan if found is None else found


@settings(max_examples=120, deadline=None)
@given(ALL_LABELS, SIGNED_SCORES, PATIENTS, WEIGHTS)
def test_every_policy_gives_the_threshold_of_the_rows_written_out(y_true, scores, owner, weights):
    validation = ValidationScores(y_true, scores, owner.astype(str), POLICIES)
    found = validation.refit(owner, 6)(weights)
    for policy in POLICIES:
        expected = [by_rows(validation, policy, row[owner]) for row in weights]
        np.testing.assert_array_equal(found[policy], expected, err_msg=policy)


def test_scores_without_ties_give_the_threshold_of_the_rows_written_out():
    rng = np.random.default_rng(2)
    y_true, owner = rng.random(300) < 0.3, rng.integers(0, 120, 300)
    scores = rng.normal(y_true * 1.3, 1)
    weights = rng.multinomial(120, np.full(120, 1 / 120), size=8)
    policies = (*POLICIES, "sensitivity>=0.95", "specificity>=0.90", "sensitivity>=0.07")
    validation = ValidationScores(y_true, scores, owner.astype(str), policies)
    found = validation.refit(owner, 120)(weights)
    for policy in policies:
        expected = [by_rows(validation, policy, row[owner]) for row in weights]
        np.testing.assert_array_equal(found[policy], expected, err_msg=policy)


def test_a_resample_that_reaches_a_floor_by_calling_all_images_takes_the_lowest_candidate():
    # Images without a box score 0.
    y_true = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
    scores = np.array([0.9, 0.8, 0.0, 0.6, 0.0, 0.0])
    policies = ("sensitivity>=0.60", "specificity>=1")
    validation = ValidationScores(y_true, scores, np.arange(6).astype(str), policies)
    refitted = validation.refit(np.arange(6), 6)
    as_it_is, more_without_box, no_negative = refitted(
        np.array([[1, 1, 1, 1, 1, 1], [1, 0, 2, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    )["sensitivity>=0.60"]
    assert as_it_is == pytest.approx(0.7)
    assert more_without_box == pytest.approx(0.3)  # between 0 and 0.6, the lowest two scores
    assert np.isnan(no_negative)
    highest_is_negative = refitted(np.array([[0, 0, 1, 2, 1, 0], [0, 0, 2, 0, 1, 0]]))
    assert highest_is_negative["specificity>=1"][0] == pytest.approx(0.3)
    assert np.isnan(highest_is_negative["specificity>=1"][1])  # all images have one score


def test_systems_are_refitted_on_the_same_patients_whatever_rows_each_has():
    rng = np.random.default_rng(3)
    y_true, scores = rng.random(40) < 0.4, rng.random(40)
    owner = np.array([f"p{n // 2:02d}" for n in range(40)])
    whole = ValidationScores(y_true, scores, owner)
    # The other ran on the last thirty images only, in reverse order.
    part = ValidationScores(y_true[:9:-1], scores[:9:-1], owner[:9:-1])
    resamples = Resamples(7, n_replicates=50, seed=4)
    chosen = {"A": (whole, ["max_f1"]), "B": (whole, ["max_f1", "youden"]), "C": (part, ["max_f1"])}
    choices = {name: [replace(kept, policies=of)] for name, (kept, of) in chosen.items()}
    found = refit_choices(choices, resamples)
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
    with pytest.raises(InputError, match=r"\b2 scores.*\b1\b"):
        ValidationScores([True, False], [0.1, 0.2], ["p"])
