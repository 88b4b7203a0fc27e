"""Commands that are forked from a process which has imported everything, and so start at once.

A command of `cxr` imports torch for several seconds before it does anything. An attack that starts
a command a hundred times waits for little else. Here the commands, and the commands that they start
themselves, are forked. Nothing else differs: each has its own environment, its own output and its
own temporary folder, and holds no file of the process that it was forked from.
`call_in_new_process` makes such a process, which has started no thread.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.temporary_folders import use_private_temporary_folder
from cxr_compare.scripts import child_processes
from tests.scripts.launched import FORK_SERVER, below

_FORK = multiprocessing.get_context("fork")
_PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl.h
_POLL = 0.02  # s


class ForkedCommand:
    """A command under way, which is used as a `subprocess.Popen`.

    Attributes:
        returncode: Its exit status; None while it runs.
    """

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        output: IO[bytes] | None = None,
        *,
        own_group: bool = False,
    ) -> None:
        """Fork the command.

        `words` follow ``cxr`` on the command line. The environment is complete. `output` takes all
        that is printed; None keeps it for `communicate`.
        """
        self._printed = None
        if output is None:
            self._printed = output = tempfile.TemporaryFile()  # noqa: SIM115 - `communicate` does
        arguments = (list(words), dict(environment), output, own_group)
        self._process = _FORK.Process(target=_run, args=arguments)
        self._process.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """Exit status; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit status; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; the exit status.

        Raises subprocess.TimeoutExpired if it runs for longer than `timeout` seconds.
        """
        began = time.monotonic()
        # `Process.join` would also wait for the processes that the command has forked.
        while (status := self.poll()) is None:
            if timeout is not None and time.monotonic() - began > timeout:
                raise subprocess.TimeoutExpired("cxr", timeout)
            time.sleep(_POLL)
        return status

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Wait for the end; nothing, and all that it printed unless that went to a file."""
        self.wait(timeout)
        if self._printed is None:
            return b"", b""
        with self._printed as file:
            file.seek(0)
            return b"", file.read()

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, if it runs."""
        self.send_signal(signal.SIGKILL)


def call_in_new_process(function: Callable[..., object], *arguments: object) -> None:
    """Call a function in a process of its own, from which it may fork commands.

    Raises RuntimeError if the function raised an exception, which is printed to stderr.
    """
    process = FORK_SERVER.Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{function.__name__} failed with status {process.exitcode}")


def adopt_orphans() -> None:
    """Let processes whose parent was killed become children of this one, for `orphans`."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def orphans() -> list[int]:
    """Return the processes below this one that run although the command has ended."""
    left = []
    for process in below(os.getpid()):
        with suppress(ChildProcessError, OSError):
            if os.waitpid(process, os.WNOHANG)[0]:
                continue  # it had ended
        left.append(process)
    return left


def _start(
    words: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | None = None
) -> ForkedCommand:
    """Fork a command from a command, in place of `child_processes.start`."""
    told = {
        child_processes._PARENT: str(os.getpid()),
        InputError.variable: str(InputError.status),
    }
    variables = {**os.environ, **told, **environment}
    return ForkedCommand(words, variables, output, own_group=True)


def _run(words: list[str], environment: dict[str, str], output: IO[bytes], own_group: bool) -> None:
    """Become a command: everything below is what starting a new Python would have done."""
    if own_group:
        os.setpgid(0, 0)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    use_private_temporary_folder.cache_clear()
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    _close_files()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    child_processes.start = _start
    from cxr_compare.scripts.cli import main

    sys.argv = ["cxr", *words]
    main()


def _close_files() -> None:
    """Close the files of the process that this one was forked from, locks among them."""
    for path in Path("/proc/self/fd").iterdir():
        number = int(path.name)
        with suppress(OSError):  # the folder itself has just been closed
            if number > 2 and stat.S_ISREG(os.fstat(number).st_mode):
                os.close(number)
