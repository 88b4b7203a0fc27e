"""Evidence by sequential ranks, against plain loops, uniform ranks and the stated error."""

import math
import time

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import kstest

from cxr_compare.hospital.betting import start_weights
from cxr_compare.hospital.monitor.rank_evidence import (
    rank_evidence,
    rank_start_shares,
    sequential_ranks,
)


def evidence_by_hand(values, day):
    """The wealth after the last day, each start, bet and value on its own."""
    ranks = sequential_ranks(values)
    days = np.unique(day)
    weights = start_weights(days)
    total = math.exp(weights.waiting[-1])
    for start, weight in zip(days[:-1], np.exp(weights.starting), strict=True):
        n_before = sum(d <= start for d in day)
        wealths = []
        for kind, change in [("normal", c) for c in (0.3, -0.3, 0.6, -0.6)] + [
            ("exponential", c) for c in (0.12, -0.12, 0.25, -0.25)
        ]:
            wealth = 1.0
            for rank, d in zip(ranks, day, strict=True):
                if d <= start:
                    continue
                bet = change * n_before / sum(other <= d for other in day)
                if kind == "normal":
                    wealth *= math.exp(bet * ndtri(rank) - bet**2 / 2)
                else:
                    wealth *= (1 - bet) * math.exp(-bet * math.log(1 - rank))
            wealths.append(wealth)
        total += weight * sum(wealths) / len(wealths)
    return total


def test_evidence_is_that_of_a_plain_loop():
    values = np.random.default_rng(1).normal(np.repeat([0.0, 0.8], [70, 30]))
    day = np.concatenate([np.zeros(40, dtype=int), 1 + np.arange(60) // 6])
    day[day > 4] += 3  # days without a value
    assert rank_evidence(values, day)[-1] == pytest.approx(evidence_by_hand(values, day))
    until = day <= 3
    expected = evidence_by_hand(values[until], day[until])
    assert rank_evidence(values, day)[2] == pytest.approx(expected)


def test_ranks_count_the_earlier_and_lower_values_and_stay_as_they_are():
    values = np.random.default_rng(2).random(301).round(2)  # with ties
    ranks = sequential_ranks(values)
    for position in range(301):
        lower = (values[:position] < values[position]).sum()
        equal = (values[:position] == values[position]).sum()
        count = position + 1
        assert lower / count <= ranks[position] <= (lower + equal + 1) / count
    assert sequential_ranks(values[:77]).tolist() == ranks[:77].tolist()


@pytest.mark.parametrize("levels", [2, 5, 10**9])
def test_ranks_of_unchanged_values_are_uniform_and_independent_whatever_their_distribution(levels):
    drawn = np.random.default_rng(3).exponential(size=(60, 400))
    values = np.floor(drawn * levels) / levels
    ranks = np.stack([sequential_ranks(row) for row in values])
    assert kstest(ranks[:, 200:].ravel(), "uniform").pvalue > 0.001
    neighbours = np.corrcoef(ranks[:, 200:-1].ravel(), ranks[:, 201:].ravel())[0, 1]
    assert abs(neighbours) < 4 / math.sqrt(60 * 199)


def test_streams_without_a_change_show_evidence_no_more_often_than_stated():
    day = np.concatenate([np.zeros(60, dtype=int), np.repeat(np.arange(1, 61), 10)])
    drawn = np.random.default_rng(4).random((400, len(day))) ** 3
    evidence = np.stack([rank_evidence(row, day) for row in drawn])
    assert (evidence.max(axis=1) >= 2).mean() <= 0.5
    assert (evidence.max(axis=1) >= 5).mean() <= 0.2
    assert evidence.mean(axis=0).max() <= 1.2  # 1, but for the error of 400 streams


def test_more_frequent_high_values_are_found_and_dated():
    rng = np.random.default_rng(5)
    day = np.concatenate([np.zeros(500, dtype=int), np.repeat(np.arange(1, 91), 20)])
    positive = rng.random(len(day)) < np.where(day > 30, 0.36, 0.18)
    values = rng.normal(2 * positive)
    evidence = rank_evidence(values, day)
    assert evidence[29] < 20 < evidence[60]
    until = day <= 60
    assert abs(rank_start_shares(values[until], day[until]).argmax() - 30) <= 5


def test_time_follows_the_rows_of_many_years():
    day = np.concatenate([np.zeros(400, dtype=int), np.repeat(np.arange(1, 3651), 10)])
    values = np.random.default_rng(6).random(len(day))
    began = time.perf_counter()
    evidence = rank_evidence(values, day)
    assert time.perf_counter() - began < 20
    assert evidence.max() < 20
    changed = np.where(day > 3600, values + 0.5, values)
    assert rank_evidence(changed, day)[-1] > 1e6


def test_without_a_day_after_the_reference_there_is_no_evidence():
    assert rank_evidence(np.ones(60), np.zeros(60, dtype=int)).shape == (0,)
