"""Rows are worked on in processes: in order, lazily, and in spite of crashes."""

import operator
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cxr_compare.data_prep.work.pool import LocalEngine, cpu_count, read_ahead, write_behind

ROOT = Path(__file__).resolve().parents[3]


def test_order_is_kept_and_rows_are_read_lazily():
    taken = []

    def rows() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield -number

    answers = LocalEngine(2).map_rows(abs, rows(), on_crash=lambda row: -1)
    assert next(answers) == 0
    assert len(taken) <= 9
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
        drawn = most = 0

        def rows() -> Iterator[partial[Any]]:
            nonlocal drawn
            while drawn < count:
                drawn += 1
                yield row

        for answered, _ in enumerate(LocalEngine(2).map_rows(operator.call, rows(), on_crash=int)):
            most = max(most, drawn - answered)
        return most

    assert most_under_way(partial(time.sleep, 0.03), 24) <= 8
    assert 8 < most_under_way(partial(int, 0), 5000) <= 8 * 256


def test_programming_error_in_a_worker_is_not_hidden():
    with pytest.raises(ValueError, match="invalid literal"):
        list(LocalEngine(2).map_rows(int, ["1", "x", "3"], on_crash=lambda row: -1))


def test_a_folder_that_is_called_like_a_module_ends_no_worker(tmp_path):
    (tmp_path / "pydicom").mkdir()
    (tmp_path / "pydicom" / "__init__.py").write_text("raise SystemExit('the wrong pydicom')")
    code = (
        f"import sys; sys.path[0] = {str(ROOT)!r}\n"  # as an installed command: not this folder
        "from cxr_compare.data_prep.work.pool import LocalEngine\n"
        "print(list(LocalEngine(2).map_rows(abs, [-2, -1], on_crash=lambda row: None)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[2, 1]\n"), done.stderr


def test_rows_are_read_ahead_in_order_and_never_more_than_asked_for():
    taken: list[int] = []
    readers: set[int] = set()

    def rows() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            readers.add(threading.get_ident())
            yield number

    ahead = read_ahead(rows(), most=3)
    assert next(ahead) == 0
    assert max(taken, default=0) <= 3
    assert list(ahead) == list(range(1, 20))
    assert len(readers) == 1
    assert threading.get_ident() not in readers


def test_what_goes_wrong_while_reading_is_raised_in_its_place_and_closing_ends_the_reader():
    def rows() -> Iterator[int]:
        yield 1
        raise ValueError("row 2")

    ahead = read_ahead(rows())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="row 2"):
        next(ahead)
    endless = read_ahead(iter(int, 1))
    next(endless)
    endless.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("read-ahead")]


def test_rows_are_written_in_order_beside_the_making_of_the_next():
    written: list[int] = []
    made = threading.Event()

    def write(row: int) -> None:
        if row == 0:
            assert made.wait(10)  # only the making of the next row sets it: both are under way
        written.append(row)

    def rows() -> Iterator[int]:
        yield 0
        made.set()
        yield from range(1, 5)

    write_behind(write, rows())
    assert written == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_what_was_begun_written_whole(interrupt):
    written: list[int] = []
    begun = threading.Event()

    def write(row: int) -> None:
        begun.set()
        time.sleep(0.05)
        written.append(row)

    def rows() -> Iterator[int]:
        yield 0
        assert begun.wait(10)
        raise interrupt

    with pytest.raises(interrupt):
        write_behind(write, rows())
    assert written == [0]


def test_a_row_that_cannot_be_written_stops_the_making_of_others():
    made = []

    def rows() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    def refuse(row: int) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        write_behind(refuse, rows())
    assert len(made) <= 2


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ({}, 16),
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu.max": "350000 100000\n"}, 4),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
def test_a_quota_of_a_container_counts_as_fewer_processors(
    tmp_path, monkeypatch, files, processors
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(16), raising=False)
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cpu_count(tmp_path) == processors


def test_a_script_without_a_main_guard_is_run_once_and_not_by_its_workers(tmp_path):
    script = tmp_path / "analysis.py"
    script.write_text(
        "print('begun', flush=True)\n"
        "from cxr_compare.data_prep.work.pool import LocalEngine\n"
        "print(list(LocalEngine(2).map_rows(abs, [-2, -1], on_crash=lambda row: None)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "begun\n[2, 1]\n", done.stderr


def test_the_main_module_is_there_again_after_workers_have_started():
    main = sys.modules["__main__"]
    assert list(LocalEngine(2).map_rows(abs, [-1], on_crash=int)) == [1]
    assert sys.modules["__main__"] is main
