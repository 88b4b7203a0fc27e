"""One function applied to many images, in processes of this machine or a Ray cluster.

A decoder written in C can crash its process on a damaged file. Such a file costs its own row and no
other: rows whose process ended are tried again, each alone.
"""

from __future__ import annotations

import textwrap
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from cxr_compare.data_prep.work.ray_cluster import CrashError, RayCluster
from cxr_compare.data_prep.work.worker_processes import begin_worker, worker_context

Row = TypeVar("Row")
Result = TypeVar("Result")
Workers: TypeAlias = int | RayCluster
"""Number of processes of this machine, or a Ray cluster."""

_BATCHES_A_PROCESS = 2  # one that it works on, one that waits for it
_BATCHES_A_PROCESSOR = 3  # of a cluster, where the way is longer
_ATTEMPTS = 3  # further ones, of a row in a cluster whose processes or machines end


def map_images(
    function: Callable[[Row], Result],
    rows: Iterable[Row],
    workers: Workers,
    *,
    on_crash: Callable[[Row], Result],
    together: int = 1,
    reads: Sequence[Path] = (),
) -> Iterator[Result]:
    """Apply a function to each row, and yield one result a row, in order.

    A row is one argument of the function, such as the path of an image. Few rows are under way at a
    time, so that memory does not grow with their number. The function has no side effects and can
    be imported by its name. If it raises an error, it is raised here, with a note that shows the
    row. `on_crash` returns a replacement result for a row that ends its process each time it is
    tried; with 0 and 1 `workers` the function runs in this process, which a crash then ends.

    A process gets `together` rows at a time, since sending a row takes about 0.2 ms. `reads` are
    files or folders that the function reads; a machine of a cluster that cannot read one of them
    raises an `InputError`.
    """
    work = partial(_apply, function)
    source = iter(rows)
    if isinstance(workers, RayCluster):
        pool: _Processes[Row, Result] | _ClusterTasks[Row, Result]
        pool = _ClusterTasks(work, workers, reads)
    elif workers <= 1:
        for row in source:
            yield from work([row])
        return
    else:
        pool = _Processes(work, workers)
    pending = deque[tuple[list[Row], Any]]()
    try:
        while True:
            while len(pending) < pool.most_batches():
                batch = list(islice(source, together))
                if not batch:
                    break
                pending.append((batch, pool.send(batch)))
            if not pending:
                return
            batch, sent = pending.popleft()
            try:
                results = iter(pool.receive(sent))
            except CrashError:
                results = _one_by_one(pool, batch, on_crash)
            del sent  # a cluster keeps results in memory as long as they are referred to
            yield from results
    finally:
        pool.close([sent for _, sent in pending])


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


def _one_by_one(
    pool: _Processes[Row, Result] | _ClusterTasks[Row, Result],
    rows: list[Row],
    on_crash: Callable[[Row], Result],
) -> Iterator[Result]:
    for row in rows:
        try:
            result = pool.try_alone(row)
        except CrashError:
            result = on_crash(row)
        yield result


class _Processes(Generic[Row, Result]):
    """Processes of this machine. If one ends, the batches of all are lost."""

    def __init__(self, work: Callable[[list[Row]], list[Result]], workers: int) -> None:
        self._work = work
        self._workers = workers
        self._pool = _start_pool(workers)

    def most_batches(self) -> int:
        return _BATCHES_A_PROCESS * self._workers

    def send(self, rows: list[Row]) -> Future[list[Result]]:
        try:
            return self._pool.submit(self._work, rows)
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = _start_pool(self._workers)
            return self._pool.submit(self._work, rows)

    def receive(self, sent: Future[list[Result]]) -> list[Result]:
        try:
            return sent.result()
        except BrokenProcessPool:
            raise CrashError from None

    def try_alone(self, row: Row) -> Result:
        """Work on a row in a process of its own, so that no other can end it."""
        with _start_pool(1) as pool:
            try:
                pool.submit(int).result()
            except BrokenProcessPool:
                raise RuntimeError(
                    "worker processes cannot start on this machine; use workers=1"
                ) from None
            return self.receive(pool.submit(self._work, [row]))[0]

    def close(self, _: list[Any]) -> None:
        self._pool.shutdown(cancel_futures=True)


def _start_pool(workers: int) -> ProcessPoolExecutor:
    context = worker_context("cxr_compare.data_prep.store.decode")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker)


class _ClusterTasks(Generic[Row, Result]):
    """Tasks of a Ray cluster, each with one processor. A process that ends costs its own batch."""

    def __init__(
        self,
        work: Callable[[list[Row]], list[Result]],
        cluster: RayCluster,
        reads: Sequence[Path],
    ) -> None:
        self._work = work
        self._cluster = cluster
        self._reads = reads

    def most_batches(self) -> int:
        return self._cluster.most_tasks(_BATCHES_A_PROCESSOR)

    def send(self, rows: list[Row]) -> Any:
        return self._cluster.start(self._work, rows, self._reads, num_cpus=1, max_retries=0)

    def receive(self, sent: Any) -> list[Result]:
        results: list[Result] = self._cluster.result(sent)
        return results

    def try_alone(self, row: Row) -> Result:
        options = {"num_cpus": 1, "max_retries": _ATTEMPTS}
        return self.receive(self._cluster.start(self._work, [row], self._reads, **options))[0]

    def close(self, sent: list[Any]) -> None:
        self._cluster.cancel(sent)
