"""Shares of images that come in patients."""

import numpy as np
import pytest
from scipy import stats

from cxr_compare.hospital.guarantee.clustered_share import (
    design_effects,
    share_below_p_values,
)


def test_one_image_a_patient_is_the_binomial_test():
    hits = (np.arange(30) < 27).astype(float)[None]
    expected = stats.binomtest(27, 30, 0.8, "greater").pvalue
    assert share_below_p_values(hits, np.ones(30), 0.8, 0.1) == pytest.approx([expected])


def test_nothing_that_counts_is_no_evidence():
    assert share_below_p_values(np.zeros((2, 5)), np.full(5, 2), [0.1, 0.9], 0.1).tolist() == [1, 1]


def test_copies_of_images_are_no_more_evidence_than_one_image_a_patient():
    rng = np.random.default_rng(0)
    hits = (rng.random((20, 60)) < 0.9).astype(float)
    single = share_below_p_values(hits, np.ones(60), 0.8, 0.1)
    copied = share_below_p_values(4 * hits, np.full(60, 4), 0.8, 0.1)
    assert (copied >= 0.95 * single).all()


def test_rows_do_not_depend_on_each_other():
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 6, 40)
    hits = rng.binomial(sizes, 0.85, (5, 40)).astype(float)
    floors = np.linspace(0.6, 0.9, 5)
    together = share_below_p_values(hits, sizes, floors, 0.1)
    alone = [share_below_p_values(hits[[row]], sizes, floors[row], 0.1)[0] for row in range(5)]
    assert together == pytest.approx(alone)


def draw_unequal_patients(rng, n_sets, n_patients, share):
    """Patients of 1 to 15 images; patients with many images have fewer that count."""
    sizes = np.minimum(rng.geometric(0.45, (n_sets, n_patients)), 15)
    log_odds = rng.normal(size=sizes.shape) - 0.5 * np.log(sizes)
    shift = log_odds_shift(share)
    return sizes, rng.binomial(sizes, 1 / (1 + np.exp(-(log_odds + shift))))


def log_odds_shift(share):
    """Shift for which the share over the images of many patients is the one asked for."""
    rng = np.random.default_rng(9)
    sizes = np.minimum(rng.geometric(0.45, 200_000), 15)
    log_odds = rng.normal(size=sizes.shape) - 0.5 * np.log(sizes)
    low, high = -5.0, 8.0
    for _ in range(50):
        middle = (low + high) / 2
        mean = (sizes / (1 + np.exp(-(log_odds + middle)))).sum() / sizes.sum()
        low, high = (middle, high) if mean < share else (low, middle)
    return low


def test_share_at_the_floor_is_seldom_taken_for_more():
    """The weight of frequent patients, who have a lower share, is that of their images."""
    rng = np.random.default_rng(54)
    sizes, hits = draw_unequal_patients(rng, 2000, 80, 0.8)
    p_values = [
        share_below_p_values(hit[None].astype(float), size, 0.8, 0.1)[0]
        for size, hit in zip(sizes, hits, strict=True)
    ]
    refuted = (np.array(p_values) <= 0.1).sum()
    assert stats.binomtest(int(refuted), 2000, 0.12, "greater").pvalue > 0.01
    sizes, hits = draw_unequal_patients(rng, 400, 80, 0.9)
    found = [
        share_below_p_values(hit[None].astype(float), size, 0.8, 0.1)[0] <= 0.1
        for size, hit in zip(sizes, hits, strict=True)
    ]
    assert np.mean(found) > 0.8


def test_the_design_effect_is_that_of_images_that_agree_or_not():
    images = np.full(40, 3.0)
    agreeing = np.array([3.0] * 32 + [0.0] * 8)
    assert design_effects(agreeing[None], images) == pytest.approx(3)
    assert design_effects(np.full((1, 40), 2.0), images) == 1
    assert design_effects(np.array([[5.0]]), np.array([9.0])) >= 1  # a single patient
