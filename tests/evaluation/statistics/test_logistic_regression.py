"""Logistic regression with a ridge against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cxr_compare.evaluation.statistics.logistic_regression import fit_logistic, sigmoid


def drawn(n, seed=0):
    rng = np.random.default_rng(seed)
    design = np.column_stack([np.ones(n), rng.normal(size=(n, 3))])
    return design, rng.random(n) < sigmoid(design @ np.array([-1.0, 2.0, 0.0, -0.5]))


@pytest.mark.parametrize("strength", [1.0, 100.0])
def test_a_ridge_fit_is_that_of_scikit_learn(strength):
    design, positive = drawn(300)
    weight = np.arange(300) % 4 + 1.0
    theirs = LogisticRegression(C=1 / strength, solver="newton-cholesky", tol=1e-12)
    theirs.fit(design[:, 1:], positive, sample_weight=weight)
    fit = fit_logistic(
        design,
        weight[None],
        (weight[positive] @ design[positive])[None],
        ridge=np.array([0.0, strength, strength, strength]),
    )
    expected = np.append(theirs.intercept_, theirs.coef_)
    np.testing.assert_allclose(fit.coefficients[0], expected, rtol=1e-9)
    assert fit.gradient[0] < 1e-6


def test_a_row_does_not_depend_on_the_others():
    design, positive = drawn(200)
    weights = np.random.default_rng(1).integers(0, 4, (50, 200)).astype(float)
    wanted = (weights * positive) @ design
    whole = fit_logistic(design, weights, wanted).coefficients
    for row in (0, 49):
        alone = fit_logistic(design, weights[row : row + 1], wanted[row : row + 1]).coefficients
        np.testing.assert_array_equal(alone[0], whole[row])


def test_separated_classes_end_and_tell_nothing_of_other_rows():
    design = np.column_stack([np.ones(4), np.arange(4.0)])
    positive = np.array([[0, 0, 1, 1], [0, 1, 0, 1]], dtype=float)
    fit = fit_logistic(design, np.ones((2, 4)), positive @ design)
    assert np.isfinite(fit.coefficients).all()
    assert fit.coefficients[0, 1] > 10
    alone = fit_logistic(design, np.ones((1, 4)), positive[1:] @ design)
    np.testing.assert_array_equal(fit.coefficients[1], alone.coefficients[0])


def test_a_far_start_is_led_back_by_halved_steps():
    design, positive = drawn(500)
    wanted = positive[None].astype(float) @ design
    near = fit_logistic(design, np.ones((1, 500)), wanted).coefficients
    far = fit_logistic(design, np.ones((1, 500)), wanted, start=np.full((1, 4), 8.0)).coefficients
    np.testing.assert_allclose(far, near, rtol=1e-9)
