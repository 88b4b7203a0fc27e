"""The smallest difference that a test can detect."""

import pytest
from scipy.stats import nct, norm, t

from cxr_compare.evaluation.statistics.clustered_estimate import (
    ClusteredEstimate,
    smallest_detectable,
)


def test_the_smallest_detectable_difference_has_the_power_it_names():
    error = 0.02
    reach = smallest_detectable(error)
    beyond = norm.isf(0.025) * error
    assert norm.sf((beyond - reach) / error) == pytest.approx(0.8)
    assert ClusteredEstimate(0.0, error).detectable == reach
    # With few patients the test is t: its noncentral distribution gives the power.
    few = ClusteredEstimate(0.0, error, freedom=6.0).detectable
    assert nct.sf(t.isf(0.025, 6), 6, few / error) == pytest.approx(0.8, abs=0.02)
    assert ClusteredEstimate(0.0, 0.3, freedom=2.0).detectable is None  # not even a gap of 1
