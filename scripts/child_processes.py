"""`cxr` commands that another command runs as child processes.

If the parent command ends, all of its children end.

`cxr train --devices N` starts one process for each device of this machine, sets the environment
variables of torchrun, and watches the processes. All run the same command. The first process writes
the run folder and prints to the terminal. The output of the others is kept in a file, and is shown
only if one of them fails first.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import IO, Protocol

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts import console
from cxr_compare.training.processes import GRACE
from cxr_compare.training.rank import Rank

_POLL = 0.2  # seconds
_GRACE = 60.0  # seconds that a command has to end after Ctrl-C
_REPORT_GRACE = GRACE / 3  # seconds: the first process may be about to report the same error
_SAID = "cxr: "
_PARENT = "CXR_ENDS_WITH"
_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_INTERRUPTED = 130
_TERMINATED = 143


class Child(Protocol):
    """The process of a `cxr` command, on this machine or on another one."""

    def poll(self) -> int | None:
        """Return the exit status of the command; None while it runs."""

    def interrupt(self) -> None:
        """Ask the command to end, as Ctrl-C does."""

    def wait(self, seconds: float) -> None:
        """Wait until the process ends, or until a time is over.

        Args:
            seconds: Longest waiting time, seconds.
        """

    def kill(self) -> None:
        """Kill the process of the command if it has not ended."""


class _Process:
    """A process of this machine."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def poll(self) -> int | None:
        return self._process.poll()

    def interrupt(self) -> None:
        interrupt(self._process)

    def wait(self, seconds: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def end_children(children: Sequence[Child]) -> None:
    """Interrupt the commands that have not ended; a training keeps its last whole epoch.

    Args:
        children: Processes of commands. One that has not ended in a minute is killed.
    """
    until = time.monotonic() + _GRACE
    try:
        for child in children:
            child.interrupt()
        for child in children:
            child.wait(max(until - time.monotonic(), 0.0))
    finally:
        for child in children:
            child.kill()


def start(
    words: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Start a `cxr` command as a process that ends if this process ends.

    Args:
        words: Words of the command line after ``cxr``.
        environment: Environment variables of the new process, added to those of this one.
        output: File for the output of the process. None lets it write to this terminal.

    Returns:
        The running process.
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


def start_child(words: Sequence[str], environment: Mapping[str, str], output: IO[bytes]) -> Child:
    """Start a `cxr` command on this machine as a child; see `start`."""
    return _Process(start(words, environment, output))


def follow_parent() -> bool:
    """Let this process end when the `cxr` command that started it ends.

    Returns:
        True if a `cxr` command started this process, False if a user did.

    Raises:
        KeyboardInterrupt: The command that started this process has already ended.
    """
    parent = os.environ.pop(_PARENT, None)  # not for the processes that this one starts
    if parent is not None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # the parent has ended before
            raise KeyboardInterrupt
    return parent is not None


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ask a `cxr` command to end, as Ctrl-C or SIGTERM does.

    Args:
        process: Process of the command.
    """
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # in a background job; there, too
    process.send_signal(signal.SIGTERM if ignored else signal.SIGINT)


def own_rank(devices: int) -> Rank | None:
    """Return the rank of this process (its number and address) among those of one training.

    It is read from the environment variables of a launcher, such as torchrun or SLURM.

    Args:
        devices: Number of processes that the user requested with ``--devices``; 1 by default.

    Returns:
        The rank; None if this process trains alone.

    Raises:
        InputError: `devices` is neither 1 nor the number of processes that the launcher has
            started, or the launcher's variables are incomplete or contradict each other.
    """
    rank = Rank.from_environment(os.environ)
    if rank is None:
        tasks = os.environ.get("SLURM_NTASKS", "1")
        if tasks not in ("1", str(devices)) and "SLURM_STEP_NUM_TASKS" not in os.environ:
            console.say(
                f"note: this SLURM job has {tasks} tasks, and one of them trains; start it with "
                "srun to use them all"
            )
        return None
    if devices not in (1, rank.world_size):
        raise InputError(
            f"--devices {devices}: {rank.launcher} has started {rank.world_size} processes; "
            "leave --devices out"
        )
    return rank


def run_on_devices(arguments: Sequence[str], devices: int) -> int:
    """Run one `cxr` command in several processes that form one training.

    Args:
        arguments: Words of the command line after ``cxr``.
        devices: Number of processes, one for each device.

    Returns:
        The exit status of the command.

    Raises:
        InputError: The command failed, and messages are switched off here; the message holds its
            error.
    """
    port = free_port()
    silent = console.is_silent()
    with ExitStack() as stack:
        logs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(devices)]
        shown = [None if rank == 0 and not silent else log for rank, log in enumerate(logs)]
        processes = [
            start(arguments, _environment(rank, devices, port), log)
            for rank, log in enumerate(shown)
        ]
        children = [_Process(process) for process in processes]
        try:
            status, error = wait_for_processes(processes, logs)
            if status and silent:
                raise InputError((error or _last_error_line(logs[0])).removeprefix(_SAID))
            if error:
                console.say(error)
            return status
        except KeyboardInterrupt:
            end_children(children)
            if (ended := processes[0].poll()) in (_INTERRUPTED, _TERMINATED):
                return int(ended or 0)  # the first process has reported the interruption
            raise
        finally:
            for child in children:
                child.kill()


def _environment(rank: int, devices: int, port: int) -> dict[str, str]:
    return {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        InputError.variable: os.environ.get(InputError.variable, "2"),  # their status is ours
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(devices),
        "LOCAL_WORLD_SIZE": str(devices),
    }


def free_port() -> int:
    """Return the number of a TCP port of this machine that no process uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_processes(
    processes: list[subprocess.Popen[bytes]], logs: Sequence[IO[bytes]]
) -> tuple[int, str]:
    """Wait for the processes of one training, and return their exit status and an error text.

    If one process fails, the function does not wait for the others; the caller ends them.

    Args:
        processes: Processes of the training; the first one reports errors that all have.
        logs: Open log file of each process.

    Returns:
        The exit status of the training (0 if all processes succeeded), and the error of the process
        that failed first. The text is empty if all succeeded, or if the first process has printed
        it.
    """
    while True:
        codes = [process.poll() for process in processes]
        failed = next((rank for rank, code in enumerate(codes) if code), None)
        if failed is not None:
            break
        if all(code == 0 for code in codes):
            return 0, ""
        time.sleep(_POLL)
    if failed:
        with suppress(subprocess.TimeoutExpired):
            processes[0].wait(_REPORT_GRACE)
            failed = 0
    code = processes[failed].returncode
    if code < 0:
        # Where memory runs out, the system sends signal 9, and the process cannot report it.
        line = f"cxr: process {failed + 1} of {len(processes)} was ended by signal {-code}"
        if code == -signal.SIGKILL:
            line += " (out of memory? try a smaller training.batch_size)"
        return 2, f"{line}; run the same command again to go on"
    return int(code), _last_error_line(logs[failed]) if failed else ""


def _last_error_line(log: IO[bytes]) -> str:
    """Return the last error line that a process wrote; all lines where there is none."""
    log.seek(0)
    text = log.read().decode(errors="replace").strip()
    lines = [line for line in text.splitlines() if line.startswith(_SAID)]
    return lines[-1] if lines else text
