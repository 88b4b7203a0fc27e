"""A forked command behaves as one that was started: its words, files, output, children and end."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from cxr_compare.data_prep.contracts.locks import LockFile
from cxr_compare.scripts import child_processes
from tests.scripts.launched import wait_until
from tools.attacks.forked import ForkedCommand, adopt_orphans, orphans

pytestmark = pytest.mark.release  # as the attacks that use it


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Put a function into the place of the program."""
    return lambda main: monkeypatch.setattr("cxr_compare.scripts.cli.main", main)


def test_words_environment_output_and_status_are_its_own(become):
    def main() -> None:
        os.write(2, f"{sys.argv} {dict(os.environ)}".encode())
        sys.exit(2)

    become(main)
    command = ForkedCommand(["predict", "run"], {"ONLY": "this"})
    _, printed = command.communicate(timeout=60)
    assert command.returncode == 2
    assert printed.decode() == "['cxr', 'predict', 'run'] {'ONLY': 'this'}"


def test_a_lock_of_the_process_that_forked_it_is_not_held(become, tmp_path):
    become(lambda: time.sleep(60))
    with closing(LockFile(tmp_path / ".lock", None)):
        command = ForkedCommand([], {})
    with closing(LockFile(tmp_path / ".lock", None)):  # refused if the command held it
        assert command.poll() is None
    command.kill()
    command.communicate(60)
    assert command.returncode == -signal.SIGKILL


@pytest.mark.parametrize("follows", [True, False])
def test_what_outlives_a_killed_command_is_found(become, tmp_path, follows):
    def main() -> None:
        if sys.argv[1] == "train":
            if follows:
                child_processes.follow_parent()
            Path(sys.argv[2]).write_text(str(os.getpid()))
        else:
            child_processes.start(["train", sys.argv[2]], {})
        time.sleep(60)

    become(main)
    adopt_orphans()
    told = tmp_path / "number"
    command = ForkedCommand(["curve", str(told)], {})
    wait_until(lambda: told.is_file() and told.read_text(), 60)
    child = int(told.read_text())
    command.kill()
    command.communicate(60)
    try:
        if follows:
            wait_until(lambda: child not in orphans(), 60)
        else:
            assert child in orphans()
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        orphans()  # reaps it
