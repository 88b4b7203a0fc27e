"""Where rows are worked on: in processes of this machine, or in a Ray cluster.

Rooms hand a pure function of one row to an `Engine`. This module alone knows Ray, and imports it
only where it is asked for. Few of Ray's tasks are under way at a time, and each holds rows for a
quarter of a second, so that neither memory nor Ray's own work grows with the rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
import platform
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain, islice
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Literal

import cv2

from cxr_compare.data_prep.contracts.errors import InputError, first_line, require_packages
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.work.object_store import address_of
from cxr_compare.data_prep.work.pool import (
    CrashError,
    Engine,
    LocalEngine,
    Result,
    Row,
    apply_timed,
    cpu_count,
    map_in_chunks,
    try_alone,
)

_CHUNKS_AHEAD = 3  # per processor
_STORE_MIB = 128  # per processor, for answers that the driver has not fetched yet
_LOOK_AGAIN = 5.0  # s after which a cluster's head and processors are looked at anew
_STARTS = 3  # tries to start Ray
_KNOCK_SECONDS = 20.0  # for a cluster's head to accept a connection
_HEAD_SECONDS = 25.0  # for a head that restarts; Ray itself ends this process after 60, mute
_TRIALS = 20  # of a row alone, where the machine dies and not the process below its worker
_LONGEST_FOLDER = 40  # characters: Ray's sockets lie below it, and their paths have a limit
_CODE = Path(__file__).absolute().parents[2]  # the folder cxr_compare

EngineName = Literal["local", "ray"]


@contextlib.contextmanager
def open_engine(
    name: EngineName = "local", *, address: str | None = None, workers: int | None = None
) -> Iterator[Engine]:
    """Give an engine for the block, and end what was started for it.

    `address` is that of a Ray cluster to join, which is left running; None starts one on this
    machine, at the first row, and ends it.
    """
    if name == "local":
        if address is not None:
            raise InputError("--address: is for --engine ray; add it, or leave --address out")
        yield LocalEngine(cpu_count() if workers is None else workers)
        return
    require_packages("--engine ray", "cluster", ("ray",))
    with contextlib.ExitStack() as cluster:
        engine = RayEngine(cluster, address, workers)
        if address is not None:
            engine.connect()  # a wrong one is said before any work
        yield engine


class RayEngine:
    """A Ray cluster; see `open_engine`."""

    def __init__(
        self, cluster: contextlib.ExitStack, address: str | None, workers: int | None
    ) -> None:
        self._cluster, self._address, self._workers = cluster, address, workers
        self._ray: ModuleType | None = None

    def connect(self) -> ModuleType:
        """Ray, once the cluster is joined or started; by itself that happens at the first row."""
        if self._ray is None:
            self._ray = self._cluster.enter_context(_connected(self._address, self._workers))
            if not self._ray.cluster_resources().get("CPU"):
                raise InputError(f"--address {self._address}: the cluster has no processors")
        return self._ray

    def map_rows(
        self,
        function: Callable[[Row], Result],
        rows: Iterable[Row],
        *,
        on_crash: Callable[[Row], Result],
        reads: Sequence[Path] = (),
    ) -> Iterator[Result]:
        """As `data_prep.work.pool.Engine.map_rows`."""
        source = iter(rows)
        first = list(islice(source, 1))
        if first:  # else there is nothing to start a cluster for
            most = self._workers if self._address is not None else None
            tasks = _Tasks(self.connect(), _Call(function, _Requirements.of(reads)), most)
            yield from map_in_chunks(tasks, chain(first, source), on_crash)

    def start(
        self, function: Callable[[Row], Result], row: Row, reads: Sequence[Path], **options: Any
    ) -> Any:
        """Start one task, with options of ``ray.remote``; returns Ray's reference to its result."""
        call = _Call(function, _Requirements.of(reads))
        return self.connect().remote(**options)(_work_once).remote(call, row)


class _Tasks(Generic[Row, Result]):
    """The tasks of one call; see `data_prep.work.pool.Workers`."""

    chunk_seconds, most_rows = 0.25, 1024  # some hundred times what Ray takes for a task

    def __init__(self, ray: ModuleType, call: _Call[Row, Result], most_chunks: int | None) -> None:
        self._ray, self._call, self._most_chunks = ray, call, most_chunks
        self._work = ray.remote(num_cpus=1, max_retries=0)(_work)
        self._work_alone = ray.remote(num_cpus=1, max_retries=_TRIALS)(_work_alone)
        self._processors, self._counted = 0, float("-inf")

    def room(self) -> int:
        """As `Workers.room`: the processors of a cluster come and go."""
        if time.monotonic() - self._counted > _LOOK_AGAIN:
            _require_head(self._ray)
            self._processors = int(self._ray.cluster_resources().get("CPU", 0))
            self._counted = time.monotonic()
        room = max(1, self._processors) * _CHUNKS_AHEAD
        return min(room, self._most_chunks or room)

    def send(self, rows: list[Row]) -> Any:
        return self._work.remote(self._call, pickle.dumps(rows, pickle.HIGHEST_PROTOCOL))

    def receive(self, answer: Any) -> tuple[list[Result], float]:
        return pickle.loads(self._get(answer))  # noqa: S301 - our worker's

    def try_alone(self, row: Row) -> tuple[bool, Result | None]:
        try:
            return self._get(self._work_alone.remote(self._call, row))
        except CrashError:  # whenever it was tried: with its machine, or for want of memory
            _require_head(self._ray)  # else it is no row's fault
            return False, None

    def end(self, answers: list[Any]) -> None:
        for answer in answers if self._ray.is_initialized() else ():  # else all of them have ended
            self._ray.cancel(answer)

    def _get(self, answer: Any) -> Any:
        while True:
            with contextlib.suppress(self._ray.exceptions.GetTimeoutError):
                return result_of(self._ray, answer, timeout=_LOOK_AGAIN)
            _require_head(self._ray)


def result_of(ray: ModuleType, answer: Any, *, timeout: float) -> Any:
    """The result of a task, or what it raised; `CrashError` where its process or machine ended."""
    errors = ray.exceptions
    deaths = (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError,
              errors.ObjectLostError, errors.TaskUnschedulableError)  # fmt: skip
    try:
        return ray.get(answer, timeout=timeout)
    except errors.RayTaskError as error:
        cause, text = getattr(error, "cause", None), str(error)
        if isinstance(cause, InputError):
            raise cause from None
        if "failed to import" in text or "No module named" in text:
            raise InputError(
                "--engine ray: a machine of the cluster cannot import cxr-compare "
                f"({text.strip().splitlines()[-1]}); install the same version on all of them"
            ) from None
        raise cause or error from None
    except deaths as error:
        raise CrashError from error
    except errors.LocalRayletDiedError:  # no row's fault: nothing can be sent
        raise InputError(
            "--engine ray: the Ray on this machine has ended; start it again, then run the "
            "same command again to go on"
        ) from None


# ------------------------------------------------------------------------------ in the workers


@dataclass(frozen=True)
class _Requirements:
    """What each machine must have, the driver's own code above all, for its results to count."""

    code: str = ""
    packages: tuple[tuple[str, str], ...] = ()
    folder: str = ""
    reads: tuple[str, ...] = ()

    @classmethod
    def of(cls, reads: Sequence[Path]) -> _Requirements:
        # What lies in a store is fetched by each machine for itself.
        local = tuple(str(path) for path in reads if address_of(path) is None and path.exists())
        return cls(_code_digest(), tuple(provenance()["versions"].items()), str(Path.cwd()), local)


@dataclass(frozen=True)
class _Call(Generic[Row, Result]):
    """What a task does to each of its rows."""

    function: Callable[[Row], Result]
    requirements: _Requirements


def _work(call: _Call[Row, Result], rows: bytes) -> bytes:
    """Results of some rows, and the seconds that they took.

    Both are pickled: Ray would handle every array in them apart, which takes longer.
    """
    _check_machine(call.requirements)
    results = apply_timed(call.function, pickle.loads(rows))  # noqa: S301 - our driver's
    return pickle.dumps(results, pickle.HIGHEST_PROTOCOL)


def _work_alone(call: _Call[Row, Result], row: Row) -> tuple[bool, Result | None]:
    """Whether a process of its own survived a row, and the result."""
    _check_machine(call.requirements)
    return try_alone(call.function, row)


def _work_once(call: _Call[Row, Result], row: Row) -> Result:
    _check_machine(call.requirements)
    return call.function(row)


@lru_cache(maxsize=8)
def _check_machine(requirements: _Requirements) -> None:
    """Check once a process that its machine is as the driver's, and work in the same folder."""
    with contextlib.suppress(OSError):  # relative paths are then missing, which is said below
        os.chdir(requirements.folder)
    # Before torch is imported: other tasks have the other processors, and sums that several threads
    # share are rounded in another order.
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(1)
    name = f"--engine ray: the machine {platform.node()}"
    if requirements.code != _code_digest():
        raise InputError(
            f"{name} has other code of cxr-compare in {_CODE}; install the same version on all"
        )
    installed = provenance()["versions"]
    for package, version in requirements.packages:
        if installed.get(package) != version:
            raise InputError(
                f"{name} has {package} {installed.get(package, 'not installed')}, where the "
                f"command runs it is {version}; install the same on all"
            )
    for path in requirements.reads:
        if not os.access(path, os.R_OK):
            raise InputError(
                f"{name} cannot read {path}; put it where all machines see it under the same path"
            )


@cache
def _code_digest() -> str:
    """Return a digest of all our modules: a version number does not tell two clones apart."""
    digest = hashlib.sha256()
    for package in sorted(_CODE.iterdir()):  # links in a clone, which rglob alone does not follow
        for path in sorted(package.rglob("*.py")):
            digest.update(path.relative_to(_CODE).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# ------------------------------------------------------------------------------- the cluster


@contextlib.contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[ModuleType]:
    """Ray, joined to a cluster or with one of its own, which ends with the block."""
    # Read when Ray is imported. Nothing is reported to its maker, and nothing printed: what it says
    # of a dead worker would go to stdout. A cluster of our own listens on the loopback device
    # alone, and takes work from those alone who have this token.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
    if address is None:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if ray.is_initialized():  # by the program that calls us
        yield ray
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    folder = tempfile.gettempdir()
    scratch = tempfile.mkdtemp(
        prefix="cxr-ray-",
        dir=folder if len(folder) < _LONGEST_FOLDER else "/tmp",  # noqa: S108
    )
    try:
        # Ray has workers import from the folder that the driver stands in. What lies in the user's
        # may be called like a module of some library.
        with contextlib.chdir(scratch), _same_signals(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Ray's, about its own future
            if address is None:
                _start(ray, workers, scratch)
            else:
                _join(ray, address)
        yield ray
    finally:
        ray.shutdown()
        _end_processes(scratch)
        shutil.rmtree(scratch, ignore_errors=True)


_QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}


def _start(ray: ModuleType, workers: int | None, scratch: str) -> None:
    count = cpu_count() if workers is None else max(1, workers)
    for tries_left in reversed(range(_STARTS)):
        try:
            ray.init(
                "local",
                num_cpus=count,
                include_dashboard=False,
                object_store_memory=(count + 1) * _STORE_MIB * 2**20,
                _temp_dir=scratch,
                **_QUIET,
            )
            return
        except Exception as error:
            # Ray gives its parts half a minute, and says so in an exception of no type of its own.
            if "timed out" not in str(error):
                raise
            ray.shutdown()
            _end_processes(scratch)
            if not tries_left:
                raise InputError(
                    "--engine ray: Ray did not start, the machine is too busy; run the same "
                    "command again later, or leave --engine out"
                ) from None


def _join(ray: ModuleType, address: str) -> None:
    try:
        _knock(address)
        ray.init(address, **_QUIET)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = first_line(error)
        raise InputError(
            f"--address {address}: cannot join a Ray cluster there ({reason}); start it with "
            "ray start, or leave --address out for one on this machine"
        ) from None


def _knock(address: str) -> None:
    """Find out at once whether anybody listens: Ray itself tries for more than five minutes."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or "/" in host or not port.isdigit():
            raise ValueError("it is neither auto nor HOST:PORT")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()


def _require_head(ray: ModuleType) -> None:
    """Check that a cluster has its head, which may be away for a while."""
    address = ray.get_runtime_context().gcs_address
    until = time.monotonic() + _HEAD_SECONDS
    while True:
        try:
            return _knock(address)
        except OSError:
            if time.monotonic() > until:
                raise InputError(
                    f"--engine ray: the head of the cluster at {address} does not answer any "
                    "more; run the same command again to go on, once it does"
                ) from None
        time.sleep(1)


def _end_processes(scratch: str) -> None:
    """End what is left of a cluster of our own: its processes, and no others, name this folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            if scratch.encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


@contextlib.contextmanager
def _same_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself; it stays the command's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
