"""Rows are worked on in processes: in order, a few at a time, and in spite of crashes."""

import operator
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from cxr_compare.data_prep.parallel import map_images


def crashed(row: object) -> int:
    return -1


def below(process: int) -> list[int]:
    """Processes that a process started, and those that they did."""
    children = []
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                children += [child, *below(child)]
    return children


@pytest.mark.parametrize("together", [1, 3])
def test_order_is_kept_and_few_rows_are_under_way(together):
    drawn = []

    def rows() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield -number

    results = map_images(abs, rows(), 2, on_crash=crashed, together=together)
    assert next(results) == 0
    assert len(drawn) <= (2 * 2 + 1) * together
    assert list(results) == list(range(1, 100))


def test_one_process_is_this_one():
    rows = [partial(os.getpid)] * 2
    assert list(map_images(operator.call, rows, 1, on_crash=crashed)) == [os.getpid()] * 2


@pytest.mark.parametrize("together", [1, 7])
def test_row_that_ends_its_process_costs_that_row_only(together):
    # Workers cannot import a test module, so the rows themselves say what to do; leaving the
    # process at once is what a crash in a decoder written in C does.
    numbers = range(200)
    rows = [partial(int, n) if n not in (5, 123) else partial(os._exit, 1) for n in numbers]
    results = map_images(operator.call, rows, 2, on_crash=crashed, together=together)
    assert list(results) == [n if n not in (5, 123) else -1 for n in numbers]


def test_killed_worker_costs_no_row():
    killed = []

    def rows() -> Iterator[partial]:
        for number in range(40):
            if number == 20:
                workers = {pid for server in below(os.getpid()) for pid in below(server)}
                killed.append(max(workers))
                os.kill(killed[0], signal.SIGKILL)
            yield partial(int, number)

    assert list(map_images(operator.call, rows(), 2, on_crash=crashed)) == list(range(40))
    assert killed


def test_programming_error_in_a_worker_keeps_its_type_and_names_its_row():
    for workers in (1, 2):
        with pytest.raises(ValueError, match="invalid literal") as raised:
            list(map_images(int, ["1", "x", "3"], workers, on_crash=crashed, together=2))
        assert any("'x'" in note for note in raised.value.__notes__)


def test_processes_end_with_the_caller_s_interest():
    before = threading.active_count()
    results = map_images(time.sleep, [0.0] * 1000, 2, on_crash=crashed)
    next(results)
    results.close()
    assert threading.active_count() <= before


def test_rows_are_worked_on_from_a_thread():
    results: list[int] = []

    def work() -> None:
        results.extend(map_images(abs, [-1, -2, -3], 2, on_crash=crashed))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [1, 2, 3]
