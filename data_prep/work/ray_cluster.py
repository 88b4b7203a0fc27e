"""A Ray cluster, which a command joins or starts on this machine.

Ray is imported when a cluster is opened. Results of a machine are accepted only if it has the same
code, package versions and files as this one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import platform
import secrets
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2

from cxr_compare.data_prep.contracts.errors import InputError, first_line, require_packages
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.contracts.provenance import software_versions

_OBJECT_STORE_MIB = 128  # per processor, for results that the driver has not fetched yet
_RECHECK_S = 5.0  # after which a cluster's head and processors are checked again
_START_ATTEMPTS = 3  # of half a minute each, where the machine is busy
_CONNECT_TIMEOUT_S = 20.0  # for a cluster's head to accept a connection


class CrashError(Exception):
    """Error about a worker process or its machine that ended before it returned a result."""


class RayCluster:
    """A Ray cluster that works on tasks; `open_cluster` makes the object.

    `ray` is the module, connected to the cluster. At most `most` tasks of one call are under way;
    None sets no limit.
    """

    def __init__(self, ray: ModuleType, most: int | None = None) -> None:
        self.ray = ray
        self._most = most
        self._task = ray.remote(_run_task)
        self._processors = 0
        self._checked_at = float("-inf")

    def start(
        self,
        function: Callable[[Any], Any],
        argument: Any,
        reads: Sequence[Path] = (),
        **options: Any,
    ) -> Any:
        """Start a function in the cluster, and return Ray's reference to its result, for `result`.

        The function can be imported by its name. The machine must be able to read the files and
        folders in `reads`. The options are those of ``ray.remote``, such as ``num_gpus=1``.
        """
        machine = describe_machine(reads)
        # Pickled here because Ray would handle every array apart, which takes longer.
        pickled = pickle.dumps(argument, pickle.HIGHEST_PROTOCOL)
        return self._task.options(**options).remote(machine, function, pickled)

    def result(self, reference: Any) -> Any:
        """Wait for the result of a task; raise the error that the task raised.

        `CrashError` says that the process or the machine of the task ended, `InputError` also that
        a machine is not as this one or that the cluster has ended.
        """
        errors = self.ray.exceptions
        lost = (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
            errors.TaskUnschedulableError,
        )
        while True:
            try:
                return pickle.loads(self.ray.get(reference, timeout=_RECHECK_S))  # noqa: S301 - ours
            except errors.GetTimeoutError:
                _require_head(self.ray)
            except errors.RayTaskError as error:
                raise _cause(error) from None
            except lost as error:
                _require_head(self.ray)  # without a head it is no task's fault
                raise CrashError from error
            except errors.LocalRayletDiedError:  # no task's fault: nothing can be sent
                raise InputError(
                    "engine: ray: the Ray on this machine has ended; start it again, then run "
                    "the same command again to go on"
                ) from None

    def cancel(self, references: Sequence[Any]) -> None:
        """Give up tasks, by Ray's references, whose results are no longer needed."""
        if self.ray.is_initialized():  # otherwise all tasks have ended
            for reference in references:
                self.ray.cancel(reference)

    def most_tasks(self, by_processor: int) -> int:
        """Return how many tasks of one call may be under way, so many for each processor.

        The processors of the cluster are counted as it has them now.
        """
        if time.monotonic() - self._checked_at > _RECHECK_S:  # processors come and go
            _require_head(self.ray)
            self._processors = int(self.ray.cluster_resources().get("CPU", 0))
            self._checked_at = time.monotonic()
        tasks = max(1, self._processors) * by_processor
        return min(tasks, self._most or tasks)


@contextlib.contextmanager
def open_cluster(address: str | None = None, workers: int | None = None) -> Iterator[RayCluster]:
    """Join a Ray cluster, or start one on this machine that ends with the ``with`` block.

    The address of a running cluster, such as ``10.0.0.1:6379``, or ``auto`` for one on this
    machine, joins a cluster, which stays running; None starts one. None for `workers` uses all
    processors.
    """
    require_packages("engine: ray", "cluster", ("ray",))
    # Ray reads these when it is imported: nothing is reported to its maker, and what it says of a
    # dead worker is not printed to stdout. A cluster of our own listens on the loopback device
    # alone, and takes work only from those who have this token.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
    if address is None:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if ray.is_initialized():  # by the program that calls us
        yield RayCluster(ray)
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Below /tmp, because the length of the paths of Ray's sockets is limited.
    with tempfile.TemporaryDirectory(
        prefix="ray-cxr-", dir="/tmp", ignore_cleanup_errors=True
    ) as scratch:
        try:
            _connect(ray, address, workers, scratch)
            yield RayCluster(ray, None if address is None else workers)
        finally:
            ray.shutdown()
            _end_processes(scratch)


def _connect(ray: ModuleType, address: str | None, workers: int | None, scratch: str) -> None:
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        processors = cpu_count() if workers is None else max(1, workers)
        options |= {
            "num_cpus": processors,
            "include_dashboard": False,
            "object_store_memory": (processors + 1) * _OBJECT_STORE_MIB * 2**20,
            "_temp_dir": scratch,
        }
    try:
        if address is not None:
            _require_listener(address)
        # Ray has workers import from the folder in which the driver runs. Files in the user's
        # folder may be named like a module of some library.
        with contextlib.chdir(scratch), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray warns about its own future
            command_handler = signal.getsignal(signal.SIGTERM)
            if address is None:
                _start(ray, scratch, options)
            else:
                ray.init(address, **options)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, command_handler)  # Ray has replaced it
    except Exception as error:  # noqa: BLE001 - Ray raises bare ones where the machine is too busy
        reason = first_line(error)
        if address is None:
            message = f"engine: ray: Ray did not start ({reason}); try again, or leave engine out"
        else:
            message = (
                f"RAY_ADDRESS={address}: cannot join a Ray cluster there ({reason}); start it with "
                "ray start, or unset RAY_ADDRESS for one on this machine"
            )
        raise InputError(message) from None
    if not ray.cluster_resources().get("CPU"):
        raise InputError(f"RAY_ADDRESS={address}: the cluster has no processors")


def _start(ray: ModuleType, scratch: str, options: dict[str, Any]) -> None:
    """Start a cluster on this machine; on a busy one Ray's parts may need more than one attempt."""
    for attempts_left in reversed(range(_START_ATTEMPTS)):
        try:
            ray.init("local", **options)
            return
        except Exception as error:
            # Ray gives its parts half a minute, and has no exception type of its own for that.
            if "timed out" not in str(error) or not attempts_left:
                raise
            ray.shutdown()
            _end_processes(scratch)


def _end_processes(scratch: str) -> None:
    """End what a start that failed has left running: it alone names the folder of our own Ray."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            if scratch.encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def _require_listener(address: str) -> None:
    """Find out at once whether anybody listens: Ray itself tries for more than five minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ValueError("it is neither auto nor HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()


def _require_head(ray: ModuleType) -> None:
    """Check that the main machine answers: without it Ray ends this process after a minute."""
    address = ray.get_runtime_context().gcs_address
    try:
        _require_listener(address)
    except OSError:
        raise InputError(
            f"engine: ray: the head of the cluster at {address} does not answer any more; run "
            "the same command again to go on, once it does"
        ) from None


def _cause(error: Any) -> Exception:
    """Return the error that a task raised, of Ray's own error about it."""
    text = str(error)
    if "failed to import" in text or "No module named" in text:
        return InputError(
            "engine: ray: a machine of the cluster cannot import cxr-compare "
            f"({text.strip().splitlines()[-1]}); install the same version on all of them"
        )
    cause: Exception = getattr(error, "cause", None) or error
    return cause


# The functions below run in the workers, too.


class Machine(NamedTuple):
    """Properties that a machine must have to work on a task."""

    software: tuple[tuple[str, str], ...]  # pairs of a name and a version
    folder: str  # from which relative paths start
    reads: tuple[str, ...]  # files and folders


def describe_machine(reads: Sequence[Path]) -> Machine:
    """Describe this machine, as those of the cluster must be."""
    paths = tuple(str(path) for path in reads if path.exists())
    return Machine(tuple(software_versions().items()), str(Path.cwd()), paths)


def _run_task(machine: Machine, function: Callable[[Any], Any], argument: bytes) -> bytes:
    prepare_machine(machine)
    result = function(pickle.loads(argument))  # noqa: S301 - from our own driver
    return pickle.dumps(result, pickle.HIGHEST_PROTOCOL)


@lru_cache(maxsize=8)
def prepare_machine(machine: Machine) -> None:
    """Check, once in a process, that its machine is as the driver's, and go to its folder."""
    with contextlib.suppress(OSError):  # relative paths are then missing, which is reported below
        os.chdir(machine.folder)
    # Set before torch is imported. Other tasks have the other processors, and sums that several
    # threads share are rounded in another order.
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(1)
    here = f"engine: ray: the machine {platform.node()}"
    installed = software_versions()
    for name, version in machine.software:
        if installed.get(name) != version:
            raise InputError(
                f"{here} has {name} {installed.get(name, 'not installed')}, where the command runs "
                f"it is {version}; install the same on all machines"
            )
    for path in machine.reads:
        if not os.access(path, os.R_OK):
            raise InputError(
                f"{here} cannot read {path}; put it where all machines see it under the same path"
            )
