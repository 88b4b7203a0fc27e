"""Weighted sums against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_compare.evaluation.statistics.running_sums import RunningRows, SegmentSums


@pytest.mark.parametrize(
    ("peak", "crowd"),  # 16 bits hold 4,095 boxes of weight 16
    [(1, 3), (16, 4095), (16, 4096), (17, 4095), (1, 70_000), (30_000, 70_000)],
)
def test_sums_are_those_of_a_plain_loop_however_large(peak, crowd):
    rng = np.random.default_rng(crowd)
    segment = np.append(np.zeros(crowd, dtype=int), rng.integers(0, 5, 200))
    clusters = rng.integers(0, 7, len(segment))
    weights = rng.integers(0, peak + 1, (3, 7))
    expected = np.zeros((3, 6))
    for row in range(3):
        np.add.at(expected[row], segment, weights[row, clusters])
    assert SegmentSums(segment, clusters, 6, 7)(weights).tolist() == expected.tolist()


def test_without_boxes_and_without_segments_sums_are_empty():
    none = np.array([], dtype=int)
    assert SegmentSums(none, none, 2, 1)(np.ones((1, 1), int)).tolist() == [[0, 0]]
    assert SegmentSums(none, none, 0, 1)(np.ones((2, 1), int)).shape == (2, 0)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(0, 6), st.randoms(use_true_random=False))
def test_each_row_is_searched_as_if_alone(n_rows, length, random):
    counts = np.array([[random.randint(0, 3) for _ in range(length)] for _ in range(n_rows)])
    counts = counts.reshape(n_rows, length)
    rows, sums = RunningRows(counts), np.cumsum(counts, axis=1)
    assert rows.sums.tolist() == sums.tolist()
    sought = np.array([[random.randint(0, 20) for _ in range(5)] for _ in range(n_rows)])
    for side in ("left", "right"):
        expected = [np.searchsorted(sums[k], sought[k], side).tolist() for k in range(n_rows)]
        assert rows.search(sought, side).tolist() == expected
