"""One function applied to many images, in processes of this machine or on a Ray cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import platform
import secrets
import signal
import socket
import sys
import tempfile
import textwrap
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, chdir, contextmanager, suppress
from functools import lru_cache, partial
from itertools import islice
from multiprocessing.context import BaseContext
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import cv2

from cxr_compare.data_prep.base.errors import InputError, first_line, require_packages
from cxr_compare.data_prep.base.provenance import package_versions

Row = TypeVar("Row")
Result = TypeVar("Result")
Engine = Literal["local", "ray"]
_PRELOADED = "cxr_compare.data_prep.pixels"
_ATTEMPTS = 3  # of a row in a cluster
_CONNECT_S = 20.0


class CrashError(Exception):
    """A process, or its machine, ended before it returned a result."""


def map_images(
    function: Callable[[Row], Result],
    rows: Iterable[Row],
    workers: int,
    *,
    on_crash: Callable[[Row], Result],
    together: int = 1,
    engine: Engine = "local",
    reads: Sequence[Path] = (),
) -> Iterator[Result]:
    """Apply a function to each row, and yield one result a row, in order.

    At most two batches a worker are under way, `together` rows each. If a process ends, the rows
    under way are tried one by one, so that the one that ends it gets the result of `on_crash`.
    Machines of a cluster must be able to read the files and folders in `reads`.
    """
    source = iter(rows)
    if engine == "local" and workers <= 1:
        for row in source:
            yield from _apply(function, [row])
        return
    pool: _Processes | _Ray = _Ray(workers, reads) if engine == "ray" else _Processes(workers)
    pending: deque[tuple[list[Row], Any]] = deque()  # batches that were sent, each with its task
    try:
        while True:
            results: list[Result]
            batch: list[Row] = []
            try:
                while len(pending) < 2 * pool.workers and (batch := list(islice(source, together))):
                    task = pool.send(partial(_apply, function), batch)
                    pending.append((batch, task))
                    batch = []
                if not pending:
                    return
                results = pool.result(pending[0][1])
                pending.popleft()
            except CrashError:  # the batches of all may be lost
                suspects = [row for rows, _ in pending for row in rows] + batch
                pending.clear()
                pool.restart()
                results = [pool.alone(partial(_apply, function), r, on_crash) for r in suspects]
            yield from results
    finally:
        pool.close()


def _apply(function: Callable[[Row], Result], rows: list[Row]) -> list[Result]:
    """Apply a function to several rows; an error gets a note that shows its row."""
    results = []
    for row in rows:
        try:
            results.append(function(row))
        except Exception as error:
            error.add_note(f"at the row {textwrap.shorten(repr(row), 300)}")
            raise
    return results


class _Processes:
    """Processes of this machine. If one ends, the batches of all are lost."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool = _start_pool(workers)

    def send(self, work: Callable[[Any], Any], rows: list[Any]) -> Any:
        try:
            return self._pool.submit(work, rows)
        except BrokenProcessPool:
            raise CrashError from None

    def result(self, task: Any) -> Any:
        try:
            return task.result()
        except BrokenProcessPool:
            raise CrashError from None

    def alone(self, work: Callable[[Any], Any], row: Any, on_crash: Callable[[Any], Any]) -> Any:
        """Work on a row in a process of its own, so that no other can end it."""
        with _start_pool(1) as pool:
            try:
                return pool.submit(work, [row]).result()[0]
            except BrokenProcessPool:
                return on_crash(row)

    def restart(self) -> None:
        self._pool.shutdown()
        self._pool = _start_pool(self.workers)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class _Ray:
    """Tasks of a Ray cluster: that of ``RAY_ADDRESS``, or one of this machine."""

    def __init__(self, workers: int, reads: Sequence[Path]) -> None:
        self._stack = ExitStack()
        self._ray = self._stack.enter_context(ray_cluster(workers))
        self.workers = max(int(self._ray.cluster_resources().get("CPU", 1)), 1)
        self._machine = _Machine.here(reads)
        self._run = self._ray.remote(max_retries=0)(_call)

    def send(self, work: Callable[[Any], Any], rows: list[Any]) -> Any:
        return self._run.remote(self._machine, work, rows)

    def result(self, task: Any) -> Any:
        errors = self._ray.exceptions
        lost = (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError)
        try:
            self._ray.wait([task])
            return self._ray.get(task)
        except (*lost, errors.ObjectLostError):
            raise CrashError from None
        except errors.RayTaskError as error:
            raise (error.cause or error) from None

    def alone(self, work: Callable[[Any], Any], row: Any, on_crash: Callable[[Any], Any]) -> Any:
        for _ in range(_ATTEMPTS):  # a machine may end, too
            with suppress(CrashError):
                return self.result(self.send(work, [row]))[0]
        return on_crash(row)

    def restart(self) -> None:
        """Do nothing: only the task of the process that ended is lost."""

    def close(self) -> None:
        self._stack.close()


@contextmanager
def ray_cluster(workers: int) -> Iterator[Any]:
    """Join the Ray cluster of ``RAY_ADDRESS``, or start one on this machine for the block.

    A cluster that the program has joined already is taken, and stays.
    """
    require_packages("engine: ray", "cluster", ("ray",))
    # Read at the import: nothing is reported to Ray's maker, and only who has the token sends work.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
    address = os.environ.get("RAY_ADDRESS") or None
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if ray.is_initialized():
        yield ray
        return
    own: dict[str, Any] = {"num_cpus": max(workers, 1), "include_dashboard": False}
    handler = signal.getsignal(signal.SIGTERM)  # which Ray replaces
    # Below /tmp, as the paths of Ray's sockets are limited. Workers import from the folder of the
    # driver, where files of the user may be named like a module.
    with tempfile.TemporaryDirectory(
        prefix="ray-cxr-", dir="/tmp", ignore_cleanup_errors=True
    ) as scratch:
        try:
            with chdir(scratch), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if address is not None:
                    _require_listener(address)
                ray.init(
                    address or "local",
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    **({"_temp_dir": scratch, **own} if address is None else {}),
                )
        except Exception as error:  # noqa: BLE001 - Ray raises bare ones
            where = "engine: ray" if address is None else f"RAY_ADDRESS={address}"
            raise InputError(
                f"{where}: cannot start or join a Ray cluster ({first_line(error)}); start one "
                "with ray start and name it in RAY_ADDRESS, or leave engine out"
            ) from None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
        try:
            yield ray
        finally:
            ray.shutdown()


def _require_listener(address: str) -> None:
    """Find out at once whether anybody listens: Ray itself tries for more than five minutes."""
    host, _, port = address.rpartition(":")
    if address != "auto":
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()


class _Machine(NamedTuple):
    """What a machine of a cluster must be like: else its images would be read otherwise."""

    folder: str  # from which relative paths start
    versions: tuple[tuple[str, str], ...]
    reads: tuple[str, ...]

    @classmethod
    def here(cls, reads: Sequence[Path]) -> _Machine:
        return cls(str(Path.cwd()), tuple(package_versions().items()), tuple(map(str, reads)))


@lru_cache(maxsize=8)
def _require_same(machine: _Machine) -> None:
    """Go to the folder of the driver; refuse a machine of other software or without the files."""
    here = f"engine: ray: the machine {platform.node()}"
    with suppress(OSError):  # relative paths are then missing, which is said below
        os.chdir(machine.folder)
    installed = package_versions()
    for name, version in machine.versions:
        if installed.get(name) != version:
            raise InputError(f"{here} has {name} {installed.get(name)}, not {version}")
    for path in machine.reads:
        if not os.access(path, os.R_OK):
            raise InputError(f"{here} cannot read {path}; put it where all machines see it")


def _call(machine: _Machine, work: Callable[[Any], Any], rows: list[Any]) -> Any:
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(1)
    _require_same(machine)
    return work(rows)


def _start_pool(workers: int) -> ProcessPoolExecutor:
    context = worker_context(_PRELOADED)
    return ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker)


# If possible, a small server process forks the workers: a fork of a process with threads can hang.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_Context: Any = type(multiprocessing.get_context(_METHOD))
_main_module_lock = threading.Lock()


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Hide the main module of this process from processes that start in the block."""
    with _main_module_lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


class _WorkerProcess(_Context.Process):
    """A worker process that does not import the main module of its parent."""

    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802 - the method that `multiprocessing` calls
        with _without_main_module():
            return _Context.Process._Popen(process)


class _WorkerContext(_Context):
    """A start method with our worker processes."""

    Process = _WorkerProcess


def worker_context(*modules: str) -> BaseContext:
    """Return a `multiprocessing` context whose processes do not run the caller's script again."""
    context: BaseContext = _WorkerContext()
    if _METHOD == "forkserver":
        context.set_forkserver_preload(list(modules))
        _start_server()
    return context


def _start_server() -> None:
    """Start the server with SIGINT blocked, as its forks then are: Ctrl-C is the parent's."""
    from multiprocessing import forkserver, resource_tracker

    safe_path = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        resource_tracker.ensure_running()  # first: its own start unblocks the signal
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    finally:
        del os.environ["PYTHONSAFEPATH"]
        if safe_path is not None:
            os.environ["PYTHONSAFEPATH"] = safe_path


def begin_worker() -> None:
    """Prepare this worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has ended: a killed parent cannot end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Progress(Protocol):
    """Interface by which long work shows messages and progress to the user."""

    def say(self, text: str = "") -> None:
        """Show a message of one line."""

    def track(
        self, description: str, total: int | None
    ) -> AbstractContextManager[Callable[..., None]]:
        """Show the progress of the work in a ``with`` block."""


class Silence:
    """Implementation of the interface `Progress` that shows no messages and no progress."""

    def say(self, text: str = "") -> None:
        """Show no message."""

    @contextmanager
    def track(self, description: str, total: int | None) -> Iterator[Callable[..., None]]:
        """Show no progress of the work in a ``with`` block."""
        yield lambda *count: None
