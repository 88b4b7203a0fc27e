"""Folders others may read at any time: whole files, one writer."""

import errno
import multiprocessing
import os
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest

from cxr_compare.data_prep.contracts import folders
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.folders import (
    asked_as,
    atomic_path,
    disk_errors,
    file_lock,
    folder_lock,
    make_folder,
    provenance,
    remove_old_unfinished,
    remove_traces,
    require_free_space,
    temporary_beside,
    whole_folder,
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


def _full(*names: str | None) -> OSError:
    return OSError(errno.ENOSPC, "No space left on device", names[0], None, *names[1:])


@pytest.mark.parametrize(
    ("places", "error", "named"),
    [
        (["table"], _full(None), "table"),
        (["table"], _full("x/.table.1.tmp"), "table"),  # one place: what the caller calls it
        (["out", "home"], _full(None), "out"),  # neither is full any more: the output
        (["out", "home"], _full("home/cache"), "home/cache"),
        (["out", "home"], _full("in/a.png", "out/a.png"), "out/a.png"),  # copied: where to
    ],
)
def test_full_disk_is_one_line_that_names_the_place_and_what_is_free(
    tmp_path, places, error, named
):
    says = rf"^{named}: No space .*iB free\)"
    with chdir(tmp_path), pytest.raises(InputError, match=says), disk_errors(*map(Path, places)):
        raise error


def test_of_several_places_the_full_one_is_named(tmp_path, monkeypatch):
    free = {"out": 1 << 30, "home": 4096}
    monkeypatch.setattr(folders, "_free_bytes", lambda place: free[place.name])
    says = r"home: No space left on device \(4 KiB free\)"
    with pytest.raises(InputError, match=says), disk_errors(tmp_path / "out", tmp_path / "home"):
        raise _full(None)


def test_work_that_cannot_fit_is_refused_before_it_starts(tmp_path, monkeypatch):
    require_free_space(tmp_path / "not" / "yet", 1)
    monkeypatch.setattr(folders, "_free_bytes", lambda place: 12_800)
    with pytest.raises(
        InputError, match=r"about 13 KiB, 12.5 KiB are free .*; free 512 bytes more"
    ):
        require_free_space(tmp_path, 13 << 10)


def test_only_what_dead_processes_left_of_a_folder_is_removed(tmp_path):
    left, living = tmp_path / ".out.1.tmp", tmp_path / ".out.2.tmp"
    left.mkdir()
    (left / "model.onnx").touch()
    with folder_lock(living):
        (living / "model.onnx").touch()
        with whole_folder(tmp_path / "out") as folder:
            (folder / "model.onnx").write_text("new")
        assert (living / "model.onnx").exists()
    assert not left.exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]


def test_temporary_files_of_a_killed_process_go_with_the_next(tmp_path):
    program = (
        "import multiprocessing.util, os; from cxr_compare.data_prep.contracts import folders;"
        "folders.own_temporary_files(); print(multiprocessing.util.get_temp_dir());"
    )

    def made(then: str) -> Path:
        words = [sys.executable, "-c", program + then]
        kept = {**os.environ, "TMPDIR": str(tmp_path)}
        run = subprocess.run(words, env=kept, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        return Path(run.stdout.strip())

    killed = made("import sys; sys.stdout.flush(); os.kill(os.getpid(), 9)")
    assert killed.parent.parent == tmp_path
    assert killed.is_dir()
    assert not made("").exists()
    assert list(tmp_path.iterdir()) == []


def _try_to_lock(folder: Path, answers: multiprocessing.Queue) -> None:
    try:
        with folder_lock(folder):
            answers.put("held")
    except InputError as error:
        answers.put(str(error))


def test_second_writer_is_refused_and_the_lock_goes_afterwards(tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with folder_lock(tmp_path):
        second = context.Process(target=_try_to_lock, args=(tmp_path, answers))
        second.start()
        assert "another cxr is writing here" in answers.get(timeout=300)
        second.join()
    with folder_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def _wait_for_lock(folder: Path, answers: multiprocessing.Queue) -> None:
    with folder_lock(folder, lambda: answers.put("waits")):
        # Else a third writer would see no lock, and write as well.
        assert (folder / ".lock").exists()
        answers.put((folder / "made").read_text())


def test_a_writer_may_wait_and_finds_what_the_other_made(tmp_path):
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


def test_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        make_folder(tmp_path / "out" / "inner")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="this machine has no /proc")
def test_place_that_takes_no_folders_is_one_line_that_says_so():
    with pytest.raises(InputError, match=r"^/proc/cxr: no folder can be made there; choose"):
        make_folder(Path("/proc/cxr"))


def test_provenance_names_versions_and_command():
    facts = provenance()
    assert {"python", "numpy", "pydicom"} <= set(facts["versions"])
    assert facts["command"].split()[0] == "cxr"


def test_a_recorded_command_names_no_folder_of_the_machine():
    given = "cxr compare 'A=/home/ann lee/a,/b c/d' --data /data/set --out s3://bucket/x"
    with asked_as(given):
        assert provenance()["command"] == "cxr compare A=a,d --data set --out s3://bucket/x"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_provenance_names_the_revision_of_the_checkout():
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert str(provenance()["revision"]).removesuffix("-dirty").endswith(head)


def test_folder_made_for_work_that_wrote_nothing_goes_again(tmp_path):
    with pytest.raises(InputError), folder_lock(tmp_path / "new"):
        raise InputError("refused")
    (tmp_path / "old").mkdir()
    with pytest.raises(InputError), folder_lock(tmp_path / "old"):
        raise InputError("refused")
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


def test_a_folder_that_another_made_meanwhile_stays_as_it_is(tmp_path):
    out = tmp_path / "export"

    def make_after_the_other() -> None:
        with whole_folder(out):
            out.mkdir()
            (out / "model").write_text("the other's")

    with pytest.raises(InputError, match="another command made it meanwhile"):
        make_after_the_other()
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert (out / "model").read_text() == "the other's"


def test_a_file_has_one_writer_and_others_in_its_folder_are_free(tmp_path):
    with file_lock(tmp_path / "a.csv"):
        with (
            pytest.raises(InputError, match=r"a\.csv: another cxr is writing here"),
            file_lock(tmp_path / "a.csv"),
        ):
            pass
        with file_lock(tmp_path / "b.csv"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_process_number_have_temporary_files_of_their_own(tmp_path):
    """Two containers count their processes from 1."""
    with atomic_path(tmp_path / "table") as first, atomic_path(tmp_path / "table") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "table").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def _ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_next_writer_removes_what_a_killed_one_left_half_written(tmp_path):
    left = tmp_path / "overlays" / f".a.png.{_ended_process()}-0123abcd.tmp"
    of_living = temporary_beside(tmp_path / "table")
    of_another_writer = tmp_path / "trial" / left.name
    users_own = tmp_path / ".notes.tmp"
    for path in (left, of_living, of_another_writer, tmp_path / "trial" / ".lock", users_own):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with folder_lock(tmp_path):
        pass
    assert not left.exists()
    assert of_living.exists()
    assert of_another_writer.exists()
    assert users_own.exists()


def test_a_lock_file_without_a_process_goes_from_a_finished_folder(tmp_path):
    (tmp_path / ".lock").touch()
    remove_traces(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with folder_lock(tmp_path):
        remove_traces(tmp_path)
        assert (tmp_path / ".lock").exists()


def test_unfinished_files_of_a_shared_folder_go_when_they_are_old(tmp_path):
    old, new = temporary_beside(tmp_path / "a.png"), temporary_beside(tmp_path / "b.png")
    for path, age_s in ((old, 7200), (new, 60)):
        path.touch()
        os.utime(path, (path.stat().st_mtime - age_s,) * 2)
    remove_old_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


def test_a_limit_of_file_sizes_is_one_line_that_names_the_file(tmp_path):
    program = (
        "import resource, sys; from pathlib import Path;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024));"
        "from cxr_compare.data_prep.contracts.folders import write_text;"
        "from cxr_compare.data_prep.contracts.errors import InputError\n"
        "try: write_text(Path(sys.argv[1]), 'x' * 5000)\n"
        "except InputError as error: print(error)"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "table.csv")]
    run = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert run.stdout.startswith(f"{tmp_path / 'table.csv'}: File too large")
    assert "ulimit -f" in run.stdout
    assert list(tmp_path.iterdir()) == []
