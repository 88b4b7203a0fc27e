"""Figures of counts of images, with closed intervals by patient."""

import numpy as np
import pytest
from scipy.stats import binomtest

from cxr_compare import metrics
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_bootstrap
from cxr_compare.evaluation.statistics.clustered_counts import (
    ShareParts,
    function_over_seeds,
    jackknife,
)
from cxr_compare.evaluation.statistics.clustered_variance import (
    class_inflation,
    effective_patients,
    without_leverage,
)

RATES = ("accuracy", "precision", "recall", "specificity", "npv", "f1", "balanced_accuracy", "mcc")


def drawn(seed, n_patients=60, most=5):
    """Hits of images that resemble those of the same patient: hits and images by patient."""
    rng = np.random.default_rng(seed)
    images = rng.integers(1, most + 1, n_patients).astype(float)
    share = rng.beta(3, 1.5, n_patients)
    return rng.binomial(images.astype(int), share).astype(float), images


def test_with_one_image_each_the_variance_is_that_of_a_share():
    hits = np.r_[np.ones(30), np.zeros(10)]
    estimate = ShareParts.from_sums(hits, np.ones(40)).estimate()
    assert estimate.estimate == 0.75
    assert estimate.error**2 == pytest.approx(0.75 * 0.25 / 39)
    exact = binomtest(30, 40).proportion_ci(method="exact")
    assert exact.low <= estimate.ci_low < 0.75 < estimate.ci_high <= exact.high


def test_contributions_are_deviations_corrected_for_leverage():
    hits, images = drawn(1)
    parts = ShareParts.from_sums(hits, images)
    expected = without_leverage((hits - parts.value * images) / images.sum(), images)
    np.testing.assert_allclose(parts.contributions, expected, atol=1e-12)


def test_copies_of_images_and_patients_without_images_change_nothing():
    hits, images = drawn(2)
    once = ShareParts.from_sums(hits, images).estimate()
    several = ShareParts.from_sums(7 * hits, 7 * images).estimate()
    absent = ShareParts.from_sums(np.r_[hits, 0, 0], np.r_[images, 0, 0]).estimate()
    for other in (several, absent):
        assert (other.ci_low, other.ci_high) == pytest.approx((once.ci_low, once.ci_high))


def test_the_error_is_that_of_a_bootstrap_of_patients():
    hits, images = drawn(3, n_patients=200)
    replicates = cluster_bootstrap(lambda w: {"x": (w @ hits) / (w @ images)}, Resamples(200, 2000))
    found = ShareParts.from_sums(hits, images).estimate()
    assert found.error == pytest.approx(np.std(replicates["x"]), rel=0.06)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_0_or_1_is_exact_with_the_effective_patients(share):
    images = np.array([1.0, 1.0, 1.0, 3.0])
    estimate = ShareParts.from_sums(share * images, images).estimate()
    trials = 36 / 12
    ends = (0.0, 1 - 0.025 ** (1 / trials)) if share == 0 else (0.025 ** (1 / trials), 1.0)
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx(ends)


def test_a_class_without_an_error_still_adds_to_the_interval():
    def balanced_accuracy(counts):
        tp, fp, tn, fn = np.moveaxis(counts, -1, 0)
        return (tp / (tp + fn) + tn / (tn + fp)) / 2

    kinds = np.eye(4)  # patients of one image: tp, fp, tn, fn
    few = np.repeat(kinds[[0, 2, 1]], [3, 80, 20], axis=0)  # three positives, all found
    many = np.repeat(kinds[[0, 2, 1]], [100, 80, 20], axis=0)
    wide, narrow = (function_over_seeds(balanced_accuracy, [counts]) for counts in (few, many))
    assert jackknife(balanced_accuracy, few)[:3] == pytest.approx(0)
    assert wide.ci_high - wide.ci_low > 2 * (narrow.ci_high - narrow.ci_low)
    assert wide.ci_low < 0.8


def test_one_patient_of_a_class_gives_no_interval():
    counts = np.repeat(np.eye(4)[[0, 2, 1]], [1, 8, 2], axis=0)
    estimate = function_over_seeds(lambda sums: sums[..., 0] / sums.sum(axis=-1), [counts])
    assert not estimate.has_interval
    assert estimate.note


@pytest.mark.parametrize("metric", [*RATES, "lr_positive", "lr_negative"])
def test_an_interval_at_a_threshold_contains_the_figure_and_needs_no_resamples(metric):
    rng = np.random.default_rng(5)
    owners = np.repeat(np.arange(50), 3)
    y_true = (rng.random(50) < 0.4)[owners]
    scores = 1 / (1 + np.exp(-(1.5 * y_true - 0.7 + rng.normal(size=150))))
    found, other_seed = (
        metrics.estimate(metric, y_true, scores, patients=owners, threshold=0.5, seed=seed)
        for seed in (0, 1)
    )
    assert found == other_seed
    assert found.ci_low < found.estimate < found.ci_high
    lowest, highest = (-1 if metric == "mcc" else 0, 1 if metric in RATES else np.inf)
    assert lowest <= found.ci_low
    assert found.ci_high <= highest


def test_f1_has_the_interval_of_the_share_that_it_follows_from():
    y_true = np.r_[np.ones(20), np.zeros(30)].astype(int)
    scores = np.r_[np.full(15, 0.9), np.full(5, 0.1), np.full(6, 0.9), np.full(24, 0.1)]
    found = metrics.estimate("f1", y_true, scores, threshold=0.5)
    jaccard = ShareParts.from_sums(np.r_[np.ones(15), np.zeros(11)], np.ones(26)).estimate()
    ends = [2 * end / (1 + end) for end in (jaccard.ci_low, jaccard.ci_high)]
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(ends))


def test_one_image_each_inflates_no_variance():
    assert class_inflation(np.array([1.0, 0, 0, 1]), np.ones(4)) == 1


def test_few_patients_of_a_class_are_expected_to_be_as_unequal_as_all_patients():
    rng = np.random.default_rng(8)
    images = np.ceil(rng.pareto(1.2, 100_000)).clip(1, 60)
    positive = np.where(rng.random(len(images)) < 0.05, images, 0.0)
    expected = effective_patients(positive) / len(images)
    ratios = []
    for _ in range(200):
        drawn_patients = rng.integers(len(images), size=300)
        of_class, of_all = positive[drawn_patients], images[drawn_patients]
        ratio = effective_patients(of_class) / (300 * expected)
        ratios.append((ratio, ratio / class_inflation(of_class, of_all)))
    found, corrected = np.array(ratios).T
    assert np.mean(found) > 2  # samples look more even than the population
    assert np.mean(corrected) < 1.2


def test_an_inflated_variance_widens_the_interval_of_a_share():
    hits, images = drawn(3)
    plain = ShareParts.from_sums(hits, images).estimate()
    wide = ShareParts.from_sums(hits, images, 2.0).estimate()
    assert wide.estimate == plain.estimate
    assert wide.error == pytest.approx(np.sqrt(2) * plain.error)
    assert wide.ci_low < plain.ci_low
    assert plain.ci_high < wide.ci_high


def test_an_inflated_variance_widens_the_interval_of_a_function_of_counts():
    counts = np.repeat(np.eye(4), [9, 4, 20, 3], axis=0)
    plain, wide = (
        function_over_seeds(lambda sums: (sums[..., 0] + sums[..., 2]) / sums.sum(-1), [counts], w)
        for w in (1.0, 2.0)
    )
    assert wide.estimate == plain.estimate
    assert wide.error == pytest.approx(np.sqrt(2) * plain.error)
