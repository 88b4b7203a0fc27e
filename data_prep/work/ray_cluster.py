"""Connection to a Ray cluster, which may be started on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError, first_line
from cxr_compare.data_prep.contracts.locks import LOCK_NAME, LockFile, remove_abandoned_folders
from cxr_compare.data_prep.contracts.processors import cpu_count

_OBJECT_STORE_MIB = 128  # per processor, for results that the driver has not fetched yet
_START_ATTEMPTS = 3
_CONNECT_TIMEOUT_S = 20.0  # for a cluster's head to accept a connection
_HEAD_TIMEOUT_S = 25.0  # for a head that restarts; Ray ends this process after 60 without a message
# Ray's sockets lie below its folder, and the operating system limits the length of their paths.
_LONGEST_SOCKET_PATH = 103 if sys.platform == "darwin" else 107  # bytes
_LONGEST_SOCKET_NAME = "session_2026-11-25_06-19-40_734526_4194304/sockets/plasma_store"
_PREFIX = "ray-cxr-"
_QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}


@contextlib.contextmanager
def connected_ray(address: str | None, workers: int | None) -> Iterator[ModuleType]:
    """Yield the module ``ray``, connected to a Ray cluster, for a ``with`` block.

    Args:
        address: Address of a running cluster, such as ``10.0.0.1:6379``, which stays running;
            ``auto`` finds one on this machine. None starts a cluster on this machine, which ends
            with the block.
        workers: Number of processors of a cluster that is started here; None takes all.

    Raises:
        InputError: There is no cluster at the address, or none can be started.
    """
    # Ray reads these when it is imported: nothing is reported to its maker, and what it says of a
    # dead worker is not printed to stdout. A cluster of our own listens on the loopback device
    # alone, and takes work only from those who have this token.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
    if address is None:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if ray.is_initialized():  # by the program that calls us
        yield ray
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    with scratch_folder() as scratch:
        try:
            # Ray has workers import from the folder in which the driver runs. Files in the user's
            # folder may be named like a module of some library.
            with contextlib.chdir(scratch), _keep_signal_handler(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Ray warns about its own future
                if address is None:
                    _start(ray, workers, scratch)
                else:
                    _join(ray, address)
            yield ray
        finally:
            ray.shutdown()
            _end_processes(scratch)


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    """Yield a new folder in which Ray can make its sockets, and remove it after the block.

    The folder lies in the folder for temporary files, or in ``/tmp`` if the path of that folder is
    too long. The folders that killed processes left there are removed first.

    Yields:
        Path of the folder.

    Example:
        >>> with scratch_folder() as scratch:
        ...     Path(scratch).is_dir()
        True
    """
    parent = Path(tempfile.gettempdir())
    longest_socket = parent / f"{_PREFIX}12345678" / _LONGEST_SOCKET_NAME
    if len(os.fsencode(longest_socket)) > _LONGEST_SOCKET_PATH:
        parent = Path("/tmp")  # noqa: S108
    remove_abandoned_folders(parent, f"{_PREFIX}*")
    scratch = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
    with contextlib.closing(LockFile(Path(scratch) / LOCK_NAME, None)):
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def require_head(ray: ModuleType) -> None:
    """Check that the main machine (head node) of a Ray cluster answers.

    The function waits some seconds, in which the machine may be unreachable.

    Args:
        ray: The module ``ray``, connected to the cluster.

    Raises:
        InputError: The main machine does not answer.
    """
    address = ray.get_runtime_context().gcs_address
    deadline = time.monotonic() + _HEAD_TIMEOUT_S
    while True:
        try:
            return _require_listener(address)
        except OSError:
            if time.monotonic() > deadline:
                raise InputError(
                    f"CXR_ENGINE=ray: the head of the cluster at {address} does not answer any "
                    "more; run the same command again to go on, once it does"
                ) from None
        time.sleep(1)


def _start(ray: ModuleType, workers: int | None, scratch: str) -> None:
    processors = cpu_count() if workers is None else max(1, workers)
    for attempts_left in reversed(range(_START_ATTEMPTS)):
        try:
            ray.init(
                "local",
                num_cpus=processors,
                include_dashboard=False,
                object_store_memory=(processors + 1) * _OBJECT_STORE_MIB * 2**20,
                _temp_dir=scratch,
                **_QUIET,
            )
            return
        except Exception as error:
            # Ray gives its parts half a minute, and has no exception type of its own for that.
            if "timed out" not in str(error):
                raise
            ray.shutdown()
            _end_processes(scratch)
            if not attempts_left:
                raise InputError(
                    "CXR_ENGINE=ray: Ray did not start, the machine is too busy; run the same "
                    "command again later, or unset CXR_ENGINE"
                ) from None


def _join(ray: ModuleType, address: str) -> None:
    try:
        _require_listener(address)
        ray.init(address, **_QUIET)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = first_line(error)
        raise InputError(
            f"CXR_ADDRESS={address}: cannot join a Ray cluster there ({reason}); start it with "
            "ray start, or unset CXR_ADDRESS for one on this machine"
        ) from None


def _require_listener(address: str) -> None:
    """Find out at once whether anybody listens: Ray itself tries for more than five minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ValueError("it is neither auto nor HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()


def _end_processes(scratch: str) -> None:
    """End the remaining processes of our own cluster: they alone name its folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            if scratch.encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


@contextlib.contextmanager
def _keep_signal_handler() -> Iterator[None]:
    """Keep the command's handler of SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
