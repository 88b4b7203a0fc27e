"""A mean by betting, against wealth counted in plain loops, exact tails and coverage."""

import math

import numpy as np
import pytest
import scipy.stats

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.hospital.betting import (
    change_evidence,
    mean_interval,
    mean_p_value,
    shuffled_sample,
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
    largest = by_hand(shuffled_sample(values)[0], mean, 0.1, anew=True, most=0.9)
    assert mean_p_value(values, mean, error=0.1) == pytest.approx([1 / largest])
    assert mean_p_value(5 * values, 5 * mean, upper=5, error=0.1) == pytest.approx([1 / largest])


def test_without_values_nothing_is_known():
    nothing = np.zeros((2, 0))
    assert mean_p_value(nothing, 0.5).tolist() == [1.0, 1.0]
    assert mean_interval(nothing).tolist() == [[0.0, 1.0], [0.0, 1.0]]


def test_interval_is_where_neither_bettor_wins_enough():
    values = np.random.default_rng(6).beta(2, 5, (1, 60))
    low, high = mean_interval(values, 0.9)[0]
    values = shuffled_sample(values)[0]
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
    rows = shuffled_sample(np.arange(12.0).reshape(2, 6), 12)
    assert sorted(12 * rows[0]) == pytest.approx([0, 1, 2, 3, 4, 5])
    assert rows[1] - rows[0] == pytest.approx(np.full(6, 0.5))
    assert rows[0].tolist() != sorted(rows[0])


@pytest.mark.parametrize("wrong", [1.5, -0.5, math.nan])
def test_values_outside_their_bounds_are_named(wrong):
    with pytest.raises(InputError, match=f"0 and 1, .*{wrong}"):
        mean_interval([0.2, wrong])
    with pytest.raises(InputError, match=f"0 and 4, .*{4 * wrong:g}"):
        mean_p_value([0.2, 4 * wrong], 0.5, upper=4)


def change_by_hand(values, day, mean):
    """The wealth against a mean after the last day, every start, bet and value on its own."""
    weights = [math.log(10) / math.log(d + 10) for d in range(max(day) + 1)]
    odds = [each for o in (1.2, 1.5, 2.0, 3.5, 8.0) for each in (o, 1 / o)]
    error = math.sqrt(mean * (1 - mean) * day.count(0))
    near = [sign * z / error for z in (0.5, 1.0, 2.0, 3.0, 4.5) for sign in (1, -1)]
    near = [min(max(bet, -0.75 / (1 - mean)), 0.75 / mean) for bet in near]

    def grown(bets, chosen):
        return sum(math.prod(1 + bet * (v - mean) for v in chosen) for bet in bets) / len(bets)

    total = weights[-1] * grown(near, values)
    for start in range(max(day)):
        before = [v for v, d in zip(values, day, strict=True) if d <= start]
        after = [v for v, d in zip(values, day, strict=True) if d > start]
        changed = [(o - 1) / (1 + (o - 1) * mean) for o in odds]
        total += (weights[start] - weights[start + 1]) * grown(near, before) * grown(changed, after)
    return total


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_evidence_of_a_change_is_the_smallest_wealth_over_all_means(share):
    draws = np.random.default_rng(5)
    values = [*draws.integers(0, 4, 60) / 3, *(draws.random(40) < share).astype(float)]
    day = [0] * 40 + [1 + k // 6 for k in range(60)]
    smallest = min(change_by_hand(values, day, mean) for mean in np.linspace(0.02, 0.98, 481))
    assert change_evidence(values, day)[0, -1] == pytest.approx(smallest, rel=0.02)
    until = [d <= 6 for d in day]
    smallest = min(
        change_by_hand(list(np.array(values)[until]), list(np.array(day)[until]), mean)
        for mean in np.linspace(0.02, 0.98, 481)
    )
    assert change_evidence(values, day)[0, 5] == pytest.approx(smallest, rel=0.02)


def test_a_value_between_two_levels_earns_no_more_than_a_fair_bet_on_it():
    values = [0.29, 0.55, 0.71, 0.9] * 10
    day = [0] * 12 + [1 + k // 4 for k in range(28)]
    smallest = min(change_by_hand(values, day, mean) for mean in np.linspace(0.02, 0.98, 481))
    assert 0.5 * smallest < change_evidence(values, day)[0, -1] <= 1.001 * smallest


@pytest.mark.parametrize("size", [50, 700])
@pytest.mark.parametrize("mean", [0.02, 0.5])
def test_streams_without_a_change_show_evidence_no_more_often_than_stated(size, mean):
    day = np.concatenate([np.zeros(size, dtype=int), np.repeat(np.arange(1, 31), 10)])
    drawn = np.random.default_rng(6).random((500, len(day))) < mean
    evidence = change_evidence(drawn, day)
    assert (evidence.max(axis=1) >= 2).mean() <= 0.5
    assert (evidence.max(axis=1) >= 5).mean() <= 0.2
    assert evidence.mean(axis=0).max() <= 1


def test_a_change_is_dated_and_endless_evidence_stays_a_number():
    values = np.concatenate([np.tile([1, 0, 0, 0, 0, 0], 500), np.ones(3000)])
    day = np.maximum(np.arange(6000) // 20 - 49, 0)  # the first 1,000 are the reference
    evidence = change_evidence(values, day)
    assert evidence[0, 99] < 1 < 1e5 < evidence[0, 100]
    assert evidence.max() == pytest.approx(1e12)
    assert start_shares(values[:3040], day[:3040]).argmax() == 100


def test_without_a_day_after_the_reference_there_is_no_evidence():
    assert change_evidence(np.ones((2, 60)), np.zeros(60, dtype=int)).shape == (2, 0)
