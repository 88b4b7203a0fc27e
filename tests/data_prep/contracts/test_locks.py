"""A file or folder has one writer at a time, and killed writers leave nothing behind."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from cxr_compare.data_prep.contracts.atomic_files import temporary_path
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import folder_lock


def _try_to_lock(folder: Path, answers: multiprocessing.Queue) -> None:
    try:
        with folder_lock(folder):
            answers.put("locked")
    except InputError:
        answers.put("refused")


def test_second_writer_is_refused_and_the_lock_file_is_removed_afterwards(tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with folder_lock(tmp_path):
        second = context.Process(target=_try_to_lock, args=(tmp_path, answers))
        second.start()
        assert answers.get(timeout=300) == "refused"
        second.join()
    with folder_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def _wait_for_lock(folder: Path, answers: multiprocessing.Queue) -> None:
    with folder_lock(folder, lambda: answers.put("waits")):
        # Without the file, a third writer would see no lock and write as well.
        assert (folder / ".lock").exists()
        answers.put((folder / "made").read_text())


def test_waiting_writers_find_what_the_first_one_made(tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    writers = [
        context.Process(target=_wait_for_lock, args=(tmp_path / "set", answers)) for _ in range(2)
    ]
    with folder_lock(tmp_path / "set"):
        for writer in writers:
            writer.start()
        assert [answers.get(timeout=300) for _ in writers] == ["waits"] * 2
        (tmp_path / "set" / "made").write_text("whole")
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [answers.get(timeout=300) for _ in writers] == ["whole"] * 2
    assert not (tmp_path / "set" / ".lock").exists()


def test_new_folder_in_which_nothing_was_written_is_removed(tmp_path):
    with pytest.raises(InputError), folder_lock(tmp_path / "new"):
        raise InputError("refused")
    (tmp_path / "old").mkdir()
    with pytest.raises(InputError), folder_lock(tmp_path / "old"):
        raise InputError("refused")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def _number_of_an_ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_next_writer_removes_half_written_files_of_a_killed_one(tmp_path):
    name = f".a.png.{_number_of_an_ended_process()}-0123abcd.tmp"
    of_killed_process = tmp_path / "overlays" / name
    of_running_process = temporary_path(tmp_path / "table")
    in_locked_folder = tmp_path / "trial" / name
    of_user = tmp_path / ".notes.tmp"
    lock = tmp_path / "trial" / ".lock"
    for path in (of_killed_process, of_running_process, in_locked_folder, lock, of_user):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with folder_lock(tmp_path):
        pass
    assert not of_killed_process.exists()
    assert of_running_process.exists()
    assert in_locked_folder.exists()
    assert of_user.exists()
