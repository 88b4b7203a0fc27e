"""Rows are worked on in processes: in order, lazily, and in spite of crashes."""

import operator
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from data_prep.contracts.workers import map_rows

ROOT = Path(__file__).resolve().parents[3]


def test_order_is_kept_and_rows_are_read_lazily() -> None:
    taken = []

    def rows() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield -number

    answers = map_rows(abs, rows(), workers=2, lost=lambda row: -1)
    assert next(answers) == 0
    assert len(taken) <= 9
    assert list(answers) == list(range(1, 100))


def test_row_that_ends_its_process_costs_that_row_only() -> None:
    # Workers cannot import a test module, so the rows themselves say what to do; leaving the
    # process at once is what a crash in a decoder written in C does.
    rows = [partial(int, n) if n != 5 else partial(os._exit, 1) for n in range(12)]
    answers = list(map_rows(operator.call, rows, workers=2, lost=lambda row: -1))
    assert answers == [0, 1, 2, 3, 4, -1, 6, 7, 8, 9, 10, 11]


def test_programming_error_in_a_worker_is_not_hidden() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(map_rows(int, ["1", "x", "3"], workers=2, lost=lambda row: -1))


def test_a_folder_that_is_called_like_a_module_ends_no_worker(tmp_path: Path) -> None:
    (tmp_path / "pydicom").mkdir()
    (tmp_path / "pydicom" / "__init__.py").write_text("raise SystemExit('the wrong pydicom')")
    code = (
        f"import sys; sys.path[0] = {str(ROOT)!r}\n"  # as an installed command: not this folder
        "from data_prep.contracts.workers import map_rows\n"
        "print(list(map_rows(abs, [-2, -1], workers=2, lost=lambda row: None)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[2, 1]\n"), done.stderr
