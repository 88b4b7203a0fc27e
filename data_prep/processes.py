"""Processes of this machine, which end with the one that started them.

Apart from `parallel`, as a browser's Python has none.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from types import ModuleType
from typing import Any

# Imported once, before the workers are forked.
_PRELOADED = ("cxr_compare.data_prep.pixels", "cv2", "simplejpeg")


def start_pool(workers: int) -> ProcessPoolExecutor:
    """Start processes that take tasks."""
    context = worker_context(*_PRELOADED)
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
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has ended: a killed parent cannot end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
