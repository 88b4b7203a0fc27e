"""Calibration figures against scikit-learn, statsmodels, and bins counted by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import expit
from sklearn import metrics as oracle

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.metrics.calibration_figures import (
    CalibrationFigures,
    equal_mass_bins,
    equal_width_bins,
)
from cxr_compare.evaluation.metrics.registry import family, why_undefined
from cxr_compare.evaluation.statistics.calibration import CLIP, clipped_logit

PROBABILITIES = arrays.arrays(np.float64, 12, elements=st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0]))
LABELS = arrays.arrays(np.int8, 12, elements=st.integers(0, 1))


def figures_of(y_true, probability):
    found = CalibrationFigures(y_true, probability).figures()
    return {name: float(value[0]) for name, value in found.items()}


@pytest.fixture
def sample():
    """Probabilities that are too sure of themselves, and too low."""
    rng = np.random.default_rng(7)
    logits = rng.normal(-1.5, 2.0, 600)
    return rng.random(600) < expit(0.4 + 0.6 * logits), expit(logits)


@settings(max_examples=80, deadline=None)
@given(LABELS, PROBABILITIES)
def test_brier_and_log_loss_are_those_of_scikit_learn(y_true, probability):
    found = figures_of(y_true, probability)
    assert found["brier"] == pytest.approx(np.mean((probability - y_true) ** 2))
    held = np.clip(probability, CLIP, 1 - CLIP)
    assert found["log_loss"] == pytest.approx(oracle.log_loss(y_true, held, labels=[0, 1]))


def test_slope_intercept_and_in_the_large_are_those_of_statsmodels(sample):
    sm = pytest.importorskip("statsmodels.api")
    y_true, probability = sample
    found, x = figures_of(y_true, probability), clipped_logit(probability)
    binomial = sm.families.Binomial()
    line = sm.GLM(y_true.astype(float), sm.add_constant(x), family=binomial).fit(tol=1e-14)
    expected = [found["calibration_intercept"], found["calibration_slope"]]
    assert expected == pytest.approx(line.params, abs=1e-9)
    shift = sm.GLM(y_true.astype(float), np.ones(len(x)), offset=x, family=binomial).fit(tol=1e-14)
    assert found["calibration_in_the_large"] == pytest.approx(shift.params[0], abs=1e-9)


def test_true_probabilities_have_slope_one_and_no_offset():
    # Each probability with exactly its share of positives.
    probability = np.repeat([0.2, 0.5, 0.8], 10)
    y_true = np.concatenate([[1] * 2 + [0] * 8, [1] * 5 + [0] * 5, [1] * 8 + [0] * 2])
    found = figures_of(y_true, probability)
    assert found["calibration_slope"] == pytest.approx(1.0)
    for name in ("calibration_intercept", "calibration_in_the_large", "ece"):
        assert found[name] == pytest.approx(0.0, abs=1e-9)


def test_ece_counted_by_hand():
    # (0, 0.1]: 0.1 and 0.05, one positive: gap |1 - 0.15|; (0.3, 0.4]: 0.35, none: gap 0.35.
    found = figures_of([1, 0, 0], [0.1, 0.05, 0.35])
    assert found["ece"] == pytest.approx((0.85 + 0.35) / 3)


@pytest.mark.parametrize(
    ("probability", "tenth"),
    [(0.0, 0), (0.1, 0), (0.1001, 1), (0.3, 2), (0.6, 5), (0.7, 6), (0.9, 8), (1.0, 9)],
)
def test_an_equal_width_bin_is_closed_on_the_right(probability, tenth):
    assert equal_width_bins(np.array([probability])).tolist() == [tenth]


def test_equal_mass_bins_hold_a_tenth_each_and_never_part_equal_values():
    distinct = equal_mass_bins(np.random.default_rng(0).permutation(50) / 50)
    assert np.bincount(distinct).tolist() == [5] * 10
    tied = np.array([0.2] * 7 + [0.5] * 2 + [0.9])
    bins = equal_mass_bins(tied)
    assert len(set(bins[:7])) == len(set(bins[7:9])) == 1
    assert len(set(bins)) == 3


@settings(max_examples=60, deadline=None)
@given(LABELS, PROBABILITIES, arrays.arrays(np.int16, 12, elements=st.integers(0, 3)))
def test_weights_mean_the_same_as_repeated_images(y_true, probability, weights):
    if not weights.any():
        return
    weighted = CalibrationFigures(y_true, probability).figures(weights[None, :])
    repeated = figures_of(np.repeat(y_true, weights), np.repeat(probability, weights))
    for name in family("calibration"):
        assert weighted[name][0] == pytest.approx(repeated[name], nan_ok=True, abs=1e-6)


@pytest.fixture
def clustered():
    """Two images a patient, more distinct probabilities than knots, and 40 resamples."""
    rng = np.random.default_rng(7)
    logits = rng.normal(-1.5, 2.0, 600)
    y_true, probability = rng.random(600) < expit(0.4 + 0.6 * logits), expit(logits)
    weights = rng.multinomial(300, np.full(300, 1 / 300), size=40)
    return y_true, probability, np.arange(600) // 2, weights


def test_replicates_on_knots_are_those_of_an_exact_fit(clustered):
    y_true, probability, patients, weights = clustered
    together = CalibrationFigures(y_true, probability, patients).figures(weights)
    for place, row in enumerate(weights):
        times = row[patients]
        exact = figures_of(np.repeat(y_true, times), np.repeat(probability, times))
        for name in family("calibration"):
            assert together[name][place] == pytest.approx(exact[name], abs=5e-4), name


@pytest.mark.parametrize("rows", [1, 3, 39])  # the last chunk of 39 + 1 has a single row
def test_a_replicate_does_not_depend_on_how_replicates_are_chunked(clustered, rows):
    y_true, probability, patients, weights = clustered
    # One row whose patients a cut nearly parts takes far longer to fit than its neighbours.
    logit = clipped_logit(probability)
    alike = (y_true == (logit > -1)) | (np.arange(600) == 5)
    weights[7] = np.minimum.reduceat(alike.astype(int), np.arange(0, 600, 2))
    found = CalibrationFigures(y_true, probability, patients)
    together = found.figures(weights)
    parts = [found.figures(weights[start : start + rows]) for start in range(0, 40, rows)]
    for name in family("calibration"):
        chunked = np.concatenate([part[name] for part in parts])
        np.testing.assert_allclose(chunked, together[name], rtol=0, atol=1e-12, err_msg=name)


def test_a_resample_that_a_cut_parts_has_no_slope_whatever_is_beside_it():
    # Without the last patient 0.6 is above every negative: a steeper line always fits better.
    figures = CalibrationFigures([0, 0, 1, 1, 1], [0.1, 0.4, 0.6, 0.9, 0.2])
    slopes = figures.figures(np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 2, 0, 0, 2]]))
    assert np.isnan(slopes["calibration_slope"]).tolist() == [True, False, False]
    assert np.isnan(slopes["calibration_intercept"]).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("y_true", "probability", "undefined"),
    [
        ([1, 1], [0.2, 0.6], {"calibration_slope", "calibration_intercept",
                              "calibration_in_the_large"}),  # no negative image
        ([0, 1], [0.5, 0.5], {"calibration_slope", "calibration_intercept"}),  # all equal
        ([0, 0, 1], [0.1, 0.2, 0.9], {"calibration_slope", "calibration_intercept"}),  # parted
        # Parted but for one shared value.
        ([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.9], {"calibration_slope", "calibration_intercept"}),
    ],
)  # fmt: skip
def test_an_undefined_figure_is_not_a_number_and_has_a_reason(y_true, probability, undefined):
    found = figures_of(y_true, probability)
    assert {name for name, value in found.items() if np.isnan(value)} == undefined
    assert set(found) == set(family("calibration"))
    assert why_undefined("unheard of") not in map(why_undefined, found)


def test_a_probability_outside_its_range_is_refused_by_position():
    with pytest.raises(InputError, match=r"row 1 is 1\.5"):
        CalibrationFigures([0, 1], [0.2, 1.5])
