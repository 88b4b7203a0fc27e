"""Rows worked on in processes of this machine, and chunk by chunk in those of any machine.

A decoder in C can end its process on a broken file: the rows that were under way are then tried
again one by one, so that one bad file costs one row and not the job.
"""

from __future__ import annotations

import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from cxr_compare.data_prep.contracts.processors import usable_processors
from cxr_compare.data_prep.work.processes import begin_worker, worker_context

Row = TypeVar("Row")
Result = TypeVar("Result")


class Engine(Protocol):
    """What applies a function to many rows."""

    def map_rows(
        self,
        function: Callable[[Row], Result],
        rows: Iterable[Row],
        *,
        on_crash: Callable[[Row], Result],
        reads: Sequence[Path] = (),
    ) -> Iterator[Result]:
        """Apply a function to each row; results come in the order of the rows.

        The function is pure and importable by name; rows are read lazily. `on_crash` gives the
        result for a row that ends each process that works on it. `reads` names some files that
        the function reads: where a machine lacks one, the work ends with one line.
        """


class Terminal(Protocol):
    """Shows lines and progress; the module `scripts.console` is one."""

    def say(self, text: str = "") -> None:
        """Show a line."""

    def progress(
        self, description: str, total: int | None
    ) -> AbstractContextManager[Callable[..., None]]:
        """Show how far a block is; gives a function to call with how many are done."""


@dataclass(frozen=True)
class LocalEngine:
    """Processes of this machine."""

    workers: int  # how many; 0 and 1 work in this process, without protection from crashes

    def map_rows(
        self,
        function: Callable[[Row], Result],
        rows: Iterable[Row],
        *,
        on_crash: Callable[[Row], Result],
        reads: Sequence[Path] = (),
    ) -> Iterator[Result]:
        """As `Engine.map_rows`."""
        if self.workers <= 1:
            yield from map(function, rows)
            return
        yield from map_in_chunks(_Pool(function, self.workers), rows, on_crash)


_QUOTAS = (  # of processor time in a period, where a container limits both: cgroup 2, then 1
    ("cpu.max",),
    ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"),
)


def cpu_count(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors that this process may use; containers and schedulers grant fewer than exist."""
    cores = usable_processors()
    for names in _QUOTAS:
        files = [cgroup / name for name in names]
        if all(path.is_file() for path in files):
            quota, period = " ".join(path.read_text() for path in files).split()
            if quota not in ("max", "-1"):
                cores = min(cores, -(-int(quota) // int(period)))
    return max(1, cores)


def processor_name() -> str:
    """The processor's model, such as ``AMD EPYC 9654``; its kind where the system names none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


# ----------------------------------------------------------------------- chunks of rows


class CrashError(Exception):
    """A worker process or its machine ended, and the answer with it."""


class _Workers(Protocol[Row, Result]):
    """Processes that apply one function to chunks of rows."""

    chunk_seconds: float  # of work in a chunk: many times what sending it takes
    most_rows: int  # in a chunk

    def room(self) -> int:
        """How many chunks may be under way: enough to keep all busy, few enough for memory."""

    def send(self, rows: list[Row]) -> Any:
        """Start work on a chunk; what is returned goes to `receive`."""

    def receive(self, answer: Any) -> tuple[list[Result], float]:
        """Wait for the results of a chunk, and the seconds that they took; or `CrashError`."""

    def try_alone(self, row: Row) -> tuple[bool, Result | None]:
        """Whether a process of its own survives a row, and the result."""

    def end(self, answers: list[Any]) -> None:
        """Drop what is still under way."""


def map_in_chunks(
    workers: _Workers[Row, Result], rows: Iterable[Row], on_crash: Callable[[Row], Result]
) -> Iterator[Result]:
    """Apply the function of some workers to rows; see `Engine`."""
    source, pending, n_rows = iter(rows), deque[tuple[list[Row], Any]](), 1
    try:
        while True:
            while len(pending) < workers.room() and (chunk := list(islice(source, n_rows))):
                pending.append((chunk, workers.send(chunk)))
            if not pending:
                return
            chunk, answer = pending.popleft()
            try:
                results, seconds = workers.receive(answer)
            except CrashError:
                yield from _one_by_one(workers, chunk, on_crash)
                n_rows = 1
                continue
            del answer  # and with it what a cluster holds for it
            # Rows differ, the first of all most: a chunk grows twofold at a time.
            enough = round(workers.chunk_seconds * len(results) / max(seconds, 1e-6))
            n_rows = max(1, min(enough, 2 * n_rows, workers.most_rows))
            yield from results
    finally:
        workers.end([answer for _, answer in pending])


def _one_by_one(
    workers: _Workers[Row, Result], rows: list[Row], on_crash: Callable[[Row], Result]
) -> Iterator[Result]:
    for row in rows:
        try:
            yield workers.receive(workers.send([row]))[0][0]
        except CrashError:
            survived, result = workers.try_alone(row)
            yield cast(Result, result) if survived else on_crash(row)


def apply_timed(
    function: Callable[[Row], Result], rows: Iterable[Row]
) -> tuple[list[Result], float]:
    """Results of some rows, and the seconds that they took."""
    start = time.perf_counter()
    return [function(row) for row in rows], time.perf_counter() - start


# ----------------------------------------------------------------- processes of this machine


class _Pool(Generic[Row, Result]):
    """Worker processes of this machine; see `_Workers`."""

    chunk_seconds, most_rows = 0.02, 256

    def __init__(self, function: Callable[[Row], Result], workers: int) -> None:
        self._function, self._workers = function, workers
        self._pool = _start_pool(workers)

    def room(self) -> int:
        return 4 * self._workers

    def send(self, rows: list[Row]) -> Future[tuple[list[Result], float]]:
        try:
            return self._pool.submit(apply_timed, self._function, rows)
        except BrokenProcessPool:
            self.end([])
            self._pool = _start_pool(self._workers)
            return self._pool.submit(apply_timed, self._function, rows)

    def receive(self, answer: Future[tuple[list[Result], float]]) -> tuple[list[Result], float]:
        try:
            return answer.result()
        except BrokenProcessPool:
            raise CrashError from None

    def try_alone(self, row: Row) -> tuple[bool, Result | None]:
        return try_alone(self._function, row)

    def end(self, answers: list[Any]) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def try_alone(function: Callable[[Row], Result], row: Row) -> tuple[bool, Result | None]:
    """Whether a process of its own survives applying a function to a row, and the result."""
    with _start_pool(1) as pool:
        try:
            pool.submit(cpu_count).result()
        except BrokenProcessPool:
            raise RuntimeError(
                "worker processes cannot start on this machine; use workers=1"
            ) from None
        try:
            return True, pool.submit(function, row).result()
        except BrokenProcessPool:
            return False, None


def _start_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=worker_context(), initializer=begin_worker)


# ------------------------------------------------------------ threads beside the work

_END = object()


def read_ahead(rows: Iterable[Row], *, most: int = 2) -> Iterator[Row]:
    """Draw rows in a thread of their own while the caller works on those before."""
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
