"""Shares of images that come in patients."""

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binomtest

from cxr_compare.evaluation.statistics.clustered_share import (
    design_effects,
    exact_share,
    share_below_p_values,
)
from cxr_compare.evaluation.statistics.intervals import Interval


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


def test_a_share_of_single_images_has_clopper_and_pearsons_interval():
    hits = np.array([1.0] * 17 + [0.0] * 3)
    exact = binomtest(17, 20).proportion_ci(0.95, "exact")
    assert exact_share(hits, np.ones(20)) == pytest.approx((exact.low, exact.high))
    # Patients without an image of the class do not count.
    with_others = exact_share(np.append(hits, [0, 0]), np.append(np.ones(20), [0, 0]))
    assert with_others == exact_share(hits, np.ones(20))


def test_images_of_a_patient_that_agree_say_as_much_as_one_and_others_as_themselves():
    rng = np.random.default_rng(3)
    right = (rng.random(100) < 0.8).astype(float)
    alone = exact_share(right, np.ones(100))
    agreeing = exact_share(3 * right, np.full(100, 3.0))
    assert agreeing[0] == pytest.approx(alone[0], abs=0.03)
    assert agreeing[0] <= alone[0]
    assert agreeing[1] >= alone[1] - 0.005
    mixed = exact_share(np.full(100, 2.4), np.full(100, 3.0))
    independent = binomtest(240, 300).proportion_ci(0.95, "exact")
    assert mixed == pytest.approx((independent.low, independent.high))  # never narrower than that
    assert mixed[1] - mixed[0] < agreeing[1] - agreeing[0]


def test_a_patient_with_many_images_who_is_right_does_not_hide_how_alike_others_are():
    hits, images = np.array([3.0] * 32 + [0.0] * 8 + [30.0]), np.array([3.0] * 40 + [30.0])
    effective = images.sum() ** 2 / (images**2).sum()
    alike = Interval.from_share(hits.sum() / images.sum(), effective)
    assert exact_share(hits, images)[0] <= alike.low
    assert design_effects(hits[None, :40], images[:40]) == pytest.approx(3)  # alike throughout
    assert design_effects(np.full((1, 40), 2.0), images[:40]) == 1
    assert design_effects(np.array([[5.0]]), np.array([9.0])) >= 1  # a single patient


def test_the_interval_of_a_share_of_one_reaches_below_one():
    low, high = exact_share(np.array([2.0, 3.0, 1.0, 4.0]), np.array([2.0, 3.0, 1.0, 4.0]))
    assert high == 1.0
    assert low < binomtest(4, 4).proportion_ci(0.95, "exact").low + 0.05
