"""An engine that applies a function to rows in a Ray cluster.

Ray is imported when a cluster is needed. Few Ray tasks are in progress at a time, and each has rows
for a quarter of a second, so that neither memory nor the work of Ray itself grows with the number
of rows.
"""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import ModuleType
from typing import Any, Generic

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.work.chunks import (
    CrashError,
    Result,
    Row,
    SoloTrial,
    TimedResults,
    apply_timed,
    map_in_chunks,
)
from cxr_compare.data_prep.work.local_engine import try_alone
from cxr_compare.data_prep.work.machine_requirements import MachineRequirements, prepare_machine
from cxr_compare.data_prep.work.ray_cluster import connected_ray, require_head

CHUNKS_PER_PROCESSOR = 3
"""Chunks of rows that are under way at a time, for each processor of the cluster."""
_RECHECK_S = 5.0  # after which a cluster's head and processors are checked again
# Attempts at a single row if its machine ends each time. If only the child process of the worker
# ends, the row itself is the cause and is not tried again.
_MACHINE_ATTEMPTS = 20


class RayEngine:
    """Engine that applies a function to many rows on the machines of a Ray cluster.

    A row is one argument of the function. `data_prep.work.engine.open_engine` makes the object.

    Args:
        cluster: Stack to which the end of the connection to the cluster is added; the caller closes
            the stack.
        address: Address of a running cluster; None starts a cluster on this machine.
        workers: Number of processors of a cluster that is started here; None uses all.
    """

    def __init__(
        self, cluster: contextlib.ExitStack, address: str | None, workers: int | None
    ) -> None:
        self._cluster = cluster
        self._address = address
        self._workers = workers
        self._ray: ModuleType | None = None

    def connect(self) -> ModuleType:
        """Join or start the cluster, and return the module ``ray``.

        `map_rows` calls this method at its first row.

        Raises:
            InputError: There is no cluster at the address, or it has no processors.
        """
        if self._ray is None:
            self._ray = self._cluster.enter_context(connected_ray(self._address, self._workers))
            if not self._ray.cluster_resources().get("CPU"):
                raise InputError(f"CXR_ADDRESS={self._address}: the cluster has no processors")
        return self._ray

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
            reads: Files or folders that the function reads, which every machine must be able to
                read.

        Yields:
            The results in the order of the rows.
        """
        source = iter(rows)
        first = list(islice(source, 1))
        if not first:  # there is nothing to start a cluster for
            return
        # The processors of a cluster that is started here are limited when it starts.
        max_chunks = self._workers if self._address is not None else None
        job = _Job(function, MachineRequirements.from_this_machine(reads))
        tasks = _RayTasks(self.connect(), job, max_chunks)
        yield from map_in_chunks(tasks, chain(first, source), on_crash)

    def start(
        self, function: Callable[[Row], Result], row: Row, reads: Sequence[Path], **options: Any
    ) -> Any:
        """Start the function for a single row in the cluster, without waiting for its result.

        Args:
            function: A function that can be imported by its name.
            row: Argument of the function.
            reads: Files and folders that the function reads, which the machine must be able to
                read.
            **options: Options of ``ray.remote`` by name, such as ``num_gpus=1``.

        Returns:
            Ray's reference to the result, for `ray_result`.
        """
        job = _Job(function, MachineRequirements.from_this_machine(reads))
        return self.connect().remote(**options)(_run_row).remote(job, row)


class _RayTasks(Generic[Row, Result]):
    """The tasks of one call; see `data_prep.work.chunks.Workers`."""

    chunk_seconds = 0.25  # some hundred times what Ray takes for a task
    max_rows = 1024

    def __init__(self, ray: ModuleType, job: _Job[Row, Result], max_chunks: int | None) -> None:
        self._ray = ray
        self._job = job
        self._max_chunks = max_chunks
        self._run_rows = ray.remote(num_cpus=1, max_retries=0)(_run_rows)
        self._run_alone = ray.remote(num_cpus=1, max_retries=_MACHINE_ATTEMPTS)(_run_alone)
        self._processors = 0
        self._checked_at = float("-inf")

    def chunk_capacity(self) -> int:
        # The processors of a cluster come and go.
        if time.monotonic() - self._checked_at > _RECHECK_S:
            require_head(self._ray)
            self._processors = int(self._ray.cluster_resources().get("CPU", 0))
            self._checked_at = time.monotonic()
        chunks = max(1, self._processors) * CHUNKS_PER_PROCESSOR
        return min(chunks, self._max_chunks or chunks)

    def send(self, rows: list[Row]) -> Any:
        return self._run_rows.remote(self._job, pickle.dumps(rows, pickle.HIGHEST_PROTOCOL))

    def receive(self, ticket: Any) -> TimedResults[Result]:
        pickled = self._wait(ticket)
        timed: TimedResults[Result] = pickle.loads(pickled)  # noqa: S301 - from our own worker
        return timed

    def try_alone(self, row: Row) -> SoloTrial[Result]:
        try:
            trial: SoloTrial[Result] = self._wait(self._run_alone.remote(self._job, row))
        except CrashError:  # each attempt ended with its machine, or for want of memory
            require_head(self._ray)  # without a head it is no row's fault
            return SoloTrial(survived=False, result=None)
        return trial

    def cancel(self, tickets: list[Any]) -> None:
        if self._ray.is_initialized():  # otherwise all tasks have ended
            for ticket in tickets:
                self._ray.cancel(ticket)

    def _wait(self, ticket: Any) -> Any:
        while True:
            with contextlib.suppress(self._ray.exceptions.GetTimeoutError):
                return ray_result(self._ray, ticket, timeout=_RECHECK_S)
            require_head(self._ray)


def ray_result(ray: ModuleType, reference: Any, *, timeout: float) -> Any:
    """Wait for the result of a task in a Ray cluster; raise the error that the task raised.

    Args:
        ray: The module ``ray``, connected to the cluster.
        reference: Ray's reference to the result, as `RayEngine.start` returns it.
        timeout: Longest waiting time, in seconds.

    Returns:
        The value that the task returned.

    Raises:
        CrashError: The process or the machine of the task ended.
        InputError: The task raised an ``InputError``, a machine cannot import cxr-compare, or Ray
            on this machine has ended.
        ray.exceptions.GetTimeoutError: There is no result yet.
    """
    errors = ray.exceptions
    crashes = (
        errors.WorkerCrashedError,
        errors.NodeDiedError,
        errors.OutOfMemoryError,
        errors.ObjectLostError,
        errors.TaskUnschedulableError,
    )
    try:
        return ray.get(reference, timeout=timeout)
    except errors.RayTaskError as error:
        cause = getattr(error, "cause", None)
        text = str(error)
        if isinstance(cause, InputError):
            raise cause from None
        if "failed to import" in text or "No module named" in text:
            raise InputError(
                "CXR_ENGINE=ray: a machine of the cluster cannot import cxr-compare "
                f"({text.strip().splitlines()[-1]}); install the same version on all of them"
            ) from None
        raise cause or error from None
    except crashes as error:
        raise CrashError from error
    except errors.LocalRayletDiedError:  # no row's fault: nothing can be sent
        raise InputError(
            "CXR_ENGINE=ray: the Ray on this machine has ended; start it again, then run the "
            "same command again to go on"
        ) from None


# The functions below run in the workers.


@dataclass(frozen=True)
class _Job(Generic[Row, Result]):
    """The function of a task, and what its machine must have."""

    function: Callable[[Row], Result]
    requirements: MachineRequirements


def _run_rows(job: _Job[Row, Result], pickled_rows: bytes) -> bytes:
    """Return the pickled `TimedResults` of pickled rows.

    They are pickled here because Ray would handle every array in them apart, which takes longer.
    """
    prepare_machine(job.requirements)
    rows = pickle.loads(pickled_rows)  # noqa: S301 - from our own driver
    return pickle.dumps(apply_timed(job.function, rows), pickle.HIGHEST_PROTOCOL)


def _run_alone(job: _Job[Row, Result], row: Row) -> SoloTrial[Result]:
    prepare_machine(job.requirements)
    return try_alone(job.function, row)


def _run_row(job: _Job[Row, Result], row: Row) -> Result:
    prepare_machine(job.requirements)
    return job.function(row)
