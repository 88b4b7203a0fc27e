"""Files are written whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cxr_compare.data_prep.contracts.atomic_files import (
    atomic_path,
    remove_old_temporary_files,
    temporary_path,
)

ROOT = Path(__file__).resolve().parents[3]


def test_interrupted_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "table"
    path.write_text("old")

    def write_and_stop() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_with_one_process_number_write_different_temporary_files(tmp_path):
    """Two containers count their processes from 1."""
    with atomic_path(tmp_path / "table") as first, atomic_path(tmp_path / "table") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "table").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_only_old_temporary_files_of_a_shared_folder_are_removed(tmp_path):
    old = temporary_path(tmp_path / "a.png")
    new = temporary_path(tmp_path / "b.png")
    for path, age_s in ((old, 7200), (new, 60)):
        path.touch()
        modified = path.stat().st_mtime - age_s
        os.utime(path, (modified, modified))
    remove_old_temporary_files(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


def test_file_above_the_size_limit_is_an_input_error_that_names_the_file(tmp_path):
    program = (
        "import resource, sys; from pathlib import Path;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024));"
        "from cxr_compare.data_prep.contracts.atomic_files import write_text;"
        "from cxr_compare.data_prep.contracts.errors import InputError\n"
        "try: write_text(Path(sys.argv[1]), 'x' * 5000)\n"
        "except InputError as error: print(error)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "table.csv")]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert result.stdout.startswith(f"{tmp_path / 'table.csv'}: ")
    assert list(tmp_path.iterdir()) == []
