"""Machines that run `cxr` commands: processes of this machine, or a Ray cluster.

In a cluster each command is a child process of a Ray worker, which reserves its processors and
GPUs. If a worker or a machine dies, its command is started again elsewhere, and continues where it
was.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.work.map_images import Workers
from cxr_compare.data_prep.work.ray_cluster import CrashError, RayCluster
from cxr_compare.scripts.child_processes import Child, interrupt, start
from cxr_compare.studies.curve.child_commands import (
    Command,
    Machines,
    ThisMachine,
    share_devices,
)

_MOST_DEATHS = 3  # deaths of a command's workers, after which the command counts as failed
_POLL = 0.2  # seconds
_PARTS = 10_000  # parts of a GPU that Ray can tell apart
_HOME = Path(__file__).resolve().parents[2]
_ENDED_WITH_MACHINE = (143, -signal.SIGTERM)
_FAILED = 2
_INTERRUPTED = 130


class MachineShare(NamedTuple):
    """Processors and GPUs that one of several commands running at the same time gets.

    `gpus` are below 1 if several commands share one. `threads` are those of torch on processors;
    None leaves the choice to the command.
    """

    processors: int
    gpus: float = 0.0
    threads: int | None = None


def share_machines(
    machines: Sequence[tuple[int, int]], device: str, devices: int, jobs: int
) -> MachineShare:
    """Return the processors and GPUs that each command gets.

    On GPUs each command gets `devices` GPUs, and the share of the machine's processors that belongs
    to them. If there are fewer GPUs than commands, several commands share one GPU. Without GPUs
    each command gets the largest equal number of processors with which all commands run at once.

    `machines` have a number of processors and of GPUs each. `device` is ``auto`` (GPUs if there are
    any), ``cpu`` or ``cuda``. Raises InputError if it is unknown, or no machine has enough GPUs or
    processors.

    Example:
        >>> share_machines([(8, 0), (8, 0)], "auto", devices=1, jobs=4)
        MachineShare(processors=4, gpus=0.0, threads=4)
        >>> share_machines([(32, 4), (8, 0)], "auto", devices=2, jobs=2)
        MachineShare(processors=16, gpus=2.0, threads=None)
        >>> share_machines([(8, 1)], "cuda", devices=1, jobs=3).gpus
        0.3333
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {device}: choose auto, cpu or cuda")
    able = [(cpus, gpus) for cpus, gpus in machines if gpus >= devices]
    if device == "cuda" and not able:
        raise InputError(
            f"--device cuda: no machine of the cluster has {devices} GPUs that Ray knows of"
        )
    if device == "cpu" or not able:
        total = sum(cpus for cpus, _ in machines)
        shares = range(max(1, total), 0, -1)
        share = next((n for n in shares if sum(c // n for c, _ in machines) >= jobs), 1)
        alone = share == max((cpus for cpus, _ in machines), default=1)
        return MachineShare(share, threads=None if alone else share)
    room = sum(gpus // devices for _, gpus in able)
    if devices > 1 and room < jobs:
        raise InputError(
            f"--jobs {jobs} with --devices {devices}: the machines of the cluster have GPUs for "
            f"{room} at a time; lower one of them"
        )
    gpus = float(devices)
    if room < jobs:
        gpus = _PARTS // -(-jobs // room) / _PARTS
    return MachineShare(max(1, int(min(cpus / has for cpus, has in able) * gpus)), gpus)


def choose_machines(
    workers: Workers, *, device: str, devices: int, jobs: int, reads: Sequence[Path]
) -> Machines:
    """Return the object that starts commands on this machine or a cluster.

    The number of processes in `workers` is not used. All machines of a cluster must see `reads`,
    folders and files that the commands read or write, under the same path. Raises InputError if
    there is no such device; if a machine lacks a package or a folder, when the first command
    starts.
    """
    if isinstance(workers, RayCluster):
        return _ClusterMachines(workers, device, devices, jobs, reads)
    return ThisMachine(share_devices(device, devices, jobs))


class _ClusterMachines:
    """A cluster that runs commands; see `Machines`."""

    def __init__(
        self, cluster: RayCluster, device: str, devices: int, jobs: int, reads: Sequence[Path]
    ) -> None:
        self.jobs = jobs
        self._cluster = cluster
        self._reads = reads
        nodes = [node["Resources"] for node in cluster.ray.nodes() if node["Alive"]]
        counts = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
        able = [count for count in counts if count[0]]
        self._share = share_machines(able, device, devices, jobs)

    def start(self, command: Command, slot: int) -> Child:
        """Start a command on a machine that Ray chooses."""
        share = self._share
        threads = os.environ.get("OMP_NUM_THREADS", share.threads)
        environment = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        options = {"num_cpus": share.processors, "num_gpus": share.gpus, "max_retries": 0}
        run = partial(_run, environment=environment)
        begin = partial(self._cluster.start, run, command, self._reads, **options)
        return _Task(self._cluster, begin, command)


class _Task:
    """A command in the cluster; see `Child`."""

    def __init__(self, cluster: RayCluster, begin: Callable[[], Any], command: Command) -> None:
        self._cluster = cluster
        self._ray = cluster.ray
        self._begin = begin
        self._command = command
        self._answer = begin()
        self._deaths = 0
        self._is_interrupted = False
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None and self._ray.wait([self._answer], timeout=0)[0]:
            try:
                status = self._cluster.result(self._answer)
            except CrashError:
                status = _ENDED_WITH_MACHINE[0]
            except self._ray.exceptions.TaskCancelledError:
                status = _INTERRUPTED
            if status in _ENDED_WITH_MACHINE and not self._is_interrupted:
                self._start_again()
            else:
                self._status = status
        return self._status

    def _start_again(self) -> None:
        self._deaths += 1
        again = self._deaths < _MOST_DEATHS
        what = "the command goes on in another" if again else f"as {self._deaths - 1} before it"
        with self._command.log.open("a", encoding="utf-8") as log:
            log.write(f"\ncxr: the worker or machine ended, perhaps for want of memory; {what}\n")
        if again:
            self._answer = self._begin()
        else:
            self._status = _FAILED

    def interrupt(self) -> None:
        self._is_interrupted = True
        self._cancel(force=False)

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < until:
            time.sleep(_POLL)

    def kill(self) -> None:
        if self._status is None:
            self._cancel(force=True)
            self._status = -signal.SIGKILL

    def _cancel(self, *, force: bool) -> None:
        if self._status is None and self._ray.is_initialized():
            self._ray.cancel(self._answer, force=force)


def _run(command: Command, environment: Mapping[str, str]) -> int:
    """Run a command below a worker, which it does not outlive; returns its exit status."""
    # Ray sets it for what is computed here; the command chooses for itself.
    os.environ.pop("OMP_NUM_THREADS", None)
    path = os.pathsep.join(filter(None, (str(_HOME), os.environ.get("PYTHONPATH"))))
    # Ray blocks Ctrl-C in its workers, and what they start would never hear of it.
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        with command.log.open("ab") as output:
            process = start(command.words, {**environment, "PYTHONPATH": path}, output)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    while True:
        try:
            return process.wait(_POLL)
        except subprocess.TimeoutExpired:  # Ray's interruption is heard between two waits
            continue
        except KeyboardInterrupt:
            interrupt(process)
