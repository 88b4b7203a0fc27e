"""`cxr` commands that run as child processes, several at the same time.

Each command is a process with its own GPUs or its share of the processors, and its output goes to a
file. If one fails, the others continue. If the parent command ends, all of them end.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.child_processes import Child, end_children, start_child
from cxr_compare.scripts.command_frame import choose_device, runs_on_gpu

_MOST_FAILURES = 5  # failures in a row, after which the cause is not a single command
_POLL = 0.2  # seconds
_SAID = "cxr: "
_INTERRUPTED = 130
_TERMINATED = 143


class Command(NamedTuple):
    """A `cxr` command to run in a process of its own, with the file for its output.

    `name` differs from those of all commands that run at the same time. `words` are those of the
    command line without ``cxr``. The output is added to `log`, whose folder exists.
    """

    name: str
    words: Sequence[str]
    log: Path


class Machines(Protocol):
    """Interface of objects that run `cxr` commands: on this machine, or on those of a cluster."""

    @property
    def jobs(self) -> int:
        """Number of commands that run at the same time."""

    def start(self, command: Command, slot: int) -> Child:
        """Start a command in a free slot, counted from 0.

        There are as many slots as commands may run at the same time. A slot stands for the GPUs or
        processors that its command gets.
        """


class ThisMachine(NamedTuple):
    """Runner of `cxr` commands on this machine, a fixed number of them at the same time.

    As many run at the same time as there are `environments`: the environment variables of each
    slot.
    """

    environments: Sequence[Mapping[str, str]]

    @property
    def jobs(self) -> int:
        """Number of commands that run at the same time."""
        return len(self.environments)

    def start(self, command: Command, slot: int) -> Child:
        """Start a command on this machine with the environment variables of a slot."""
        with command.log.open("ab") as output:
            return start_child(command.words, self.environments[slot], output)


class Running:
    """A `cxr` command that was started, and may have ended.

    `status` is the exit status as `has_ended` last read it; None while the command runs.
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

        Raises KeyboardInterrupt if the command was interrupted, so that all commands are to end,
        and InputError if the disk is full, so that the others would fail as well.
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

    `ended` is called with each command that has ended, before the next one is started, and returns
    True if it failed. Raises KeyboardInterrupt if the user interrupted, or one command was
    interrupted; all commands have then been interrupted.
    """
    coming = iter(commands)
    running: dict[int, Running] = {}
    failures = 0
    try:
        while True:
            for slot in (slot for slot in range(machines.jobs) if slot not in running):
                if failures < _MOST_FAILURES and (command := next(coming, None)) is not None:
                    running[slot] = Running(command, machines.start(command, slot))
            if not running:
                return
            time.sleep(_POLL)
            for slot, run in [*running.items()]:
                if run.has_ended():
                    del running[slot]
                    failures = failures + 1 if ended(run) else 0
    finally:
        end_children([run.child for run in running.values()])


def problem_of_status(status: int) -> str | None:
    """Return what the exit status of a `cxr` command means; None for success.

    It is negative if a signal ended the process. Raises KeyboardInterrupt for 130 (interrupted).

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

    Each of the `jobs` commands gets `devices` GPUs, such as ``{"CUDA_VISIBLE_DEVICES": "0"}``.
    Raises InputError if the device does not exist, or the machine has too few GPUs.
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

    The results are values of ``CUDA_VISIBLE_DEVICES``. Raises InputError if there are too few GPUs.

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
