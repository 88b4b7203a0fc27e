"""McNemar tests against SciPy, statsmodels and hand counts, with images in patients."""

import numpy as np
import pytest
from scipy.stats import binomtest, chi2

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.mcnemar import (
    clustered_mcnemar,
    exact_mcnemar,
    mcnemar_test,
)


@pytest.mark.parametrize(("first_only", "second_only"), [(6, 0), (9, 4), (5, 5), (121, 59)])
def test_exact_mcnemar_equals_scipy_and_statsmodels(first_only, second_only):
    p_value = exact_mcnemar(first_only, second_only)
    n = first_only + second_only
    assert p_value == pytest.approx(binomtest(first_only, n, 0.5).pvalue)
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    table = [[10, first_only], [second_only, 20]]
    assert p_value == pytest.approx(tables.mcnemar(table, exact=True).pvalue)


def test_clustered_mcnemar_of_single_images_is_mcnemar_with_the_sample_variance():
    right = np.array([[1, 0]] * 21 + [[0, 1]] * 9 + [[1, 1]] * 170)
    test = mcnemar_test(right[:, 0], right[:, 1], np.arange(200))
    statistic = (21 - 9) ** 2 / (21 + 9) * 199 / 200
    assert test.p_value == pytest.approx(chi2.sf(statistic, 1))
    assert (test.first_only, test.second_only, test.n_images) == (21, 9, 200)


def test_clusters_counted_by_hand():
    # Patient a: two images only the first gets right; b: one each way; c: one only the second.
    first = [1, 1, 1, 0, 0, 1]
    second = [0, 0, 0, 1, 1, 1]
    test = mcnemar_test(first, second, ["a", "a", "b", "b", "c", "c"])
    # d = 2, 0, -1: (sum d)^2 / sum d^2 x (K - 1) / K = 1 / 5 x 2 / 3
    assert test.p_value == pytest.approx(chi2.sf(1 / 5 * 2 / 3, 1))
    assert test.difference.estimate == pytest.approx(1 / 6)
    # Around D = 1 / 6: (2 - 1/3)^2 + (0 - 1/3)^2 + (-1 - 1/3)^2 = 42 / 9; x 3 / 2 / 36
    assert test.difference.error == pytest.approx(np.sqrt(42 / 9 * 3 / 2 / 36))
    assert test.p_exact == pytest.approx(1.0)


def test_copies_of_a_patients_images_change_nothing_by_patient_but_all_by_image():
    rng = np.random.default_rng(4)
    first, second = rng.random(120) < 0.8, rng.random(120) < 0.7
    owner = np.arange(120)
    once = mcnemar_test(first, second, owner)
    thrice = mcnemar_test(np.repeat(first, 3), np.repeat(second, 3), np.repeat(owner, 3))
    assert thrice.p_value == pytest.approx(once.p_value)
    assert thrice.p_exact < once.p_exact


def test_a_patient_without_an_image_of_the_class_does_not_count():
    gap = np.array([1.0, 0, 1, 1]), np.array([0.0, 1, 0, 0])
    one = clustered_mcnemar(*gap, np.array([0, 1, 2, 3]), 4)
    other = clustered_mcnemar(*gap, np.array([0, 1, 2, 5]), 9)
    assert one == other


def test_equal_decisions_have_no_interval_and_no_clustered_p_value():
    right = np.array([1, 0, 1, 1])
    test = mcnemar_test(right, right, np.arange(4))
    assert (test.p_value, test.difference.interval_at(0.95), test.p_exact) == (None, None, 1.0)


def test_seeds_make_a_difference_less_sure():
    rng = np.random.default_rng(8)
    first, second = (rng.random(300) < 0.85).astype(float), (rng.random(300) < 0.7).astype(float)
    owner = np.arange(300)
    without = clustered_mcnemar(first, second, owner, 300)
    worse = first * (rng.random(300) < 0.9)
    with_seeds = clustered_mcnemar(np.stack([first, worse]), second, owner, 300)
    assert with_seeds.p_value > without.p_value
    assert with_seeds.p_exact is None


def test_decisions_of_other_images_are_refused():
    with pytest.raises(InputError, match=r"\(2,\).*\(3,\)"):
        mcnemar_test([1, 0], [1, 0, 1], ["a", "b"])


@pytest.mark.parametrize("right", [[1, 2], [1, np.nan], ["yes", "no"]])
def test_a_decision_that_is_neither_right_nor_wrong_is_refused(right):
    with pytest.raises(InputError, match="second_right"):
        mcnemar_test([1, 0], right, ["a", "b"])
