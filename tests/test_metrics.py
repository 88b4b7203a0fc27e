"""`cxr_compare.metrics` of images by scikit-learn and by hand, and thresholds by policies."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn import metrics as oracle

import cxr_compare
from cxr_compare import InputError, metrics
from tests.adapters import figures as product
from tests.oracles import guarantee

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the reason of an undefined figure


# Few distinct values, so that most cases hold ties within and across the classes.
TIED = arrays(np.float64, 12, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))


LABELS = arrays(np.int8, 12, elements=st.integers(0, 1))


@settings(max_examples=150, deadline=None)
@given(LABELS, TIED)
def test_tied_scores_give_the_figures_of_scikit_learn(labels, scores):
    if labels.any():
        expected = oracle.average_precision_score(labels, scores)
        assert metrics.average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)
    if labels.any() and not labels.all():
        expected = oracle.roc_auc_score(labels, scores)
        assert metrics.auroc(labels, scores) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(LABELS, TIED, arrays(np.int16, 12, elements=st.integers(0, 3)))
def test_weights_mean_the_same_as_repeated_images(labels, scores, weights):
    repeated = np.repeat(labels, weights), np.repeat(scores, weights)
    ranked = product.RankedScores(labels, scores).figures(weights[None, :])
    for name in ("auroc", "average_precision"):
        expected = getattr(metrics, name)(*repeated)
        expected = np.nan if expected is None else expected
        assert ranked[name][0] == pytest.approx(expected, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(LABELS, TIED)
def test_a_rising_function_of_the_scores_changes_no_ranking(labels, scores):
    stretched = np.exp(3 * scores) - 7
    for name in ("auroc", "average_precision"):
        of = getattr(metrics, name)
        assert of(labels, scores) == of(labels, stretched)


@settings(max_examples=60, deadline=None)
@given(LABELS, TIED, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_counts_and_rates_are_those_of_scikit_learn(labels, scores, threshold):
    called = (scores >= threshold).astype(int)
    counts = metrics.confusion_counts(labels, scores, threshold)
    expected = oracle.confusion_matrix(labels, called, labels=[0, 1]).ravel().tolist()
    assert [counts[name] for name in ("tn", "fp", "fn", "tp")] == expected
    found = metrics.classification_metrics(labels, scores, threshold)
    both, any_called = labels.any() and not labels.all(), called.any()
    theirs = {
        "accuracy": (True, oracle.accuracy_score, (labels, called)),
        "precision": (any_called, oracle.precision_score, (labels, called)),
        "recall": (labels.any(), oracle.recall_score, (labels, called)),
        "specificity": (not labels.all(), oracle.recall_score, (labels == 0, called == 0)),
        "npv": (not called.all(), oracle.precision_score, (labels == 0, called == 0)),
        "f1": (labels.any() or any_called, oracle.f1_score, (labels, called)),
        "balanced_accuracy": (both, oracle.balanced_accuracy_score, (labels, called)),
        "mcc": (
            both and any_called and not called.all(),
            oracle.matthews_corrcoef,
            (labels, called),
        ),
    }
    assert found.keys() == theirs.keys()
    for name, (defined, function, arguments) in theirs.items():
        expected = pytest.approx(function(*arguments), abs=1e-12) if defined else None
        assert found[name] == expected, name


def test_three_images_counted_by_hand():
    # One positive found, one positive missed, one negative left alone.
    labels, scores = [1, 1, 0], [0.9, 0.2, 0.3]
    assert metrics.auroc(labels, scores) == 0.5
    assert metrics.average_precision(labels, scores) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.classification_metrics(labels, scores, threshold=0.5) == pytest.approx(
        {
            "accuracy": 2 / 3,
            "precision": 1.0,
            "recall": 0.5,
            "specificity": 1.0,
            "f1": 2 / 3,
            "balanced_accuracy": 0.75,
            "mcc": 0.5,  # (1 x 1 - 0 x 1) / sqrt(1 x 2 x 1 x 2)
            "npv": 0.5,
        }
    )


BOTH_CLASSES = {"balanced_accuracy", "mcc"}


@pytest.mark.parametrize(
    ("labels", "scores", "undefined"),
    [
        ([1, 1], [0.9, 0.8], {*BOTH_CLASSES, "specificity", "npv"}),
        ([0, 0], [0.1, 0.9], {*BOTH_CLASSES, "recall"}),
        ([0, 1], [0.1, 0.2], {"precision", "mcc"}),  # nobody is called positive
        ([0, 1], [0.6, 0.9], {"npv", "mcc"}),  # everybody is called positive
        ([0], [0.1], {*BOTH_CLASSES, "recall", "precision", "f1"}),
    ],
)
def test_an_undefined_figure_is_none_and_never_zero(labels, scores, undefined):
    with pytest.warns(UserWarning, match="undefined") as warned:
        found = metrics.classification_metrics(labels, scores, threshold=0.5)
    assert {name for name, value in found.items() if value is None} == undefined
    assert all(name in str(warned[0].message) for name in undefined)
    assert (metrics.auroc(labels, scores) is None) == (len(set(labels)) < 2)
    assert (metrics.average_precision(labels, scores) is None) == (1 not in labels)


@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        ([0, 1], [0.1], "shapes"),
        ([0, 1], [[0.1, 0.2]], "shapes"),
        ([0, 1], [[0.1, 0.9], [0.2, 0.8]], "shapes"),
        ([0, 2], [0.1, 0.2], "row 1"),
        ([0, np.nan], [0.1, 0.2], "row 1"),
        ([0, 1], [0.1, np.nan], "row 1"),
        ([-1, 1], [0.1, 0.2], "row 0"),
    ],
)
def test_invalid_labels_and_scores_are_refused_by_position(labels, scores, says):
    for refuse in (
        lambda: metrics.auroc(labels, scores),
        lambda: metrics.average_precision(labels, scores),
        lambda: metrics.confusion_counts(labels, scores, 0.5),
        lambda: metrics.auroc_difference(labels, scores, scores),
    ):
        with pytest.raises(InputError, match=says):
            refuse()


def test_a_column_of_values_is_one_value_for_each_image():
    """``torch.sigmoid(model(x))`` has the shape (N, 1)."""
    labels, scores, patients = np.array([0, 1, 0, 1, 1, 0]), np.arange(6) / 6, np.arange(6) // 2
    columns = labels[:, None], scores[:, None]
    assert metrics.auroc(*columns) == metrics.auroc(labels, scores)
    assert metrics.average_precision(*columns) == metrics.average_precision(labels, scores)
    counts = metrics.confusion_counts(labels, scores, 0.5)
    assert metrics.confusion_counts(*columns, 0.5) == counts
    difference = metrics.auroc_difference(labels, scores, -scores, patients)
    as_columns = metrics.auroc_difference(*columns, -columns[1], patients)
    assert as_columns == difference


def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="threshold"):
        metrics.confusion_counts([0, 1], [0.1, 0.4], threshold=np.nan)


def test_series_must_be_in_one_order():
    labels = pd.Series([0, 1, 1], list("abc"))
    scores = pd.Series([0.1, 0.4, 0.3], list("abc"))
    assert metrics.auroc(labels, scores) == 1
    other = pd.Series(["p", "q", "r"], list("cab"))
    for refuse in (
        lambda: metrics.auroc(labels, scores[::-1]),
        lambda: metrics.auroc_difference(labels, scores, scores[::-1]),
        lambda: metrics.auroc_difference(labels, scores, scores, other),
    ):
        with pytest.raises(InputError):
            refuse()


@pytest.mark.parametrize("patients", [["a", None, "a"], ["a"], "abc", [["a"], ["b"], ["c"]]])
def test_a_difference_needs_one_patient_for_each_image(patients):
    with pytest.raises(InputError, match="patients: "):
        metrics.auroc_difference([0, 1, 1], [0.1, 0.4, 0.3], [0.3, 0.1, 0.2], patients)


@settings(max_examples=60, deadline=None)
@given(LABELS, TIED)
def test_curves_pass_through_the_points_of_scikit_learn(labels, scores):
    if not labels.any() or labels.all():
        return
    ours = product.roc_and_pr_curves(labels, scores)
    fpr, tpr, _ = oracle.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(ours["fpr"], fpr)
    np.testing.assert_allclose(ours["tpr"], tpr)
    precision, recall, _ = oracle.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(ours["precision"][1:], precision[-2::-1])
    np.testing.assert_allclose(ours["recall"], recall[::-1])


# A single figure


def drawn(n=200, seed=0, n_patients=80):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    return labels, scores, np.array([f"p{number}" for number in rng.integers(0, n_patients, n)])


@pytest.mark.parametrize("by_patient", [True, False])
def test_a_single_figure_is_the_row_of_a_comparison(by_patient):
    labels, scores, patients = drawn()
    given_patients = {"patients": patients} if by_patient else {}
    result = cxr_compare.compare(
        {"A": scores}, truth=labels, policy=["threshold=0.5"], replicates=100, **given_patients
    )
    rows = result.figures.set_index(["metric", "policy"])
    compared = 0
    for (metric, policy), row in rows.iterrows():
        record = product.METRICS[metric]
        if record.family in ("place", "calibration") or policy not in ("", "threshold=0.5"):
            continue
        at = {"threshold": 0.5} if policy else {}
        one = metrics.estimate(metric, labels, scores, replicates=100, **given_patients, **at)
        counts = ("n_images", "n_positive", *(("n_patients",) if by_patient else ()))
        for column in ("estimate", "ci_low", "ci_high", *counts):
            assert one[column] == pytest.approx(row[column], abs=0, nan_ok=True), (metric, column)
        compared += 1
    assert compared == 14  # two rankings, eight decisions, four counts


def test_values_of_single_figures_are_those_of_scikit_learn():
    labels, scores, patients = drawn(seed=7)
    for metric, theirs in (
        ("auroc", oracle.roc_auc_score(labels, scores)),
        ("average_precision", oracle.average_precision_score(labels, scores)),
    ):
        found = metrics.estimate(metric, labels, scores, patients=patients, replicates=100)
        assert found["estimate"] == pytest.approx(theirs)
    found = metrics.estimate("recall", labels, scores, threshold=0.5, replicates=100)
    assert found["estimate"] == pytest.approx(oracle.recall_score(labels, scores >= 0.5))


def test_the_interval_of_independent_images_is_that_of_scipys_bootstrap():
    labels, scores, _ = drawn(400, seed=11)
    right = (scores >= 0.5) == labels
    theirs = stats.bootstrap(
        (right,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(0)
    ).confidence_interval
    ours = metrics.estimate("accuracy", labels, scores, threshold=0.5, replicates=100)
    assert (ours["ci_low"], ours["ci_high"]) == pytest.approx((theirs.low, theirs.high), abs=0.008)


def test_the_interval_of_an_auroc_covers_its_true_value():
    """Binormal scores by patient: each patient has two images with a shared part."""
    rng = np.random.default_rng(5)
    true, covered, n = stats.norm.cdf(1 / np.sqrt(2)), 0, 150
    for _ in range(n):
        labels = np.repeat(rng.integers(0, 2, 60), 2)
        shared = np.repeat(rng.normal(0, np.sqrt(0.7), 60), 2)
        scores = labels + shared + rng.normal(0, np.sqrt(0.3), 120)
        parts = product.auroc_parts(labels, scores, np.repeat(np.arange(60), 2), 60)
        low, high = parts.estimate().interval_at(0.95)
        covered += low <= true <= high
    assert stats.binomtest(covered, n, 0.95).pvalue > 0.01


@pytest.mark.parametrize(
    ("metric", "options", "says"),
    [
        ("auroc_", {}, "auroc_"),
        ("sensitivity", {}, "recall"),
        ("ap50", {}, "ap50"),
        ("brier", {}, "brier"),
        ("recall", {}, "threshold"),
        ("auroc", {"threshold": 0.5}, "threshold"),
        ("recall", {"threshold": 7}, "7"),
        ("recall", {"threshold": "high"}, "high"),
        ("auroc", {"patients": ["a"]}, "patients: "),
        ("auroc", {"patients": ["a", None, "b"]}, "patients: "),
    ],
)
def test_what_cannot_be_computed_is_refused(metric, options, says):
    with pytest.raises(InputError) as refused:
        metrics.estimate(metric, [0, 1, 1], [0.1, 0.4, 0.3], **options)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_tensors_of_any_kind_give_the_figures_of_arrays():
    torch = pytest.importorskip("torch")
    labels, scores, patients = drawn()
    expected = metrics.estimate("auroc", labels, scores, patients=patients, replicates=100)
    tensor = torch.tensor(scores, requires_grad=True)
    found = metrics.estimate("auroc", torch.tensor(labels), tensor, patients=patients)
    pd.testing.assert_series_equal(found, expected)
    half = torch.tensor(scores).bfloat16()
    one, other = (metrics.estimate("auroc", labels, each) for each in (half, half.float()))
    pd.testing.assert_series_equal(one, other)
    assert metrics.auroc(labels, half) == metrics.auroc(labels, half.float())
    assert metrics.auroc(torch.tensor(labels), tensor) == expected["estimate"]


def test_an_auroc_of_too_few_patients_has_no_interval_and_says_why():
    found = metrics.estimate("auroc", [0, 1, 0, 1], [0.1, 0.4, 0.2, 0.3], patients=list("abac"))
    assert found["estimate"] == 1
    assert np.isnan(found["ci_low"])
    assert found["note"]


# The list of metrics


def test_every_metric_has_a_title_a_meaning_and_what_its_family_needs():
    for name, metric in product.METRICS.items():
        assert name == metric.name
        assert metric.title
        assert metric.meaning.endswith(".")
        assert (metric.formula is not None) == (metric.family == "decision"), name
    once = np.ones((1, 4), dtype=int)
    ranked = product.RankedScores([0, 1, 1, 0], [0.1, 0.4, 0.8, 0.6]).figures(once)
    families = {}
    for name, metric in product.METRICS.items():
        families.setdefault(metric.family, []).append(name)
    assert [*ranked] == families["ranking"]
    assert [*product.rates(1, 1, 1, 1)] == families["decision"]
    assert [*metrics.confusion_counts([0, 1], [0, 1], 0.5)] == families["count"]


def test_a_title_inside_a_sentence_keeps_the_capitals_of_names_alone():
    expected = {
        "auroc": "AUROC",
        "f1": "F1",
        "mcc": "MCC",
        "froc_mean": "FROC, mean",
        "ap": "AP[.5:.95]",
        "average_precision": "average precision",
        "recall": "sensitivity (recall)",
    }
    assert {metric: product.METRICS[metric].inside for metric in expected} == expected


FIGURES = {"max_f1": "f1", "sensitivity": "recall", "specificity": "specificity"}


CHOSEN = ("max_f1", "youden", "sensitivity>=0.80", "sensitivity>=1", "specificity>=0.75")


CHOSEN += ("sensitivity>=0.0", "specificity>=0.0", "specificity>=1")


VALUES = [0.0, 0.1, 0.2, 0.4, 0.7, 1.0]


TEN_LABELS = arrays(np.int8, 10, elements=st.integers(0, 1))


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


@settings(max_examples=150, deadline=None)
@given(TEN_LABELS, SCORES, st.sampled_from(CHOSEN))
def test_the_choice_is_that_of_an_exhaustive_search(labels, scores, policy):
    assert product.threshold(policy, labels, scores) == by_search(policy, labels, scores)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, 6, elements=st.floats(0, 1, allow_subnormal=True)), st.data())
def test_every_threshold_separates_its_two_neighbours(scores, data):
    labels = data.draw(arrays(np.int8, 6, elements=st.integers(0, 1)))
    found = product.threshold("max_f1", labels, scores)
    if found is not None:
        assert scores[scores < found].max() < found <= scores[scores >= found].min()


@pytest.mark.parametrize(
    ("labels", "scores", "policy", "threshold"),
    [
        # Both 0.8 (1 of 1, 1 missed) and 0.2 (2 of 2 with 2 false) reach F1 = 2/3.
        ([1, 0, 0, 1, 0], [0.875, 0.625, 0.5, 0.375, 0.125], "max_f1", 0.75),
        # 0.35 (1 of 2 found, no false alarm) and 0.15 (both found, 1 of 2 false) reach J = 0.5.
        ([1, 0, 1, 0], [0.4, 0.3, 0.2, 0.1], "youden", 0.35),
        ([0] * 10 + [1], [*np.arange(10) / 10, 0.95], "specificity>=0.90", 0.85),
    ],
    ids=["highest of equal F1", "highest of equal J", "lowest that meets it"],
)
def test_a_threshold_by_hand(labels, scores, policy, threshold):
    found = product.threshold(policy, labels, scores)
    assert found == pytest.approx(threshold, rel=1e-15, abs=0)


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
        *("max_f2", "sensitivity>0.9", "sensitivity>=1.2", "", "cost:1/1", "threshold=1.5"),
        *("threshold>=0.3", "threshold=", "sensitivity>=0.9@", "sensitivity>=0.9@1.5"),
        *("sensitivity>=1@0.9", "sensitivity>=0.90@0", "youden@0.9", "sensitivity>=nan"),
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
    """The threshold of images that are listed as often as they were drawn_of_sets.

    Where no cut reaches a floor, it is the one closest to it.
    """
    labels, scores = np.repeat(labels, times), np.repeat(scores, times)
    found = by_search(policy, labels, scores)
    if found is None and ">=" in policy and 0 < labels.sum() < len(labels):
        extreme = min if policy.startswith("sensitivity") else max
        found = extreme(cuts(scores), default=None)
    return np.nan if found is None else found


@settings(max_examples=120, deadline=None)
@given(ALL_LABELS, SIGNED, PATIENTS, WEIGHTS, st.sampled_from(CHOSEN))
def test_a_resample_chooses_what_its_images_written_out_choose(
    labels, scores, patients, weights, policy
):
    found = product.thresholds_again(policy, labels, scores, patients, weights)
    expected = [written_out(policy, labels, scores, row[patients]) for row in weights]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("policy", ["max_f1", "sensitivity>=0.95", "specificity>=0.90"])
def test_scores_without_ties_are_chosen_among_likewise_whatever_the_chunks(policy, monkeypatch):
    rng = np.random.default_rng(2)
    labels, patients = rng.random(200) < 0.3, rng.integers(0, 80, 200)
    scores = rng.normal(labels * 1.3, 1)
    weights = rng.multinomial(80, np.full(80, 1 / 80), size=8)
    expected = [written_out(policy, labels, scores, row[patients]) for row in weights]
    for cells in (2_000_000, 300):
        product.few_cells(monkeypatch, cells)
        found = product.thresholds_again(policy, labels, scores, patients, weights)
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


def test_validation_patients_are_not_drawn_as_the_test_patients_are():
    test, validation = (
        np.concatenate([*product.Resamples(50, 40, seed=1, stream=stream).chunks()])
        for stream in (0, 1)
    )
    assert abs(np.corrcoef(test.ravel(), validation.ravel())[0, 1]) < 0.05


# Guarantees

CASES = json.loads((Path(__file__).parent / "cases" / "guarantees.json").read_text("utf-8"))


CASES = {case["set"]: case["thresholds"] for case in CASES["cases"]}


def drawn_sets():
    """Labels, scores and patients of the twelve drawn_of_sets sets, by name."""
    rng = np.random.default_rng(0)
    for number in range(12):
        n = int(rng.integers(300, 1500))
        images = rng.integers(1, 4, n) if number % 2 else np.ones(n, int)
        patients = np.repeat(np.arange(n), images).astype(str)
        labels = np.repeat(rng.random(n) < 0.4, images)
        scores = labels * 1.5 + np.repeat(rng.normal(size=n), images) * 0.7
        scores = 1 / (1 + np.exp(-(scores + rng.normal(size=len(labels)))))
        yield (
            f"drawn-{number}",
            (labels, np.round(scores, 2) if number % 3 == 0 else scores, patients),
        )


@pytest.fixture(scope="module")
def drawn_of_sets():
    return dict(drawn_sets())


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("drawn")])
def test_a_guarantee_chooses_the_kept_threshold(name, drawn_of_sets):
    for policy, expected in CASES[name].items():
        assert product.threshold(policy, *drawn_of_sets[name]) == expected, policy


def test_a_guarantee_chooses_the_kept_threshold_on_real_scores(shared_data):
    folder = shared_data / "chexnet_scores"
    truth, scores = (pd.read_csv(folder / f"{name}.csv") for name in ("truth_rsna", "preds"))
    table = truth.merge(scores, on="Image Index")
    labels = (table["Target"] == 1).to_numpy()
    patients = table["Image Index"].str.split("_").str[0].to_numpy(str)
    for finding in ("Pneumonia", "Consolidation", "Infiltration"):
        for policy, expected in CASES[f"chexnet-{finding}"].items():
            values = table[f"prob_{finding}"].to_numpy()
            try:
                found = product.threshold(policy, labels, values, patients)
            except InputError:
                found = None
            assert found == expected, (finding, policy)


@pytest.mark.parametrize("name", ["drawn-0", "drawn-3", "drawn-6", "drawn-9"])
def test_the_kept_thresholds_are_those_of_plain_loops(name, drawn_of_sets):
    for policy, expected in CASES[name].items():
        floor, confidence = (float(text) for text in policy.partition(">=")[2].split("@"))
        found = guarantee.threshold(
            *drawn_of_sets[name], policy.partition(">=")[0], floor, confidence
        )
        assert found == (None if expected is None else pytest.approx(expected, abs=1e-12)), policy


@pytest.mark.parametrize("figure", ["sensitivity", "specificity"])
def test_a_guarantee_is_violated_no_more_often_than_it_says(figure):
    """The true share at the chosen threshold is below the floor in at most one set of ten."""
    rng = np.random.default_rng(8)
    low, floor = 0, 0.8
    for _ in range(150):
        labels = np.repeat([True, False], 120)
        scores = rng.normal(labels * 1.5, 1)
        found = product.threshold(f"{figure}>={floor}@0.90", labels, scores)
        new = rng.normal(1.5 if figure == "sensitivity" else 0.0, 1, 4000)
        low += np.mean((new >= found) == (figure == "sensitivity")) < floor
    assert low <= 25  # 15 expected at most, and 3 standard errors
    assert low > 2  # and it is not far too careful


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


def test_the_policy_of_a_protocol_is_evaluated_beside_the_named_ones_and_shown(tmp_path):
    table, scores = with_validation()
    file = tmp_path / "protocol.toml"
    file.write_text('metric = "f1"\npolicy = "youden"\n', encoding="utf-8")
    call = {"truth": table, "protocol": file, "replicates": 100}
    assert cxr_compare.compare(scores, **call).policies == ["youden"]
    result = cxr_compare.compare(scores, **call, policy="threshold=0.5")
    assert set(result.policies) == {"youden", "threshold=0.5"}
    assert result.answer.policy == "youden"


def test_a_difference_at_a_guarantee_has_an_interval_and_no_claim():
    table, scores = with_validation()
    policy = "sensitivity>=0.80@0.90"
    result = cxr_compare.compare(scores, truth=table, policy=[policy], replicates=100)
    rows = result.figures[result.figures["policy"] == policy].set_index(
        ["first", "second", "metric"]
    )
    val = table[table["role"] == "val"]
    for name in "AB":
        threshold = result.answer.thresholds[name][policy]
        of_val = scores[name].loc[val["image_id"]]
        own = product.threshold(policy, val["label"], of_val, val["patient_id"].to_numpy())
        assert threshold == own
        assert (of_val[val["label"].to_numpy() == 1] >= threshold).mean() > 0.80
        assert rows.loc[(name, "", "recall"), "ci_low"] > 0
    gap = rows.loc[("A", "B", "specificity")]
    assert gap["ci_low"] < gap["estimate"] < gap["ci_high"]
    assert np.isnan(gap["p_value"])
    assert np.isnan(gap["p_holm"])
    assert gap["note"]
    assert all(claim["policy"] != policy for claim in result.answer.claims)
    # The threshold is fixed: replicates are those of the same stated threshold, the interval, too.
    at = {name: result.answer.thresholds[name][policy] for name in "AB"}
    called = {name: (scores[name] >= at[name]).astype(float) for name in "AB"}
    stated = cxr_compare.compare(called, truth=table, policy=["threshold=0.5"], replicates=100)
    other = stated.figures.query("second == 'B' and metric == 'specificity'")
    other = other[other["policy"] == "threshold=0.5"].iloc[0]
    assert (gap["ci_low"], gap["ci_high"]) == pytest.approx((other["ci_low"], other["ci_high"]))
    assert other["p_value"] > 0


def test_a_guarantee_needs_a_hundred_validation_patients_of_its_class():
    for figure, val in (("sensitivity", 0.4), ("specificity", 0.6), ("sensitivity", 0.0)):
        table, scores = with_validation(val=val)
        with pytest.raises(InputError) as refused:
            cxr_compare.compare(scores, truth=table, policy=[f"{figure}>=0.80@0.90"])
        kind = table[(table["role"] == "val") & (table["label"] == (figure == "sensitivity"))]
        assert f"{figure}>=0.80@0.90" in str(refused.value)
        assert str(len(kind)) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_guarantee_that_no_threshold_fulfils_has_no_figure_and_a_reason():
    table, scores = with_validation()
    scores["B"] = scores["B"].round(0)
    policy = "sensitivity>=0.99@0.99"
    result = cxr_compare.compare(scores, truth=table, policy=[policy], replicates=100)
    rows = result.figures.query("second == '' and metric == 'recall'")
    rows = rows[rows["policy"] == policy]
    assert rows["estimate"].isna().all()
    assert (rows["note"] != "").all()


def test_a_protocol_cannot_rest_on_a_guarantee(tmp_path):
    table, scores = with_validation()
    file = tmp_path / "protocol.toml"
    file.write_text('metric = "f1"\npolicy = "sensitivity>=0.80@0.90"\n', encoding="utf-8")
    with pytest.raises(InputError) as refused:
        cxr_compare.compare(scores, truth=table, protocol=file)
    assert "sensitivity>=0.80@0.90" in str(refused.value)
