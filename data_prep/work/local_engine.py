"""An engine of worker processes on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.work.chunks import (
    CrashError,
    Result,
    Row,
    SoloTrial,
    TimedResults,
    apply_timed,
    map_in_chunks,
)
from cxr_compare.data_prep.work.freed_memory import keep_freed_memory
from cxr_compare.data_prep.work.worker_processes import begin_worker, worker_context

_CHUNKS_PER_WORKER = 4


@dataclass(frozen=True)
class LocalEngine:
    """Worker processes of this machine that apply a function to many rows.

    A row is one argument of the function. The class implements the interface
    `data_prep.work.engine.Engine`.

    Attributes:
        workers: Number of processes. With 0 and 1 the function runs in this process, which a crash
            then ends.

    Example:
        >>> list(LocalEngine(workers=1).map_rows(abs, [-1, 2], on_crash=lambda row: 0))
        [1, 2]
    """

    workers: int

    def map_rows(
        self,
        function: Callable[[Row], Result],
        rows: Iterable[Row],
        *,
        on_crash: Callable[[Row], Result],
        reads: Sequence[Path] = (),
    ) -> Iterator[Result]:
        """Apply a function to each row; see `data_prep.work.engine.Engine.map_rows`.

        Args:
            function: A function without side effects that can be imported by its name.
            rows: Arguments of the function, which are read when they are needed.
            on_crash: Function that returns a replacement result for a row on which every process
                crashes.
            reads: Files or folders that the function reads; this machine has them.

        Yields:
            The results in the order of the rows.
        """
        if self.workers <= 1:
            keep_freed_memory()
            yield from map(function, rows)
            return
        yield from map_in_chunks(_WorkerPool(function, self.workers), rows, on_crash)


class _WorkerPool(Generic[Row, Result]):
    """Worker processes of this machine; see `data_prep.work.chunks.Workers`."""

    chunk_seconds = 0.02
    max_rows = 256

    def __init__(self, function: Callable[[Row], Result], workers: int) -> None:
        self._function = function
        self._workers = workers
        self._pool = _start_pool(workers)

    def chunk_capacity(self) -> int:
        return _CHUNKS_PER_WORKER * self._workers

    def send(self, rows: list[Row]) -> Future[TimedResults[Result]]:
        try:
            return self._pool.submit(apply_timed, self._function, rows)
        except BrokenProcessPool:
            self.cancel([])
            self._pool = _start_pool(self._workers)
            return self._pool.submit(apply_timed, self._function, rows)

    def receive(self, ticket: Future[TimedResults[Result]]) -> TimedResults[Result]:
        try:
            return ticket.result()
        except BrokenProcessPool:
            raise CrashError from None

    def try_alone(self, row: Row) -> SoloTrial[Result]:
        return try_alone(self._function, row)

    def cancel(self, tickets: list[Any]) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def try_alone(function: Callable[[Row], Result], row: Row) -> SoloTrial[Result]:
    """Apply a function to one row in a new process, which may crash.

    Args:
        function: A function that can be imported by its name.
        row: Argument of the function.

    Returns:
        The result, and False if the process ended before it returned one.

    Raises:
        RuntimeError: No worker process can start on this machine.
    """
    with _start_pool(1) as pool:
        try:
            pool.submit(cpu_count).result()
        except BrokenProcessPool:
            raise RuntimeError(
                "worker processes cannot start on this machine; use workers=1"
            ) from None
        try:
            return SoloTrial(survived=True, result=pool.submit(function, row).result())
        except BrokenProcessPool:
            return SoloTrial(survived=False, result=None)


def _start_pool(workers: int) -> ProcessPoolExecutor:
    context = worker_context("cxr_compare.data_prep.store.decode")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker)
