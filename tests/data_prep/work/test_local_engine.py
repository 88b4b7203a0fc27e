"""Rows are worked on in processes: in order, lazily, and in spite of crashes."""

import operator
import os
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from cxr_compare.data_prep.work.local_engine import LocalEngine


def test_order_is_kept_and_rows_are_read_lazily():
    drawn = []

    def rows() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield -number

    answers = LocalEngine(2).map_rows(abs, rows(), on_crash=lambda row: -1)
    assert next(answers) == 0
    assert len(drawn) <= 9
    assert list(answers) == list(range(1, 100))


def test_row_that_ends_its_process_costs_that_row_only() -> None:
    # Workers cannot import a test module, so the rows themselves say what to do; leaving the
    # process at once is what a crash in a decoder written in C does.
    rows = [partial(int, n) if n != 5 else partial(os._exit, 1) for n in range(12)]
    answers = list(LocalEngine(2).map_rows(operator.call, rows, on_crash=lambda row: -1))
    assert answers == [0, 1, 2, 3, 4, -1, 6, 7, 8, 9, 10, 11]


def test_row_that_ends_its_process_among_many_sent_together_costs_that_row_only():
    numbers = range(3000)  # as quick as these, they go by the hundred
    rows = [partial(int, n) if n not in (1234, 2000) else partial(os._exit, 1) for n in numbers]
    answers = list(LocalEngine(2).map_rows(operator.call, rows, on_crash=lambda row: -1))
    assert answers == [n if n not in (1234, 2000) else -1 for n in numbers]


def test_slow_rows_are_sent_one_by_one_and_quick_ones_together():
    def most_under_way(row: partial[Any], count: int) -> int:
        rows_drawn = most = 0

        def rows() -> Iterator[partial[Any]]:
            nonlocal rows_drawn
            while rows_drawn < count:
                rows_drawn += 1
                yield row

        for done, _ in enumerate(LocalEngine(2).map_rows(operator.call, rows(), on_crash=int)):
            most = max(most, rows_drawn - done)
        return most

    assert most_under_way(partial(time.sleep, 0.03), 24) <= 8
    assert 8 < most_under_way(partial(int, 0), 5000) <= 8 * 256


def test_programming_error_in_a_worker_is_not_hidden():
    with pytest.raises(ValueError, match="invalid literal"):
        list(LocalEngine(2).map_rows(int, ["1", "x", "3"], on_crash=lambda row: -1))
