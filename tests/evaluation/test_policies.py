"""Choices on validation: thresholds by exhaustive search, and Platt's scaling."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

import cxr_compare
from cxr_compare import InputError, metrics
from tests.adapters import figures as product

FIGURES = {"max_f1": "f1", "sensitivity": "recall", "specificity": "specificity"}
CHOSEN = ("max_f1", "youden", "sensitivity>=0.80", "sensitivity>=1", "specificity>=0.75")
CHOSEN += ("sensitivity>=0.0", "specificity>=0.0", "specificity>=1")
VALUES = [0.0, 0.1, 0.2, 0.4, 0.7, 1.0]
LABELS = arrays(np.int8, 10, elements=st.integers(0, 1))
SCORES = arrays(np.float64, 10, elements=st.sampled_from(VALUES))


def cuts(scores):
    """Thresholds in the middle of neighbouring scores, rising."""
    return [low + (high - low) / 2 for low, high in pairwise(np.unique(scores).tolist())]


def by_search(policy, labels, scores):
    """The threshold of a policy by trying every cut; None without one."""
    if len(set(labels.tolist())) < 2:
        return None
    kind, _, floor = policy.partition(">=")
    found = {}
    for cut in cuts(scores):
        of_cut = metrics.classification_metrics(labels, scores, cut)
        if kind == "youden":
            found[cut] = of_cut["recall"] + of_cut["specificity"] - 1
        else:
            found[cut] = of_cut[FIGURES[kind]] or 0.0
    if floor:
        kept = [cut for cut, value in found.items() if value >= float(floor)]
        return kept[-1 if kind == "sensitivity" else 0] if kept else None
    best = max(found.values(), default=0.0)
    best_cuts = [cut for cut, value in found.items() if value >= best - 1e-12]
    return best_cuts[-1] if best > 1e-12 else None


@settings(max_examples=80, deadline=None)
@given(LABELS, SCORES, st.sampled_from(CHOSEN))
def test_the_choice_is_that_of_an_exhaustive_search(labels, scores, policy):
    assert product.threshold(policy, labels, scores) == by_search(policy, labels, scores)


def test_between_neighbouring_floats_the_threshold_is_the_upper_one():
    upper = float(np.nextafter(0.5, 1))
    assert product.threshold("max_f1", [0, 1], [0.5, upper]) == upper
    once = np.ones((1, 2), int)
    assert product.thresholds_again("max_f1", [0, 1], [0.5, upper], np.arange(2), once) == [upper]


@pytest.mark.parametrize(
    ("labels", "scores", "policy"),
    [
        ([1, 1], [0.1, 0.2], "max_f1"),
        ([0, 0], [0.1, 0.2], "max_f1"),
        ([0, 1], [0.3, 0.3], "max_f1"),
        ([1, 0], [0.1, 0.2], "max_f1"),  # the positive scores lowest: F1 is 0
        ([0, 1], [0.9, 0.1], "youden"),  # none does better than chance
        ([1, 0, 1], [0.1, 0.5, 0.9], "sensitivity>=0.95"),  # only by calling all positive
        ([1, 0, 1], [0.1, 0.5, 0.6], "specificity>=1"),
    ],
)
def test_where_no_threshold_serves_there_is_none(labels, scores, policy):
    found = product.threshold(policy, labels, scores)
    assert found == (0.55 if policy == "specificity>=1" else None)


@pytest.mark.parametrize("labels", [[0, 1, 0], [0, 0, 0]])
def test_a_stated_threshold_is_taken_whatever_validation_says(labels):
    assert product.threshold("threshold=0.3", labels, [0.3, 0.3, 0.3]) == 0.3
    assert product.threshold("threshold=1", [], []) == 1.0


@pytest.mark.parametrize(
    "policy",
    [
        *("nonsense", "sensitivity>0.9", "sensitivity>=1.2", "", "cost:1/1", "threshold=1.5"),
        *("threshold>=0.3", "threshold=", "sensitivity>=0.9@", "sensitivity>=0.9@1.5"),
        *("sensitivity>=0.9@0.9", "youden@0.9", "sensitivity>=nan"),
    ],
)
def test_an_unknown_policy_is_refused_by_its_text(policy):
    with pytest.raises(InputError) as refused:
        product.parse(policy)
    assert repr(policy) in str(refused.value)
    assert "\n" not in str(refused.value)


# On resamples


N = 14
SIGNED = arrays(np.float64, N, elements=st.sampled_from([-1.5, 0.0, 0.1, 0.2, 0.4, 0.7, 1.0]))
ALL_LABELS = arrays(np.int8, N, elements=st.integers(0, 1))
PATIENTS = arrays(np.int64, N, elements=st.integers(0, 5))
WEIGHTS = arrays(np.int16, (5, 6), elements=st.integers(0, 3))


def written_out(policy, labels, scores, times):
    """The threshold of images that are listed as often as they were drawn.

    Where no cut reaches a floor, it is the one closest to it.
    """
    labels, scores = np.repeat(labels, times), np.repeat(scores, times)
    found = by_search(policy, labels, scores)
    if found is None and ">=" in policy and 0 < labels.sum() < len(labels):
        extreme = min if policy.startswith("sensitivity") else max
        found = extreme(cuts(scores), default=None)
    return np.nan if found is None else found


@settings(max_examples=60, deadline=None)
@given(ALL_LABELS, SIGNED, PATIENTS, WEIGHTS, st.sampled_from(CHOSEN))
def test_a_resample_chooses_what_its_images_written_out_choose(
    labels, scores, patients, weights, policy
):
    found = product.thresholds_again(policy, labels, scores, patients, weights)
    expected = [written_out(policy, labels, scores, row[patients]) for row in weights]
    np.testing.assert_array_equal(found, expected)


def test_a_resample_that_reaches_a_floor_by_calling_all_images_takes_the_lowest_cut():
    labels = np.array([1, 1, 1, 0, 0, 0])
    scores = np.array([0.9, 0.8, 0.0, 0.6, 0.0, 0.0])  # images without a box score 0
    weights = np.array([[1, 1, 1, 1, 1, 1], [1, 0, 2, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    found = product.thresholds_again("sensitivity>=0.60", labels, scores, np.arange(6), weights)
    assert found[:2] == pytest.approx([0.7, 0.3])  # 0.3 lies between 0 and 0.6
    assert np.isnan(found[2])
    alike = np.array([[0, 0, 1, 2, 1, 0], [0, 0, 2, 0, 1, 0]])
    found = product.thresholds_again("specificity>=1", labels, scores, np.arange(6), alike)
    assert found[0] == pytest.approx(0.3)
    assert np.isnan(found[1])  # all images have one score


def with_validation(n=300, seed=4, val=0.7):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"image_id": [f"i{k:03d}" for k in range(n)]})
    table["patient_id"] = table["image_id"]
    table["role"] = np.where(np.arange(n) < val * n, "val", "test")
    table["label"] = (rng.random(n) < 0.6).astype(int)
    scores = {}
    for name, skill in (("A", 2.0), ("B", 1.5)):
        raw = rng.normal(skill * table["label"], 1)
        scores[name] = pd.Series(1 / (1 + np.exp(-raw)), table["image_id"])
    return table, scores


@pytest.mark.parametrize(
    ("named", "evaluated"),
    [
        (None, ["max_f1"]),
        ("youden,threshold=0.5", ["youden", "threshold=0.5"]),
        (["specificity>=0.80", "max_f1"], ["specificity>=0.80", "max_f1"]),
    ],
)
def test_the_named_policies_are_evaluated_or_max_f1_alone_and_the_first_is_shown(named, evaluated):
    table, scores = with_validation()
    result = cxr_compare.compare(scores, truth=table, policy=named, replicates=100)
    assert result.policies == evaluated
    assert set(result.figures["policy"]) == {"", *evaluated}
    assert result.answer.policy == evaluated[0]
    assert all(list(of) == evaluated for of in result.answer.thresholds.values())


# Calibration


def detector_scores(n, seed):
    """Six in ten negative and one in twelve positive images have no box; of the others beta."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.3
    scores = np.where(labels, rng.beta(3, 2, n), rng.beta(1.5, 4, n))
    return labels, np.where(rng.random(n) < np.where(labels, 1 / 12, 0.6), 0.0, scores)


def test_platts_line_is_scikit_learns_and_its_level_at_0_pools_neighbours_as_isotonic_does():
    labels, scores = detector_scores(600, 1)
    n = int(labels.sum())
    wanted = np.where(labels, (n + 1) / (n + 2), 1 / (602 - n))
    empty = scores == 0
    clipped = np.clip(scores, 1e-4, 1 - 1e-4)
    design = np.column_stack([np.where(empty, 0, np.log(clipped / (1 - clipped))), empty])
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=2000)
    weights = np.concatenate([wanted, 1 - wanted])
    model.fit(np.tile(design, (2, 1)), np.repeat([1, 0], 600), sample_weight=weights)
    theirs = model.predict_proba(design)[:, 1]
    order = np.lexsort((theirs, scores))
    pooled = IsotonicRegression().fit_transform(np.arange(600), theirs[order])
    found = product.platt(labels, scores).probability(scores)[order]
    np.testing.assert_allclose(found, pooled, rtol=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0]))))
def test_a_probability_never_falls_where_the_score_rises(images):
    labels = np.array([label for label, _ in images], bool)
    scores = np.array([score for _, score in images], float)
    found = product.platt(labels, scores)
    if found is None:
        assert labels.all() or not labels.any() or not (scores > 0).any()
        return
    probability = found.probability(np.linspace(0, 1, 41))
    assert (np.diff(probability) >= 0).all()
    assert 0 <= probability[0] <= probability[-1] <= 1
