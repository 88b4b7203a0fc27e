"""`cxr` commands that another command runs as child processes.

If the parent command ends, all of its children end.

`cxr train --devices N` lets torchrun's launcher start one process for each device of this machine.
All run the same command. The first process writes the run folder and prints to the terminal.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts import console

_POLL = 0.2  # seconds
_GRACE = 60.0  # seconds that a command has to end after Ctrl-C
_SAID = "cxr: "
_PARENT = "CXR_ENDS_WITH"
_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_INTERRUPTED = 130


def start(
    words: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Start a `cxr` command as a process that ends if this process ends.

    `words` follow ``cxr`` on the command line. The environment variables are added to those of this
    process. Without `output` the process writes to this terminal.
    """
    told = {_PARENT: str(os.getpid()), InputError.variable: str(InputError.status)}
    return subprocess.Popen(  # noqa: S603  our own command
        [sys.executable, "-P", "-m", "cxr_compare.scripts.cli", *words],
        env={**os.environ, **told, **environment},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        process_group=0,  # Ctrl-C comes to the parent alone, which passes it on once
    )


def follow_parent() -> bool:
    """Let this process end when the `cxr` command that started it ends.

    True if a `cxr` command started it, False if a user did. Raises KeyboardInterrupt if the command
    that started it has already ended.
    """
    parent = os.environ.pop(_PARENT, None)  # not for the processes that this one starts
    if parent is not None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # the parent has ended before
            raise KeyboardInterrupt
    return parent is not None


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ask a `cxr` command to end, as Ctrl-C or SIGTERM does."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # in a background job; there, too
    process.send_signal(signal.SIGTERM if ignored else signal.SIGINT)


def run_on_devices(words: Sequence[str], devices: int) -> None:
    """Run one `cxr` command in several processes of this machine that form one training.

    torchrun's launcher starts and watches them: if one fails, the others end. The first process
    speaks; what the others write is shown only where one of them fails first.

    `words` follow ``cxr`` on the command line. Raises InputError with the last line of a process
    that failed, and KeyboardInterrupt if the user interrupted.
    """
    from torch.distributed.elastic.multiprocessing.api import (
        DefaultLogsSpecs,
        SignalException,
        Std,
    )
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed.elastic", "torch.distributed.launcher"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    hidden = range(devices) if console.is_silent() else range(1, devices)
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            run_id=Path(folder).name,
            max_restarts=0,
            monitor_interval=_POLL,
            logs_specs=DefaultLogsSpecs(folder, redirects=dict.fromkeys(hidden, Std.ALL)),
        )
        arguments = ["-P", "-m", "cxr_compare.scripts.cli", *words]
        with _environment(PYTHONPATH=os.pathsep.join(path for path in sys.path if path)):
            try:
                elastic_launch(config, sys.executable)(*arguments)
            except SignalException:
                raise KeyboardInterrupt from None
            except ChildFailedError as error:
                rank, failure = error.get_first_failure()
                raise _failure(rank, failure.exitcode, devices, Path(folder)) from None


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables, which processes that are started in the block get."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _failure(rank: int, status: int, devices: int, logs: Path) -> BaseException:
    """Return what the first process that failed has said, as an error of this process."""
    if status == _INTERRUPTED:
        return KeyboardInterrupt()
    if status < 0:
        # Where memory runs out, the system sends signal 9, and the process cannot report it.
        reason = " (out of memory? try a smaller training.batch_size)"
        return InputError(
            f"process {rank + 1} of {devices} was ended by signal {-status}"
            f"{reason if status == -signal.SIGKILL else ''}; run the same command again to go on"
        )
    lines = []
    for log in logs.glob(f"**/{rank}/stderr.log"):
        lines = [line for line in log.read_text(errors="replace").splitlines() if line]
    if not lines:  # the first process has said it on this terminal
        return SystemExit(status)
    said = [line for line in lines if line.startswith(_SAID)] or lines
    return InputError(said[-1].removeprefix(_SAID))


def free_port() -> int:
    """Return the number of a TCP port of this machine that no process uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
