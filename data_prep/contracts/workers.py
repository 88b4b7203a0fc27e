"""Work over many rows in processes or threads: ordered, bounded memory, survives a crash."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import copy_context
from itertools import islice
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import cv2

Row = TypeVar("Row")
Result = TypeVar("Result")

_CHUNKS_AHEAD = 4  # per worker: enough to keep all busy, few enough to bound memory
_CHUNK_SECONDS = 0.02  # of work sent at a time: some forty times what sending it takes
_MOST_ROWS = 256  # in a chunk


def cpu_count() -> int:
    """Processors that this process may use; containers and schedulers grant fewer than exist."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """The processor's model, such as ``AMD EPYC 9654``; its kind where the system names none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def map_rows(
    function: Callable[[Row], Result],
    rows: Iterable[Row],
    *,
    workers: int,
    lost: Callable[[Row], Result],
) -> Iterator[Result]:
    """Apply a function to each row, in worker processes, results in the order of the rows.

    Quick rows are sent several at a time, since sending one takes half a millisecond; a row of a
    fiftieth of a second or more goes alone. A decoder in C can end its process on a broken file.
    The rows that were under way are then tried again one by one, so that one bad file costs one row
    and not the job.

    Args:
        function: Pure function of one row, importable by name (the workers are not forks).
        rows: Read lazily; at most four a worker are under way, or what they do in a twelfth of a
            second.
        workers: Processes; 0 and 1 work in this process, without protection from crashes.
        lost: Gives the result for a row whose process died.

    Yields:
        One result per row.

    Raises:
        RuntimeError: Worker processes cannot start at all.

    Example:
        >>> list(map_rows(abs, [-2, 1], workers=1, lost=lambda row: 0))
        [2, 1]
    """
    if workers <= 1:
        yield from map(function, rows)
        return
    source, pending = iter(rows), _Pending[Row, Result]()
    pool, n_rows = _start_pool(workers), 1
    try:
        while True:
            while len(pending) < workers * _CHUNKS_AHEAD and (
                chunk := list(islice(source, n_rows))
            ):
                pending.append((chunk, _submit(pool, function, chunk)))
            if not pending:
                return
            if _died(pending[0][1]):
                yield from _one_by_one(function, pending, lost)
                pool.shutdown(wait=True, cancel_futures=True)
                pool, n_rows = _start_pool(workers), 1
                continue
            results, seconds = pending.popleft()[1].result()
            # Rows differ, the first of all most: a chunk grows twofold at a time.
            enough = round(_CHUNK_SECONDS * len(results) / max(seconds, 1e-6))
            n_rows = max(1, min(enough, 2 * n_rows, _MOST_ROWS))
            yield from results
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_Chunk: TypeAlias = tuple[list[Result], float]
_Pending: TypeAlias = deque[tuple[list[Row], Future[_Chunk[Result]]]]


_END = object()


def read_ahead(rows: Iterable[Row], *, most: int = 2) -> Iterator[Row]:
    """Draw rows in a thread of their own while the caller works on those before.

    Args:
        rows: Read in that thread alone, one after another.
        most: How many are drawn before they are asked for.

    Yields:
        The rows in their order. What goes wrong with one is raised in its place.

    Example:
        >>> list(read_ahead(range(4)))
        [0, 1, 2, 3]
    """
    source, context = iter(rows), copy_context()  # a thread begins without the caller's

    def draw() -> Any:
        return context.run(next, source, _END)

    with ThreadPoolExecutor(1, "read-ahead") as reader:
        pending = deque(reader.submit(draw) for _ in range(most))
        try:
            while (row := pending.popleft().result()) is not _END:
                pending.append(reader.submit(draw))
                yield row
        finally:
            reader.shutdown(cancel_futures=True)


def write_behind(write: Callable[[Row], object], rows: Iterable[Row]) -> None:
    """Write each row in a thread of its own while the next one is made.

    One row at most waits for the one before it. However it ends, what was begun is written to its
    end before this returns or raises.

    Args:
        write: Called with one row after another, in their order.
        rows: Made in the caller's thread.

    Example:
        >>> written: list[int] = []
        >>> write_behind(written.append, range(3))
        >>> written
        [0, 1, 2]
    """
    call = copy_context().run
    with ThreadPoolExecutor(1, "write-behind") as writer:
        last: Future[object] | None = None
        for row in rows:
            if last is not None:
                last.result()
            last = writer.submit(call, write, row)
        if last is not None:
            last.result()


def _work(function: Callable[[Row], Result], rows: list[Row]) -> _Chunk[Result]:
    """Results of some rows, and the seconds that they took."""
    start = time.perf_counter()
    return [function(row) for row in rows], time.perf_counter() - start


def _submit(
    pool: ProcessPoolExecutor, function: Callable[[Row], Result], rows: list[Row]
) -> Future[_Chunk[Result]]:
    try:
        return pool.submit(_work, function, rows)
    except BrokenProcessPool as error:  # it died since the last answer
        never: Future[_Chunk[Result]] = Future()
        never.set_exception(error)
        return never


def _died(future: Future[Any]) -> bool:
    """Wait for an answer; True if its process died instead."""
    return isinstance(future.exception(), BrokenProcessPool)


def _one_by_one(
    function: Callable[[Row], Result],
    pending: _Pending[Row, Result],
    lost: Callable[[Row], Result],
) -> Iterator[Result]:
    """Results of what was under way when a process died; empties it."""
    pool = _start_pool(1)
    try:
        while pending:
            rows, future = pending.popleft()
            if not _died(future):
                yield from future.result()[0]
                continue
            for row in rows:
                answer = _submit(pool, function, [row])
                if not _died(answer):
                    yield answer.result()[0][0]
                    continue
                survived, result = try_alone(function, row)
                yield cast(Result, result) if survived else lost(row)
                pool.shutdown(wait=True)
                pool = _start_pool(1)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def try_alone(function: Callable[[Row], Result], row: Row) -> tuple[bool, Result | None]:
    """Apply a function to a row in a process of its own.

    Args:
        function: As for `map_rows`.
        row: What it is applied to.

    Returns:
        Whether the process survived it, and the result.

    Raises:
        RuntimeError: Worker processes cannot start at all.
    """
    with _start_pool(1) as pool:
        try:
            pool.submit(cpu_count).result()
        except BrokenProcessPool:
            raise RuntimeError(
                "worker processes cannot start; use workers=1, and in a script of your own keep "
                'the call under `if __name__ == "__main__":`'
            ) from None
        try:
            return True, pool.submit(function, row).result()
        except BrokenProcessPool:
            return False, None


def _start_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=_context(), initializer=_begin_worker)


def _context() -> BaseContext:
    """Start workers from a small server: forks of a process with threads can hang for ever."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_prep.store.decode"])
    _start_server()
    return context


def _start_server() -> None:
    """Start the server deaf to Ctrl-C, as its forks then are: it is the parent's to handle.

    Else it, or a worker that is not ready yet, dies of it amid an import and shows where. It must
    not import from the user's folder either, as Python by itself would: a folder there that is
    called like a module of some library ends it.
    """
    with _environment("PYTHONSAFEPATH", "1"):
        resource_tracker.ensure_running()  # first: its own start lets the signal through again
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot end its workers: they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
