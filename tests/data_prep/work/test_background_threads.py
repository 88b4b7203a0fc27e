"""Rows are read and written in order by a thread beside the work on them."""

import threading
import time
from collections.abc import Iterator

import pytest

from cxr_compare.data_prep.work.background_threads import read_ahead, write_behind


def test_rows_are_read_ahead_in_order_and_never_more_than_the_limit():
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


def test_error_while_reading_is_raised_at_its_row_and_closing_ends_the_thread():
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
    assert not [t for t in threading.enumerate() if t.name.startswith("read-ahead")]


def test_rows_are_written_in_order_while_the_next_is_made():
    written: list[int] = []
    next_made = threading.Event()

    def write(row: int) -> None:
        if row == 0:
            assert next_made.wait(10)  # only the making of the next row sets it: both are under way
        written.append(row)

    def rows() -> Iterator[int]:
        yield 0
        next_made.set()
        yield from range(1, 5)

    write_behind(write, rows())
    assert written == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, ValueError])
def test_interruption_leaves_a_begun_row_written_whole(interrupt):
    written: list[int] = []
    writing = threading.Event()

    def write(row: int) -> None:
        writing.set()
        time.sleep(0.05)
        written.append(row)

    def rows() -> Iterator[int]:
        yield 0
        assert writing.wait(10)
        raise interrupt

    with pytest.raises(interrupt):
        write_behind(write, rows())
    assert written == [0]


def test_row_that_cannot_be_written_stops_the_others():
    made = []

    def rows() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    def refuse(row: int) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk"):
        write_behind(refuse, rows())
    assert len(made) <= 2
