"""Bands of ROC and reliability curves."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest
from sklearn.metrics import roc_curve

from cxr_compare.evaluation.statistics.bands import roc_band, share_band
from cxr_compare.evaluation.statistics.bootstrap import (
    Resamples,
    cluster_index,
)


def test_roc_band_is_the_middle_of_scikit_learns_curves_of_the_same_resamples():
    rng = np.random.default_rng(3)
    patients = rng.integers(0, 25, 60)
    labels = rng.random(60) < 0.4
    scores = np.round(labels + rng.normal(0, 1, 60), 1)  # with ties
    at = np.linspace(0, 1, 11)
    index, count = cluster_index(patients)
    curves = []
    for weights in np.concatenate(list(Resamples(count, 40, 7).chunks())):
        drawn = weights[index] > 0
        false, true, _ = roc_curve(
            labels[drawn],
            scores[drawn],
            sample_weight=weights[index][drawn],
            drop_intermediate=False,
        )
        curves.append(np.interp(at, false, true))
    low, high = roc_band(labels, scores, patients, at, resamples=40, seed=7)
    assert low == pytest.approx(np.quantile(curves, 0.025, axis=0))
    assert high == pytest.approx(np.quantile(curves, 0.975, axis=0))


def test_scores_that_are_all_equal_have_the_diagonal_as_band():
    at = np.linspace(0, 1, 5)
    low, high = roc_band([1, 0, 1, 0], [0.5] * 4, list("abcd"), at)
    assert low == pytest.approx(at)
    assert high == pytest.approx(at)


def test_share_of_independent_images_has_the_band_of_a_binomial():
    labels = np.arange(100) < 30
    groups = np.zeros(100, dtype=int)
    low, high = share_band(labels, groups, np.arange(100), resamples=4000)
    assert low[0] == pytest.approx(binom.ppf(0.025, 100, 0.3) / 100, abs=0.015)
    assert high[0] == pytest.approx(binom.ppf(0.975, 100, 0.3) / 100, abs=0.015)
    # Ten images of each patient with one label: as few draws as patients.
    wide_low, wide_high = share_band(labels, groups, np.arange(100) // 10, resamples=4000)
    assert wide_high[0] - wide_low[0] > 2.5 * (high[0] - low[0])


@pytest.mark.parametrize(("label", "copies"), [(0, 1), (1, 1), (0, 3)])
def test_a_share_of_0_or_1_has_the_exact_band_of_its_patients(label, copies):
    patients = np.repeat(np.arange(56), copies)
    groups = np.zeros(len(patients), dtype=int)
    low, high = share_band(np.full(len(patients), label), groups, patients)
    exact = binomtest(56 * label, 56).proportion_ci(method="exact")
    assert (low[0], high[0]) == pytest.approx(tuple(exact))
