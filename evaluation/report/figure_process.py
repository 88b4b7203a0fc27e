"""A process that draws figures while another one makes the rest of a report.

Drawing with matplotlib is Python code, and the threads of one process take turns to run such code.
A process of its own draws on another processor. On a computer with one processor the same process
draws as well, and the operating system lets both take turns.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.work.worker_processes import begin_worker, worker_context

_MODULES = (
    "cxr_compare.evaluation.report.figure_files",
    "cxr_compare.evaluation.report.inline_svg",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "matplotlib.backends.backend_svg",
)
"""Modules that the process needs. matplotlib imports the last three only when a file is written."""


def prepare_figure_process() -> None:
    """Begin to import matplotlib for the process of `figure_process`, and return at once.

    A command calls this function before it computes what will be drawn. Without the call, the
    process starts later; it draws the same. On Windows the function has no effect, because a
    process there does not begin as a copy of a prepared one.
    """
    if not _is_daemon():
        worker_context(*_MODULES)


@contextmanager
def figure_process() -> Iterator[Executor]:
    """Run functions that draw figures in a process of their own.

    A process that `multiprocessing` started as a daemon, such as a worker of
    `multiprocessing.Pool`, must not start processes. There, a thread draws.

    Yields:
        An executor, which runs one function at a time. Functions must be importable by name. What
        a function raises is raised again by ``result()`` of its future.

    Raises:
        InputError: The process has ended before it has drawn all figures.

    Example:
        >>> with figure_process() as process:
        ...     process.submit(abs, -2).result()
        2
    """
    try:
        with _start() as executor:
            yield executor
    except BrokenProcessPool:
        raise InputError(
            "the process that draws the figures was ended, perhaps for want of memory; run the "
            "same command again"
        ) from None


def _start() -> Executor:
    if _is_daemon():
        return ThreadPoolExecutor(1, "figures")
    context = worker_context(*_MODULES)
    return ProcessPoolExecutor(1, mp_context=context, initializer=begin_worker)


def _is_daemon() -> bool:
    return multiprocessing.current_process().daemon
