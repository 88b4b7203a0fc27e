"""`cxr_compare.metrics` of images: scikit-learn with ties, hand counts, and single figures."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as oracle

import cxr_compare
from cxr_compare import InputError, metrics
from tests.adapters import figures as product

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the reason of an undefined figure
# Few distinct values, so that most cases hold ties within and across the classes.
TIED = arrays(np.float64, 12, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
LABELS = arrays(np.int8, 12, elements=st.integers(0, 1))


@settings(max_examples=60, deadline=None)
@given(LABELS, TIED)
def test_tied_scores_give_the_figures_of_scikit_learn(labels, scores):
    if labels.any():
        expected = oracle.average_precision_score(labels, scores)
        assert metrics.average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)
    if labels.any() and not labels.all():
        expected = oracle.roc_auc_score(labels, scores)
        assert metrics.auroc(labels, scores) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(LABELS, TIED, arrays(np.int16, 12, elements=st.integers(0, 3)))
def test_weights_mean_the_same_as_repeated_images(labels, scores, weights):
    repeated = np.repeat(labels, weights), np.repeat(scores, weights)
    ranked = product.RankedScores(labels == 1, scores).figures(weights[None, :])
    for name in ("auroc", "average_precision"):
        expected = getattr(metrics, name)(*repeated)
        expected = np.nan if expected is None else expected
        assert ranked[name][0] == pytest.approx(expected, nan_ok=True)


@settings(max_examples=40, deadline=None)
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
    families = [record.family for record in product.METRICS.values()]
    assert compared == sum(of in ("ranking", "decision", "count") for of in families)


@pytest.mark.parametrize(
    ("metric", "options", "says"),
    [
        ("auroc_", {}, "auroc_"),
        ("sensitivity", {}, "recall"),
        ("ap50", {}, "ap50"),
        ("brier", {}, "brier"),
        ("recall", {}, "threshold"),
        ("auroc", {"threshold": 0.5}, "threshold"),
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


# The list of metrics
