"""Intervals from resamples: coverage, notes, differences and p-values."""

import numpy as np
import pytest
from scipy.stats import binomtest

from cxr_compare.evaluation.metrics.calibration_figures import CalibrationFigures
from cxr_compare.evaluation.statistics.bootstrap import (
    Resamples,
    cluster_bootstrap,
)
from cxr_compare.evaluation.statistics.intervals import (
    NO_WIDTH,
    Interval,
    expanded_level,
    percentile_interval,
)
from cxr_compare.evaluation.statistics.ranking import RankedScores


def test_undefined_replicates_are_left_out_counted_or_forbid_an_interval():
    few = np.append(np.linspace(0, 1, 99), np.nan)
    assert percentile_interval(few).note == "undefined in 1 of 100 resamples, left out"
    many = np.append(np.linspace(0, 1, 50), np.full(50, np.nan))
    interval = percentile_interval(many)
    assert not interval.bounded
    assert interval.note == "undefined in 50 of 100 resamples"


def test_a_figure_that_no_resample_moves_gets_no_interval():
    interval = percentile_interval(np.ones(200))  # as a sensitivity of 1 has on any resample
    assert (interval.bounded, interval.note) == (False, NO_WIDTH)


@pytest.mark.slow
def test_intervals_cover_the_truth_on_clustered_data():
    """AUROC of clustered normal scores: coverage near 95 % over 200 simulated test sets."""
    rng = np.random.default_rng(0)
    n_patients, per_patient, shift = 120, 3, 1.0
    # Total variance 1 + 0.5: AUROC = Phi(shift / sqrt(2 * 1.5)) between images of two patients.
    truth = 0.7181485691746134
    covered = 0
    for _ in range(200):
        patient_effect = np.repeat(rng.normal(0, np.sqrt(0.5), n_patients), per_patient)
        sick = np.repeat(rng.random(n_patients) < 0.4, per_patient)
        score = patient_effect + rng.normal(0, 1, n_patients * per_patient) + shift * sick
        patients = np.repeat(np.arange(n_patients), per_patient)
        ranked = RankedScores(sick, score, patients)
        drawn = cluster_bootstrap(ranked.figures, Resamples(n_patients, 500, seed=1))
        interval = percentile_interval(drawn["auroc"])
        covered += interval.ci_low <= truth <= interval.ci_high
    assert 0.91 <= covered / 200 <= 0.985


def test_a_figure_that_resampling_itself_shifts_has_no_interval_and_says_why():
    """Expected calibration error near 0: every resample adds noise to the gaps of its bins."""
    rng = np.random.default_rng(1)
    n = 4000
    p = rng.uniform(0.02, 0.98, n)
    # As well calibrated as can be: the labels of each tenth sum to what it expects.
    truth = np.zeros(n)
    order = np.argsort(p)
    truth[order[np.flatnonzero(np.diff(np.floor(np.r_[0.0, np.cumsum(p[order])])) > 0)]] = 1
    figures = CalibrationFigures(truth, p, np.arange(n))
    drawn = cluster_bootstrap(figures.figures, Resamples(n, 400))["ece"]
    estimate = float(figures.figures()["ece"][0])
    plain = percentile_interval(drawn)
    assert plain.ci_low > estimate  # what the reader would have been shown
    found = percentile_interval(drawn, estimate=estimate)
    assert not found.bounded
    assert f"{plain.ci_low:.3f} to {plain.ci_high:.3f}" in found.note
    brier = cluster_bootstrap(figures.figures, Resamples(n, 400))["brier"]
    assert percentile_interval(brier, estimate=float(figures.figures()["brier"][0])).bounded


def test_expanded_percentiles_cover_a_mean_of_few_patients_as_often_as_of_many():
    rng = np.random.default_rng(11)
    values = rng.normal(size=(1500, 12))
    weights = np.concatenate(list(Resamples(12, 800).chunks())) / 12
    means = values @ weights.T
    covered = {
        level: np.mean(
            [
                found.ci_low <= 0 <= found.ci_high
                for found in (percentile_interval(row, level) for row in means)
            ]
        )
        for level in (0.95, expanded_level(0.95, 12))
    }
    plain, expanded = covered.values()
    assert plain < 0.92
    assert 0.93 <= expanded <= 0.97


def test_the_interval_of_a_difference_follows_from_both():
    # Newcombe 1998, table II, method 10, 56/70 against 48/80: the squares of both reaches add up.
    wilson = [binomtest(*counts).proportion_ci(method="wilson") for counts in ((56, 70), (48, 80))]
    first = Interval(0.8, *wilson[0])
    second = Interval(0.6, *wilson[1])
    gap = first.minus(second)
    assert (gap.ci_low, gap.ci_high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert first.minus(second, 0.5).ci_low > gap.ci_low  # what moves together differs less
    assert not first.minus(Interval(0.6)).bounded
    assert first.minus(first, 1.0).note == NO_WIDTH


def test_a_p_value_is_below_a_twentieth_where_the_interval_leaves_0_out():
    assert Interval(0.2, 0.0, 0.5).normal_p_value == pytest.approx(0.05)
    assert Interval(-0.2, -0.3, -0.1).normal_p_value < 0.001
    assert Interval(0.2, -0.1, 0.3).normal_p_value > 0.05
    assert Interval(0.2).normal_p_value is None
