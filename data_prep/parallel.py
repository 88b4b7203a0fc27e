"""One function applied to many images, in processes of this machine or on a Ray cluster."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import socket
import tempfile
import textwrap
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from cxr_compare.data_prep.base.errors import InputError, first_line, require_extra
from cxr_compare.data_prep.base.provenance import package_versions

Row = TypeVar("Row")
Result = TypeVar("Result")
Engine = Literal["local", "ray"]
_RETRIES = 2  # of a task in a cluster, whose machine may have ended
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
) -> Iterator[Result]:
    """Apply a function to each row, and yield one result a row, in order.

    At most two batches a worker are under way, `together` rows each. If a process ends, the rows
    under way are tried one by one, so that the one that ends it gets the result of `on_crash`.
    """
    source = iter(rows)
    if engine == "local" and workers <= 1:
        for row in source:
            yield from _apply(function, [row])
        return
    pending: deque[tuple[list[Row], Any]] = deque()  # batches that were sent, each with its task
    pool: _Processes | _Ray = _Ray(workers) if engine == "ray" else _Processes(workers)
    try:
        while True:
            while len(pending) < 2 * pool.workers and (batch := list(islice(source, together))):
                pending.append((batch, pool.send(function, batch)))
            if not pending:
                return
            results: Iterable[Result]
            try:
                results = pool.results(pending[0][1])
                pending.popleft()
            except CrashError:  # the batches of all may be lost
                pool.restart()
                suspects = [row for batch, _ in pending for row in batch]
                pending.clear()
                results = (_alone(pool, function, row, on_crash) for row in suspects)
            yield from results
    finally:
        pool.close()


def in_thread(
    pool: ThreadPoolExecutor, function: Callable[[Row], Result], rows: Iterable[Row]
) -> Iterator[Result]:
    """Yield one result a row, in order; the thread of a pool works while the caller goes on.

    One row is under way at a time, and none after one that fails, whose error is raised here. The
    pool is the caller's, who ends it before what the function uses.
    """
    under_way: list[Future[Result]] = []
    for row in rows:
        results = [task.result() for task in under_way]
        under_way = [pool.submit(function, row)]
        yield from results
    for task in under_way:
        yield task.result()


def _alone(
    pool: _Processes | _Ray,
    function: Callable[[Row], Result],
    row: Row,
    on_crash: Callable[[Row], Result],
) -> Result:
    """Work on a row while no other is under way, which could end its process."""
    try:
        return pool.results(pool.send(function, [row]))[0]
    except CrashError:
        pool.restart()
        return on_crash(row)


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
        from concurrent.futures.process import BrokenProcessPool

        from cxr_compare.data_prep.processes import start_pool

        self.workers = workers
        self._start, self._broken = start_pool, BrokenProcessPool
        self._pool = start_pool(workers)

    def send(self, function: Callable[[Any], Any], rows: list[Any]) -> Future[list[Any]]:
        try:
            return self._pool.submit(_apply, function, rows)
        except self._broken as error:
            lost: Future[list[Any]] = Future()
            lost.set_exception(error)
            return lost

    def results(self, task: Future[list[Any]]) -> list[Any]:
        try:
            return task.result()
        except self._broken:
            raise CrashError from None

    def restart(self) -> None:
        # One that was started while the pool broke waits for work forever, and would be waited for.
        for process in [*self._pool._processes.values()]:
            process.kill()
        self._pool.shutdown()
        self._pool = self._start(self.workers)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class _Ray:
    """Tasks of a Ray cluster: that of ``RAY_ADDRESS``, or one of this machine."""

    def __init__(self, workers: int) -> None:
        self._stack = ExitStack()
        self._ray = self._stack.enter_context(ray_cluster(workers))
        self.workers = max(int(self._ray.cluster_resources().get("CPU", 1)), 1)
        self._task = self._ray.remote(max_retries=_RETRIES)(_apply_elsewhere)

    def send(self, function: Callable[[Any], Any], rows: list[Any]) -> Any:
        return self._task.remote(str(Path.cwd()), package_versions(), function, rows)

    def results(self, task: Any) -> list[Any]:
        errors = self._ray.exceptions
        self._ray.wait([task])
        try:
            results: list[Any] = self._ray.get(task)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError):
            raise CrashError from None
        except errors.RayTaskError as error:
            raise (error.cause or error) from None
        return results

    def restart(self) -> None:
        """Do nothing: only the task of the process that ended is lost."""

    def close(self) -> None:
        self._stack.close()


@contextmanager
def ray_cluster(workers: int) -> Iterator[Any]:
    """Join the Ray cluster of ``RAY_ADDRESS``, or start one on this machine for the block.

    A cluster that the program has joined already is taken, and stays.
    """
    require_extra("engine: ray", "cluster", "ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported to Ray's maker
    address = os.environ.get("RAY_ADDRESS")
    if not address:  # only who has the token sends work to a cluster of one's own
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if ray.is_initialized():
        yield ray
        return
    # Below /tmp, as the paths of Ray's sockets are limited.
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as scratch:
        local_options = {
            "num_cpus": max(workers, 1),
            "include_dashboard": False,
            "_temp_dir": scratch,
        }
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if address:
                    _require_listener(address)
                ray.init(
                    address or "local",
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    **({} if address else local_options),
                )
        except Exception as error:  # noqa: BLE001 - Ray raises bare ones
            where = f"RAY_ADDRESS={address}" if address else "engine: ray"
            raise InputError(
                f"{where}: cannot start or join a Ray cluster ({first_line(error)}); start one "
                "with ray start and name it in RAY_ADDRESS, or leave engine out"
            ) from None
        try:
            yield ray
        finally:
            ray.shutdown()


def _require_listener(address: str) -> None:
    """Find out at once whether anybody listens: Ray itself tries for more than five minutes."""
    host, _, port = address.rpartition(":")
    if address != "auto":
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()


def _apply_elsewhere(
    folder: str, versions: dict[str, str], function: Callable[[Any], Any], rows: list[Any]
) -> list[Any]:
    """Apply a function on a machine of a cluster, whose software must be that of the driver."""
    import cv2

    machine = f"engine: ray: the machine {platform.node()}"
    own_versions = package_versions()
    for name, version in versions.items():
        if own_versions.get(name) != version:
            raise InputError(f"{machine} has {name} {own_versions.get(name)}, not {version}")
    if not Path(folder).is_dir():
        raise InputError(f"{machine} has no {folder}; put it where all machines see it")
    os.chdir(folder)
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(1)
    return _apply(function, rows)


class Progress(Protocol):
    """Interface by which long work shows messages and progress to the user."""

    def say(self, text: str) -> None:
        """Show a message of one line."""

    def track(self, description: str, total: int) -> AbstractContextManager[Callable[..., None]]:
        """Show the progress of the work in a ``with`` block."""


class Silence:
    """Implementation of the interface `Progress` that shows no messages and no progress."""

    def say(self, text: str) -> None:
        """Show no message."""

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Callable[..., None]]:
        """Show no progress of the work in a ``with`` block."""
        yield lambda *count: None
