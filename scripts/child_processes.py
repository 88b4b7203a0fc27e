"""`cxr` commands that another command runs as child processes.

Each child is a process with its own GPUs or its share of the processors, and its output goes to a
file. If one fails, the others continue. If the parent command ends, all of them end.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts import console
from cxr_compare.scripts.runtime import choose_device, runs_on_gpu
from cxr_compare.training.processes import GRACE
from cxr_compare.training.rank import Rank

MOST_FAILURES = 5  # failures in a row, after which the cause is not a single command
_POLL = 0.2  # seconds
_GRACE = 60.0  # seconds that a command has to end after Ctrl-C
_REPORT_GRACE = GRACE / 3  # seconds: the first process may be about to report the same error
_SAID = "cxr: "
_PARENT = "CXR_ENDS_WITH"
_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_INTERRUPTED = 130
_TERMINATED = 143


class Command(NamedTuple):
    """A `cxr` command to run in a process of its own, with the file for its output.

    Attributes:
        name: Name for messages, which differs from those of all commands that run at the same time.
        words: Words of the command line without ``cxr``, such as ``["train", "retinanet"]``.
        log: File to which the output is added. Its folder exists.
    """

    name: str
    words: Sequence[str]
    log: Path


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


class Machines(Protocol):
    """Interface of objects that run `cxr` commands: on this machine, or on those of a cluster."""

    @property
    def jobs(self) -> int:
        """Number of commands that run at the same time."""

    def start(self, command: Command, slot: int) -> Child:
        """Start a command in a free slot.

        There are as many slots as commands may run at the same time. A slot stands for the GPUs or
        processors that its command gets.

        Args:
            command: Command with its log file.
            slot: Number of the slot, from 0.

        Returns:
            The running command.
        """


class ThisMachine(NamedTuple):
    """Runner of `cxr` commands on this machine, a fixed number of them at the same time.

    A slot stands for the GPUs or processors that a running command gets.

    Attributes:
        environments: Environment variables of each slot. As many commands run at the same time as
            there are slots.
    """

    environments: Sequence[Mapping[str, str]]

    @property
    def jobs(self) -> int:
        """Number of commands that run at the same time."""
        return len(self.environments)

    def start(self, command: Command, slot: int) -> Child:
        """Start a command on this machine.

        Args:
            command: Command with its log file.
            slot: Number of the slot, from 0, which chooses the environment variables.

        Returns:
            The running command.
        """
        with command.log.open("ab") as output:
            return _Process(start(command.words, self.environments[slot], output))


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


class Running:
    """A `cxr` command that was started, and may have ended.

    Args:
        command: Command with its log file.
        child: Process of the command.

    Attributes:
        command: Command with its log file.
        child: Process of the command.
        status: Exit status as `has_ended` last read it; None while the command runs.
    """

    def __init__(self, command: Command, child: Child) -> None:
        self.command = command
        self.child = child
        self.status: int | None = None  # exit status; None while the command runs

    def has_ended(self) -> bool:
        """Return True if the command has ended, and store its exit status in `status`."""
        self.status = self.child.poll()
        return self.status is not None

    def problem(self) -> str | None:
        """Return the reason why the command failed, or None if it succeeded. It must have ended.

        The reason is the last line that the command wrote, if it wrote any.

        Raises:
            KeyboardInterrupt: The command was interrupted, so all commands are to end.
            InputError: The disk is full, so that the other commands would fail as well.
        """
        status = self.status or 0
        if status in (_TERMINATED, -signal.SIGTERM):  # as when a machine goes down
            raise KeyboardInterrupt
        problem = problem_of_status(status)
        if problem is None or status < 0:
            return problem
        lines = self.command.log.read_text(encoding="utf-8", errors="replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), problem)
        if status == InputError.status:
            raise InputError(said.removeprefix(_SAID), full_disk=True)
        return said.removeprefix(_SAID)


def run_commands(
    commands: Iterable[Command],
    machines: Machines,
    *,
    ended: Callable[[Running], bool],
) -> None:
    """Run several `cxr` commands, as many at a time as the machines allow, until all have ended.

    To continue an interrupted call, call the function again without the commands that have ended:
    each command, such as `cxr train`, continues its own work. After five failures in a row no
    further command is started.

    Args:
        commands: Commands to run, in this order.
        machines: Object that starts the commands, such as `ThisMachine`.
        ended: Function that is called with each command that has ended, before the next one is
            started. It returns True if the command failed.

    Raises:
        KeyboardInterrupt: The user interrupted, or one command was interrupted. All commands have
            then been interrupted.
    """
    coming = iter(commands)
    running: dict[int, Running] = {}
    failures = 0
    try:
        while True:
            for slot in (slot for slot in range(machines.jobs) if slot not in running):
                if failures < MOST_FAILURES and (command := next(coming, None)) is not None:
                    running[slot] = Running(command, machines.start(command, slot))
            if not running:
                return
            time.sleep(_POLL)
            for slot, run in [*running.items()]:
                if run.has_ended():
                    del running[slot]
                    failures = failures + 1 if ended(run) else 0
    finally:
        _end([run.child for run in running.values()])


def _end(children: Sequence[Child]) -> None:
    """Interrupt what is still under way; a training keeps its last whole epoch."""
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


def problem_of_status(status: int) -> str | None:
    """Return what the exit status of a `cxr` command means; None for success.

    Args:
        status: Exit status of the process; negative if a signal ended it.

    Raises:
        KeyboardInterrupt: The command was interrupted (status 130).

    Example:
        >>> problem_of_status(2), problem_of_status(-9)
        ('failed with status 2', 'ended by SIGKILL, perhaps for want of memory')
    """
    if status == _INTERRUPTED:
        raise KeyboardInterrupt
    if status == _TERMINATED:  # by its own exit status, or by the system's
        status = -signal.SIGTERM
    if status < 0:
        name = signal.Signals(-status).name
        return f"ended by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    return f"failed with status {status}" if status else None


def share_devices(device: str, devices: int, jobs: int) -> list[dict[str, str]]:
    """Return environment variables that divide the devices of this machine among commands.

    The commands, such as the trainings of a curve, run at the same time.

    Args:
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
        devices: Number of GPUs for each command.
        jobs: Number of commands that run at the same time.

    Returns:
        One mapping of environment variables for each of the `jobs` commands, such as
        ``{"CUDA_VISIBLE_DEVICES": "0"}``.

    Raises:
        InputError: The device does not exist, or the machine has too few GPUs.
    """
    if not runs_on_gpu(device):
        if device not in ("auto", "cpu"):
            choose_device(device, devices)  # raises the error
        if jobs == 1:
            return [{}]
        from cxr_compare.data_prep.contracts.processors import cpu_count

        threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cpu_count() // jobs)))
        return [{"OMP_NUM_THREADS": threads}] * jobs
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
    return [{"CUDA_VISIBLE_DEVICES": gpus} for gpus in share_gpus(names, devices, jobs)]


def share_gpus(names: Sequence[str], devices: int, jobs: int) -> list[str]:
    """Choose the GPUs that each of several commands may use.

    Several commands share one GPU only if each of them takes a single one.

    Args:
        names: Names of the GPUs of this machine.
        devices: Number of GPUs for each command.
        jobs: Number of commands that run at the same time.

    Returns:
        Values of the environment variable ``CUDA_VISIBLE_DEVICES``, one for each command.

    Raises:
        InputError: There are too few GPUs.

    Example:
        >>> share_gpus(["0", "1", "2", "3"], devices=2, jobs=2)
        ['0,1', '2,3']
        >>> share_gpus(["0"], devices=1, jobs=2)
        ['0', '0']
    """
    if devices == 1:
        return [names[job % len(names)] for job in range(jobs)]
    if jobs * devices > len(names):
        raise InputError(
            f"--jobs {jobs} with --devices {devices} need {jobs * devices} GPUs, torch finds "
            f"{len(names)}; lower one of them"
        )
    return [",".join(names[job * devices : (job + 1) * devices]) for job in range(jobs)]


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
            _end(children)
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
