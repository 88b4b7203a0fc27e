"""Where rows are worked on: in processes of this machine, or in a Ray cluster.

Rooms hand a pure function of one row to an `Engine` and know nothing of Ray, which this module
alone imports, and only where it is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Literal, Protocol, TypeVar

import cv2

from cxr_start import ROOMS
from data_prep.contracts.addresses import address_of
from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import package_versions
from data_prep.contracts.workers import cpu_count, map_rows, try_alone

Row = TypeVar("Row")
Result = TypeVar("Result")

EngineName = Literal["local", "ray"]

_CHUNKS_AHEAD = 3  # per processor: enough to keep it busy, few enough to bound memory
_CHUNK_SECONDS = 0.25  # of work in one task: some hundred times what Ray takes for it
_MOST_ROWS = 1024  # in a chunk
_STORE_MIB = 128  # per processor, for answers that the driver has not fetched yet
_LOOK_AGAIN = 5.0  # s after which a cluster's head and processors are looked at anew
_STARTS = 3  # tries to start Ray
_KNOCK_SECONDS = 20.0  # for a cluster's head to accept a connection
_HEAD_SECONDS = 25.0  # for a head that restarts; Ray itself ends this process after 60, mute
_TRIALS = (
    20  # of a row alone, which a dead worker ends but not the row: that ends a process below it
)
_LONGEST_FOLDER = 40  # characters: Ray's sockets lie below it, and their paths have a limit


class Engine(Protocol):
    """What applies a function to many rows."""

    def map_rows(
        self,
        function: Callable[[Row], Result],
        rows: Iterable[Row],
        *,
        lost: Callable[[Row], Result],
        reads: Sequence[Path] = (),
    ) -> Iterator[Result]:
        """Apply a function to each row; results come in the order of the rows.

        Args:
            function: Pure function of one row; may be pickled.
            rows: Read lazily: memory does not grow with their number.
            lost: Gives the result for a row whose process died.
            reads: Some files and folders that the function reads: where a machine lacks one, the
                work ends with one line instead of a failure a row.

        Yields:
            One result per row.
        """


@dataclass(frozen=True)
class LocalEngine:
    """Processes of this machine; see `data_prep.contracts.workers.map_rows`.

    Attributes:
        workers: How many; 0 and 1 work in this process.
    """

    workers: int

    def map_rows(
        self,
        function: Callable[[Row], Result],
        rows: Iterable[Row],
        *,
        lost: Callable[[Row], Result],
        reads: Sequence[Path] = (),
    ) -> Iterator[Result]:
        """As `Engine.map_rows`."""
        return map_rows(function, rows, workers=self.workers, lost=lost)


@contextlib.contextmanager
def open_engine(
    name: EngineName = "local", *, address: str | None = None, workers: int | None = None
) -> Iterator[Engine]:
    """Give an engine for the block, and end what was started for it.

    Args:
        name: ``local``, or ``ray``, which needs the extra ``cluster``.
        address: A Ray cluster to join: ``auto`` or ``HOST:PORT``. It is left running. None starts
            one on this machine, at the first row, and ends it.
        workers: Rows, or chunks of rows, that are worked on at a time; None for all processors.

    Yields:
        The engine.

    Raises:
        InputError: The address is not for this engine, Ray is not installed, or there is no such
            cluster.

    Example:
        >>> with open_engine(workers=1) as engine:
        ...     list(engine.map_rows(abs, [-2, 1], lost=lambda row: 0))
        [2, 1]
    """
    if name == "local":
        if address is not None:
            raise InputError("--address: is for --engine ray; add it, or leave --address out")
        yield LocalEngine(cpu_count() if workers is None else workers)
        return
    if find_spec("ray") is None:
        raise InputError("--engine ray: needs Ray; pip install 'cxr-compare[cluster]'")
    with contextlib.ExitStack() as cluster:
        engine = RayEngine(cluster, address, workers)
        if address is not None:
            engine.connect()  # a wrong one is said before any work
        yield engine


class RayEngine:
    """A Ray cluster: tasks of some rows each; see `open_engine`.

    Few tasks are under way at a time, and each holds rows for a quarter of a second, so that
    neither the driver's memory nor Ray's own work grows with the rows. Where a task's worker or
    machine dies, its rows are sent again one by one, and a row that dies again is tried in a
    process of its own: only a row that ends that, too, is lost.
    """

    def __init__(
        self, cluster: contextlib.ExitStack, address: str | None, workers: int | None
    ) -> None:
        self._cluster, self._address, self._workers = cluster, address, workers
        self._ray: ModuleType | None = None
        self._tasks = _Tasks()
        self._processors, self._counted = 0, float("-inf")

    def connect(self) -> None:
        """Join or start the cluster; by itself that happens at the first row.

        Raises:
            InputError: There is no such cluster, or its Ray or Python is of another version.
        """
        if self._ray is None:
            self._ray = self._cluster.enter_context(_connected(self._address, self._workers))
            self._tasks = _Tasks.of(self._ray)

    def join(self, reads: Sequence[Path]) -> tuple[ModuleType, Callable[[], None]]:
        """Give Ray itself, for work that is no map over rows.

        Args:
            reads: As of `Engine.map_rows`.

        Returns:
            Ray, connected; and what each of its workers calls first: it refuses a machine that is
            not as this one, and stands in the same folder.

        Raises:
            InputError: There is no such cluster, or a machine of it is not as this one.
        """
        self.connect()
        terms = _Terms.of(reads)
        self._require_nodes(terms)
        return self._tasks.ray, partial(_meet, terms)

    def map_rows(
        self,
        function: Callable[[Row], Result],
        rows: Iterable[Row],
        *,
        lost: Callable[[Row], Result],
        reads: Sequence[Path] = (),
    ) -> Iterator[Result]:
        """As `Engine.map_rows`."""
        source, pending = iter(rows), deque[tuple[list[Row], Any]]()
        chunk = list(islice(source, 1))
        if not chunk:
            return  # nothing to start a cluster for
        self.connect()
        call = _Call(function, _Terms.of(reads))
        self._require_nodes(call.terms)
        n_rows = 1
        try:
            while chunk or pending:
                while chunk and len(pending) < self._room():
                    pending.append((chunk, self._tasks.send(call, chunk)))
                    chunk = list(islice(source, n_rows))
                held, answer = pending.popleft()
                done = yield from self._answers(call, held, answer, lost)
                # Rows differ, the first of all most: a chunk grows twofold at a time.
                enough = round(_CHUNK_SECONDS / max(done, 1e-6))
                n_rows = max(1, min(enough, 2 * n_rows, _MOST_ROWS))
                del answer  # and with it what the cluster holds for it
        finally:
            for _, answer in pending:
                self._tasks.cancel(answer)

    def _room(self) -> int:
        """How many chunks may be under way: the processors of a cluster come and go."""
        now = time.monotonic()
        if now - self._counted > _LOOK_AGAIN and self._ray is not None:
            _require_head(self._ray)
            self._processors = int(self._ray.cluster_resources().get("CPU", 0))
            self._counted = now
        room = max(1, self._processors) * _CHUNKS_AHEAD
        return room if self._address is None else min(room, self._workers or room)

    def _answers(
        self, call: _Call[Row, Result], chunk: list[Row], answer: Any, lost: Callable[[Row], Result]
    ) -> Any:
        """Yield the results of a chunk; returns the seconds that a row took."""
        try:
            results, seconds = pickle.loads(self._tasks.fetch(answer))  # noqa: S301 - our worker's
        except _DiedError:
            if len(chunk) == 1:
                yield self._tried_alone(call, chunk[0], lost)
            else:
                single = [(row, self._tasks.send(call, [row])) for row in chunk]
                for row, its in single:
                    yield from self._answers(call, [row], its, lost)
            return _CHUNK_SECONDS  # whatever killed it: small chunks for a while
        yield from results
        return seconds / len(chunk)

    def _tried_alone(
        self, call: _Call[Row, Result], row: Row, lost: Callable[[Row], Result]
    ) -> Result:
        try:
            survived, result = self._tasks.fetch(self._tasks.trial.remote(call, row))
        except _DiedError:  # whenever it was tried: with its machine, or for want of memory
            if self._ray is not None:
                _require_head(self._ray)  # else it is no row's fault
            return lost(row)
        return result if survived else lost(row)

    def _require_nodes(self, terms: _Terms) -> None:
        """Check every machine of a cluster that others started, before the work."""
        if self._address is None or self._ray is None:
            return
        nodes = [n for n in self._ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]
        if not nodes:
            raise InputError(f"--address {self._address}: the cluster has no processors")
        for answer in [self._tasks.meet_on(node["NodeID"], terms) for node in nodes]:
            with contextlib.suppress(_DiedError):  # one that dies meanwhile works on no row
                self._tasks.fetch(answer)


@dataclass(frozen=True)
class _Terms:
    """What each machine must have, the driver's own code above all, for its results to count."""

    code: str = ""
    packages: tuple[tuple[str, str], ...] = ()
    folder: str = ""
    reads: tuple[str, ...] = ()

    @classmethod
    def of(cls, reads: Sequence[Path]) -> _Terms:
        # What lies in a store is fetched by each machine for itself.
        here = tuple(str(path) for path in reads if address_of(path) is None and path.exists())
        return cls(_code_digest(), tuple(package_versions().items()), str(Path.cwd()), here)


@dataclass(frozen=True)
class _Call(Generic[Row, Result]):
    """What a task does to each of its rows."""

    function: Callable[[Row], Result]
    terms: _Terms


class _DiedError(Exception):
    """A task's process or machine ended, or its answer was lost with one."""


@dataclass(frozen=True)
class _Tasks:
    """Our functions as tasks of a cluster."""

    work: Any = None
    trial: Any = None
    ray: Any = None
    deaths: tuple[type[Exception], ...] = field(default=())

    @classmethod
    def of(cls, ray: ModuleType) -> _Tasks:
        errors = ray.exceptions
        deaths = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError",
                  "TaskUnschedulableError")  # fmt: skip
        return cls(
            ray.remote(num_cpus=1, max_retries=0)(_work),
            ray.remote(num_cpus=1, max_retries=_TRIALS)(_work_alone),
            ray,
            tuple(getattr(errors, name) for name in deaths),
        )

    def meet_on(self, node: str, terms: _Terms) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=False)
        task = self.ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_meet)
        return task.remote(terms)

    def send(self, call: _Call[Any, Any], rows: list[Any]) -> Any:
        return self.work.remote(call, pickle.dumps(rows, protocol=pickle.HIGHEST_PROTOCOL))

    def fetch(self, answer: Any) -> Any:
        """Wait for a task.

        Raises:
            _DiedError: There will be no answer.
            InputError: The task raised it, or the cluster has no head any more.
        """
        while True:
            try:
                return self._fetched(answer)
            except self.ray.exceptions.GetTimeoutError:
                _require_head(self.ray)

    def _fetched(self, answer: Any) -> Any:
        try:
            return self.ray.get(answer, timeout=_LOOK_AGAIN)
        except self.ray.exceptions.RayTaskError as error:
            cause, said = getattr(error, "cause", None), str(error)
            if isinstance(cause, InputError):
                raise cause from None
            if "failed to import" in said or "No module named" in said:
                last = said.strip().splitlines()[-1]
                raise InputError(
                    f"--engine ray: a machine of the cluster cannot import cxr-compare ({last}); "
                    "install the same version on all of them"
                ) from None
            raise cause or error from None
        except self.deaths as error:
            raise _DiedError from error
        except self.ray.exceptions.LocalRayletDiedError:  # no row's fault: nothing can be sent
            raise InputError(
                "--engine ray: the Ray on this machine has ended; start it again, then run the "
                "same command again to go on"
            ) from None

    def cancel(self, answer: Any) -> None:
        if self.ray.is_initialized():  # else all of them have ended
            self.ray.cancel(answer)


# ------------------------------------------------------------------------------ in the workers


def _work(call: _Call[Row, Result], rows: bytes) -> bytes:
    """Results of some rows, and the seconds that they took.

    Both come pickled: Ray would handle every array in them apart, which takes longer.
    """
    _meet(call.terms)
    start = time.perf_counter()
    results = [call.function(row) for row in pickle.loads(rows)]  # noqa: S301 - our driver's
    return pickle.dumps((results, time.perf_counter() - start), protocol=pickle.HIGHEST_PROTOCOL)


def _work_alone(call: _Call[Row, Result], row: Row) -> tuple[bool, Result | None]:
    """Whether a process of its own survived a row, and the result."""
    _meet(call.terms)
    return try_alone(call.function, row)


def _meet(terms: _Terms) -> None:
    _meet_once(terms)


@lru_cache(maxsize=8)
def _meet_once(terms: _Terms) -> None:
    """Check once a process that its machine is as the driver's, and stand in the same folder.

    Raises:
        InputError: It is not.
    """
    with contextlib.suppress(OSError):  # relative paths are then missing, which is said below
        os.chdir(terms.folder)
    # Before torch is imported: other tasks have the other processors, and sums that several threads
    # share are rounded in another order.
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(1)
    name = f"--engine ray: the machine {os.uname().nodename}"
    if terms.code != _code_digest():
        raise InputError(
            f"{name} has other code of cxr-compare in {_HOME}; install the same version on all"
        )
    own = package_versions()
    for package, version in terms.packages:
        if own.get(package) != version:
            raise InputError(
                f"{name} has {package} {own.get(package, 'not installed')}, where the command runs "
                f"it is {version}; install the same on all"
            )
    for path in terms.reads:
        if not os.access(path, os.R_OK):
            raise InputError(
                f"{name} cannot read {path}; put it where all machines see it under the same path"
            )


_HOME = Path(__file__).resolve().parents[2]


@cache
def _code_digest() -> str:
    """Of all our modules: a version number does not tell two clones apart."""
    digest = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((_HOME / room).rglob("*.py")):
            digest.update(path.relative_to(_HOME).as_posix().encode())
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
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"--address {address}: cannot join a Ray cluster there ({reason}); start it with "
            "ray start, or leave --address out for one on this machine"
        ) from None


def _knock(address: str) -> None:
    """Find out at once whether anybody listens: Ray itself tries for more than five minutes.

    Raises:
        OSError: Nobody does.
        ValueError: It is no address.
    """
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or "/" in host or not port.isdigit():
            raise ValueError("it is neither auto nor HOST:PORT")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()


def _require_head(ray: ModuleType) -> None:
    """Check that a cluster has its head, which may be away for a while.

    Raises:
        InputError: It stays away.
    """
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
