"""The folder of a Ray that a command starts on this machine."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cxr_compare.data_prep.work.ray_cluster import scratch_folder

ROOT = Path(__file__).resolve().parents[3]
# As Ray 2 names it, with the longest process number.
PLASMA_STORE = "session_2026-11-25_06-19-40_734526_4194304/sockets/plasma_store"


@pytest.mark.parametrize("length", [6, 20, 25, 26, 27, 30, 39, 40, 60, 90])
def test_ray_can_make_its_sockets_whatever_the_length_of_tmpdir(length, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as short:
        parent = Path(short)
        if length > len(short):
            parent = Path(f"{short}/{'x' * (length - len(short) - 1)}")
            parent.mkdir(exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(parent))
        with scratch_folder() as scratch, socket.socket(socket.AF_UNIX) as listener:
            path = Path(scratch, PLASMA_STORE)
            path.parent.mkdir(parents=True)
            listener.bind(str(path))
        assert not Path(scratch).exists()


def test_tmpdir_is_used_where_its_path_is_short(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        with scratch_folder() as scratch:
            assert Path(scratch).parent == Path(short)


def test_folder_of_a_killed_process_is_removed_and_that_of_a_running_one_stays(tmp_path):
    program = (
        "import os, sys\n"
        "from cxr_compare.data_prep.work.ray_cluster import scratch_folder\n"
        "with scratch_folder() as folder:\n"
        "    print(folder, flush=True)\n"
        "    if sys.stdin.read() == 'die':\n"
        "        os.kill(os.getpid(), 9)\n"
    )

    def begin() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "TMPDIR": str(tmp_path)},  # too long: the folder lies in /tmp
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    killed, abandoned = begin()
    killed.communicate("die")
    assert abandoned.is_dir()
    first, used_by_first = begin()
    assert not abandoned.exists()
    second, used_by_second = begin()
    assert used_by_first.is_dir()
    for process in (first, second):
        process.communicate("end")
    assert not used_by_first.exists()
    assert not used_by_second.exists()
