"""A mean by betting, against wealth counted in plain loops, exact tails and coverage."""

import math

import numpy as np
import pytest
import scipy.stats

from data_prep.contracts.errors import InputError
from evaluation.statistics.betting import (
    _sample,
    change_evidence,
    mean_interval,
    mean_p_value,
    start_shares,
)


def by_hand(values, mean, error, *, anew, most=0.75):
    """The largest wealth of one row, value by value."""
    wealth, largest, seen = 1.0, 1.0, []
    for at, value in enumerate(values):
        means = [(0.5 + sum(seen[: k + 1])) / (k + 2) for k in range(len(seen))]
        squares = 0.25 + sum((x - m) ** 2 for x, m in zip(seen, means, strict=True))
        variance = squares / (len(seen) + 1)
        size = len(values) - at if anew else len(values)
        aim = math.log(1 / error) - (math.log(wealth) if anew else 0)
        bet = min(math.sqrt(max(2 * aim, 0) / (size * variance)), most / mean)
        if not (anew and largest >= 1 / error):
            wealth *= 1 + bet * (value - mean)
        largest = max(largest, wealth)
        seen.append(value)
    return largest


def test_wealth_of_two_values_counted_on_paper():
    # The first bet 2 sqrt(ln 2) / 1 = 1.6651 is above the cap 3/2: 1 + 3/2 * 1/2 = 7/4.
    assert by_hand([1, 0], 0.5, 0.5, anew=False) == pytest.approx(7 / 4)
    # Against 0.9 the test's cap is 1: 1 + 1 * 0.1 twice.
    assert mean_p_value([1, 1], 0.9, error=0.01) == pytest.approx([1 / 1.21])


@pytest.mark.parametrize("mean", [0.3, 0.7, 0.95])
def test_wealth_is_that_of_a_plain_loop(mean):
    values = np.random.default_rng(4).beta(4, 1, 40)
    largest = by_hand(_sample(values)[0], mean, 0.1, anew=True, most=0.9)
    assert mean_p_value(values, mean, error=0.1) == pytest.approx([1 / largest])
    assert mean_p_value(5 * values, 5 * mean, upper=5, error=0.1) == pytest.approx([1 / largest])


def test_without_values_nothing_is_known():
    nothing = np.zeros((2, 0))
    assert mean_p_value(nothing, 0.5).tolist() == [1.0, 1.0]
    assert mean_interval(nothing).tolist() == [[0.0, 1.0], [0.0, 1.0]]


def test_interval_is_where_neither_bettor_wins_enough():
    values = np.random.default_rng(6).beta(2, 5, (1, 60))
    low, high = mean_interval(values, 0.9)[0]
    values = _sample(values)[0]
    for mean, refuted in ((low - 1e-4, True), (low + 1e-4, False)):
        assert (by_hand(values, mean, 0.05, anew=False) >= 20) == refuted
    for mean, refuted in ((high + 1e-4, True), (high - 1e-4, False)):
        assert (by_hand(1 - values, 1 - mean, 0.05, anew=False) >= 20) == refuted


def test_intervals_hold_the_mean_and_narrow_with_values():
    draws = np.random.default_rng(7)
    widths = []
    for count in (30, 120, 480):
        ends = mean_interval(draws.beta(9, 1, (400, count)), 0.9)
        assert ((ends[:, 0] <= 0.9) & (ends[:, 1] >= 0.9)).mean() >= 0.9
        widths.append(np.diff(ends).mean())
    assert widths[0] > widths[1] > widths[2]


def test_p_value_of_the_largest_mean_that_the_null_allows():
    draws = np.random.default_rng(8)
    fair = (draws.random((2_000, 100)) < 0.9).astype(float)
    refuted = (mean_p_value(fair, 0.9, error=0.1) <= 0.1).mean()
    assert 0.05 < refuted < 0.1 + 2 * 0.0067  # exact up to the chance of 2,000 sets
    better = (draws.random((2_000, 200)) < 0.96).astype(float)
    found = (mean_p_value(better, 0.9, error=0.1) <= 0.1).mean()
    exact = (scipy.stats.binom.sf(better.sum(axis=1) - 1, 200, 0.9) <= 0.1).mean()
    assert exact - 0.1 < found <= exact + 0.02  # betting costs little of the exact test's power


def test_p_value_rises_with_the_mean_that_is_tested():
    values = np.random.default_rng(9).beta(8, 2, 80)
    rows = np.tile(values, (9, 1))
    p = np.maximum(mean_p_value(rows, np.linspace(0.1, 0.9, 9), error=0.001), 0.001)
    assert (np.diff(p) >= -1e-12).all()
    assert p[0] == 0.001
    assert p[-1] > 0.9  # the mean of these values is 0.8


def test_order_is_the_same_for_all_rows_and_no_users_choice():
    rows = _sample(np.arange(12.0).reshape(2, 6), 12)
    assert sorted(12 * rows[0]) == pytest.approx([0, 1, 2, 3, 4, 5])
    assert rows[1] - rows[0] == pytest.approx(np.full(6, 0.5))
    assert rows[0].tolist() != sorted(rows[0])


@pytest.mark.parametrize("wrong", [1.5, -0.5, math.nan])
def test_values_outside_their_bounds_are_named(wrong):
    with pytest.raises(InputError, match=f"values must lie between 0 and 1, got {wrong}"):
        mean_interval([0.2, wrong])
    with pytest.raises(InputError, match=f"values must lie between 0 and 4, got {4 * wrong:g}"):
        mean_p_value([0.2, 4 * wrong], 0.5, upper=4)


def change_by_hand(values, lower, upper):
    """The wealth of `change_evidence` after the last value, every start on its own."""
    weights = [math.log(100) / math.log(j + 100) for j in range(len(values) + 1)]
    total = weights[-1]
    for start in range(len(values)):
        for odds in (1.2, 1.5, 2.0, 3.5, 8.0):
            for flipped, end in ((False, upper), (True, 1 - lower)):
                wealth = weights[start] - weights[start + 1]
                for value in values[start:]:
                    gain = (1 - value if flipped else value) - end
                    wealth *= 1 + (odds - 1) / (1 + (odds - 1) * end) * gain
                total += wealth / 10
    return total


def test_evidence_of_a_change_is_the_sum_over_all_starts():
    drawn = np.random.default_rng(5).random((2, 300))
    drawn[:, 150:] = drawn[:, 150:] ** 0.5
    lower, upper = np.array([0.4, 0.55]), np.array([0.5, 0.7])
    wealth = change_evidence(drawn, lower, upper)
    for row in range(2):
        for stop in (1, 128, 129, 300):
            by_hand = change_by_hand(drawn[row, :stop], lower[row], upper[row])
            assert wealth[row, stop - 1] == pytest.approx(by_hand)


def test_streams_without_a_change_show_evidence_no_more_often_than_said():
    drawn = np.random.default_rng(6).random((2000, 1500)) < 0.3
    wealth = change_evidence(drawn, 0.3, 0.3)
    assert 0 < (wealth.max(axis=1) >= 5).mean() <= 0.2
    assert (wealth.max(axis=1) >= 20).mean() <= 0.05
    assert wealth[:, 19].mean() == pytest.approx(1, abs=0.02)


def test_a_change_is_dated_and_endless_evidence_stays_a_number():
    values = np.concatenate([np.tile([1, 0, 0, 0, 0, 0], 500), np.ones(3000)])
    wealth = change_evidence(values, 0.1, 0.2)
    assert wealth[0, 2999] < 1 < 1e5 < wealth[0, 3019]
    assert wealth.max() == 1e12
    assert start_shares(values[:3040], 0.1, 0.2).argmax() == 3000
