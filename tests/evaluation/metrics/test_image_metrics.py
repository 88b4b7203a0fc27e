"""Image-level figures against scikit-learn, hand counts, and the rule for ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as oracle

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.metrics.image_metrics import (
    auroc,
    classification_metrics,
    confusion_counts,
    image_average_precision,
    rates,
)
from cxr_compare.evaluation.metrics.registry import why_undefined
from cxr_compare.evaluation.statistics.ranking import RankedScores, roc_and_pr_curves

# Few distinct values, so that most cases hold ties within and across the classes.
TIED_SCORES = arrays.arrays(np.float64, 12, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
LABELS = arrays.arrays(np.int8, 12, elements=st.integers(0, 1))


@settings(max_examples=150, deadline=None)
@given(LABELS, TIED_SCORES)
def test_tied_scores_give_the_figures_of_scikit_learn(y_true, y_score):
    if y_true.any():
        expected = oracle.average_precision_score(y_true, y_score)
        assert image_average_precision(y_true, y_score) == pytest.approx(expected, abs=1e-12)
    if y_true.any() and not y_true.all():
        assert auroc(y_true, y_score) == pytest.approx(
            oracle.roc_auc_score(y_true, y_score), abs=1e-12
        )


@settings(max_examples=80, deadline=None)
@given(LABELS, TIED_SCORES, arrays.arrays(np.int16, 12, elements=st.integers(0, 3)))
def test_weights_mean_the_same_as_repeated_images(y_true, y_score, weights):
    repeated_true, repeated_score = np.repeat(y_true, weights), np.repeat(y_score, weights)
    ranked = RankedScores(y_true, y_score).figures(weights[None, :])
    for name, plain in (("auroc", auroc), ("average_precision", image_average_precision)):
        expected = plain(repeated_true, repeated_score)
        assert ranked[name][0] == pytest.approx(
            np.nan if expected is None else expected, nan_ok=True
        )


@settings(max_examples=60, deadline=None)
@given(LABELS, TIED_SCORES)
def test_a_monotone_transform_changes_no_threshold_free_figure(y_true, y_score):
    stretched = np.exp(3 * y_score) - 7
    assert auroc(y_true, y_score) == auroc(y_true, stretched)
    assert image_average_precision(y_true, y_score) == image_average_precision(y_true, stretched)


@settings(max_examples=60, deadline=None)
@given(LABELS, TIED_SCORES, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_counts_and_rates_are_those_of_scikit_learn(y_true, y_score, threshold):
    called = (y_score >= threshold).astype(int)
    counts = confusion_counts(y_true, y_score, threshold)
    expected = oracle.confusion_matrix(y_true, called, labels=[0, 1]).ravel().tolist()
    assert [counts[name] for name in ("tn", "fp", "fn", "tp")] == expected
    figures = rates(**counts)
    assert figures["accuracy"] == pytest.approx(oracle.accuracy_score(y_true, called))
    if called.any():
        assert figures["precision"] == pytest.approx(oracle.precision_score(y_true, called))
    if y_true.any():
        assert figures["recall"] == pytest.approx(oracle.recall_score(y_true, called))
    if called.any() or y_true.any():
        assert figures["f1"] == pytest.approx(oracle.f1_score(y_true, called))
    if not called.all():
        left = (~called.astype(bool), y_true == 0)
        assert figures["npv"] == pytest.approx(oracle.precision_score(left[1], left[0]))
    if y_true.any() and not y_true.all():
        balanced = oracle.balanced_accuracy_score(y_true, called)
        assert figures["balanced_accuracy"] == pytest.approx(balanced)
        if called.any() and not called.all():
            mcc = oracle.matthews_corrcoef(y_true, called)
            assert figures["mcc"] == pytest.approx(mcc, abs=1e-12)
        if counts["fp"] and counts["tn"]:
            ratios = oracle.class_likelihood_ratios(y_true, called, labels=[0, 1])
            ours = (figures["lr_positive"], figures["lr_negative"])
            assert ours == pytest.approx(ratios)


def test_three_images_counted_by_hand():
    # One positive found, one positive missed, one negative left alone.
    figures = classification_metrics([1, 1, 0], [0.9, 0.2, 0.3], threshold=0.5)
    assert figures == pytest.approx(
        {
            "auroc": 0.5,
            "average_precision": (1 + 2 / 3) / 2,
            "accuracy": 2 / 3,
            "precision": 1.0,
            "recall": 0.5,
            "specificity": 1.0,
            "f1": 2 / 3,
            "balanced_accuracy": 0.75,
            "mcc": 0.5,  # (1 x 1 - 0 x 1) / sqrt(1 x 2 x 1 x 2)
            "npv": 0.5,
            "lr_positive": None,  # nobody without the finding is called: infinite, so undefined
            "lr_negative": 0.5,
        }
    )


def test_every_figure_that_can_be_undefined_has_a_reason():
    reasons = {name: why_undefined(name) for name in classification_metrics([0, 1], [0, 1], 0.5)}
    assert set(rates(1, 1, 1, 1)) <= set(reasons)
    assert why_undefined("unheard of") not in reasons.values()


CLASS_ABSENT = {"auroc", "balanced_accuracy", "mcc", "lr_positive", "lr_negative"}


@pytest.mark.parametrize(
    ("y_true", "y_score", "undefined"),
    [
        # No negative image, and none is called negative.
        ([1, 1], [0.9, 0.8], {*CLASS_ABSENT, "specificity", "npv"}),
        ([0, 0], [0.1, 0.9], {*CLASS_ABSENT, "average_precision", "recall"}),  # no positive image
        ([0, 1], [0.1, 0.2], {"precision", "mcc", "lr_positive"}),  # nobody called positive
        ([0, 1], [0.6, 0.9], {"npv", "mcc", "lr_negative"}),  # everybody called positive
        ([0], [0.1], {*CLASS_ABSENT, "average_precision", "recall", "precision", "f1"}),
    ],
)
def test_an_undefined_figure_is_none_and_never_zero(y_true, y_score, undefined):
    figures = classification_metrics(y_true, y_score, threshold=0.5)
    assert {name for name, figure in figures.items() if figure is None} == undefined


@pytest.mark.parametrize(
    ("y_true", "y_score", "message"),
    [
        ([0, 1], [0.1], "shapes"),
        ([0, 2], [0.1, 0.2], "row 1"),
        ([0, np.nan], [0.1, 0.2], "unknown label"),
        ([0, 1], [0.1, np.nan], "finite; row 1"),
    ],
)
def test_invalid_labels_and_scores_are_refused_by_position(y_true, y_score, message):
    with pytest.raises(InputError, match=message):
        auroc(y_true, y_score)


@settings(max_examples=60, deadline=None)
@given(LABELS, TIED_SCORES)
def test_curves_pass_through_the_points_of_scikit_learn(y_true, y_score):
    if not y_true.any() or y_true.all():
        return
    ours = roc_and_pr_curves(y_true, y_score)
    fpr, tpr, _ = oracle.roc_curve(y_true, y_score, drop_intermediate=False)
    np.testing.assert_allclose(ours["fpr"], fpr)
    np.testing.assert_allclose(ours["tpr"], tpr)
    precision, recall, _ = oracle.precision_recall_curve(y_true, y_score)
    np.testing.assert_allclose(ours["precision"][1:], precision[-2::-1])
    np.testing.assert_allclose(ours["recall"], recall[::-1])
