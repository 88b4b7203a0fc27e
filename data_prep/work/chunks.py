"""Division of rows into chunks, on which worker processes of any machine work.

A decoder written in C can crash its process on a damaged file. The rows of that chunk are then
tried again one by one, so that a bad file costs one row and not the whole job.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

Row = TypeVar("Row")
Result = TypeVar("Result")


class CrashError(Exception):
    """Error about a worker process or its machine that ended before it returned results."""


class TimedResults(NamedTuple, Generic[Result]):
    """Results of a function for several rows (a chunk), with the time that they took.

    Attributes:
        results: One result for each row, in the order of the rows.
        seconds: Time in seconds that the worker process needed for all rows.
    """

    results: list[Result]
    seconds: float


class SoloTrial(NamedTuple, Generic[Result]):
    """Result of a function for one row, in a process of its own, which may have crashed.

    Attributes:
        survived: False if the process ended before it returned a result.
        result: Value that the function returned; None if the process ended before.
    """

    survived: bool
    result: Result | None


class Workers(Protocol[Row, Result]):
    """Interface of worker processes that apply one function to many rows, several at a time.

    A row is one argument of the function, such as the path of an image. Rows are sent to processes
    in groups, called chunks.

    Attributes:
        chunk_seconds: Time in seconds that the work on a chunk should take; many times the time for
            sending it.
        max_rows: Largest number of rows in a chunk.
    """

    chunk_seconds: float
    max_rows: int

    def chunk_capacity(self) -> int:
        """Return how many chunks may be in progress at the same time.

        The number keeps all processors busy, but limits the memory.
        """

    def send(self, rows: list[Row]) -> Any:
        """Start the work on a chunk of rows, without waiting for it.

        Args:
            rows: Rows of the chunk.

        Returns:
            Ticket with which `receive` waits for the results.
        """

    def receive(self, ticket: Any) -> TimedResults[Result]:
        """Wait for the results of a chunk of rows.

        Args:
            ticket: Value that `send` returned for the chunk.

        Raises:
            CrashError: The worker process or its machine ended.
        """

    def try_alone(self, row: Row) -> SoloTrial[Result]:
        """Apply the function to one row in a process of its own, which may crash.

        Args:
            row: Argument of the function.

        Returns:
            The result, and whether the process survived.
        """

    def cancel(self, tickets: list[Any]) -> None:
        """Give up chunks that are still in progress, because their results are no longer needed.

        Args:
            tickets: Values that `send` returned for these chunks.
        """


def map_in_chunks(
    workers: Workers[Row, Result], rows: Iterable[Row], on_crash: Callable[[Row], Result]
) -> Iterator[Result]:
    """Apply the function of worker processes to rows, and yield the results in order.

    Args:
        workers: Object with the worker processes, which have the function. Rows are sent to them in
            groups, called chunks.
        rows: Arguments of the function, which are read when they are needed.
        on_crash: Function that returns a replacement result for a row on which every process
            crashes.

    Yields:
        The results in the order of the rows.
    """
    source = iter(rows)
    pending = deque[tuple[list[Row], Any]]()
    chunk_rows = 1
    try:
        while True:
            while len(pending) < workers.chunk_capacity():
                chunk = list(islice(source, chunk_rows))
                if not chunk:
                    break
                pending.append((chunk, workers.send(chunk)))
            if not pending:
                return
            chunk, ticket = pending.popleft()
            try:
                results, seconds = workers.receive(ticket)
            except CrashError:
                yield from _map_one_by_one(workers, chunk, on_crash)
                chunk_rows = 1
                continue
            del ticket  # a cluster keeps the results in memory as long as their ticket exists
            # Rows differ, and the first takes longest: a chunk grows at most twofold at a time.
            rows_in_time = round(workers.chunk_seconds * len(results) / max(seconds, 1e-6))
            chunk_rows = max(1, min(rows_in_time, 2 * chunk_rows, workers.max_rows))
            yield from results
    finally:
        workers.cancel([ticket for _, ticket in pending])


def _map_one_by_one(
    workers: Workers[Row, Result], rows: list[Row], on_crash: Callable[[Row], Result]
) -> Iterator[Result]:
    for row in rows:
        try:
            yield workers.receive(workers.send([row])).results[0]
        except CrashError:
            trial = workers.try_alone(row)
            yield cast(Result, trial.result) if trial.survived else on_crash(row)


def apply_timed(function: Callable[[Row], Result], rows: Iterable[Row]) -> TimedResults[Result]:
    """Apply a function to several rows, and measure the time.

    Args:
        function: Function of one argument.
        rows: Arguments of the function.

    Returns:
        The results in the order of the rows, and the time in seconds.

    Example:
        >>> apply_timed(abs, [-2, 1]).results
        [2, 1]
    """
    start = time.perf_counter()
    results = [function(row) for row in rows]
    return TimedResults(results, time.perf_counter() - start)
