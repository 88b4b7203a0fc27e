"""The processes of one training: those of `cxr train --devices N`, and those of a launcher.

`--devices` starts one process a device on this machine, with torchrun's variables, and watches
them. Each runs the same command. The first writes the run folder and the terminal; the output of
the others is kept and shown only where one of them fails first.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import IO

from data_prep.contracts.errors import InputError
from scripts import console
from scripts.machines.child_processes import interrupt, start
from training.processes import GRACE, Rank

_POLL = 0.1  # s
_REPORT_GRACE = GRACE / 3  # s: the first process may be about to report the same by itself
_GRACE = 60.0  # s, to end after Ctrl-C
_INTERRUPTED, _TERMINATED = 130, 143


def own_rank(devices: int) -> Rank | None:
    """This process among those of one training; None where it is alone.

    Args:
        devices: What the command asks for, which must be what its launcher started.
    """
    rank = Rank.of(os.environ)
    if rank is None:
        tasks = os.environ.get("SLURM_NTASKS", "1")
        if tasks not in ("1", str(devices)) and "SLURM_STEP_NUM_TASKS" not in os.environ:
            console.say(
                f"note: this SLURM job has {tasks} tasks, and one of them trains; start it with "
                "srun to use them all"
            )
        return None
    if devices not in (1, rank.world_size):
        raise InputError(
            f"--devices {devices}: {rank.launcher} has started {rank.world_size} processes; "
            "leave --devices out"
        )
    return rank


def run_on_devices(arguments: Sequence[str], devices: int) -> int:
    """Run one `cxr` command in several processes that form one training; its exit status.

    Raises:
        InputError: It failed, and nothing is shown here.
    """
    port, silent = _free_port(), console.is_silent()
    with ExitStack() as stack:
        logs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(devices)]
        shown = [None if rank == 0 and not silent else log for rank, log in enumerate(logs)]
        processes = [
            start(arguments, _environment(rank, devices, port), log)
            for rank, log in enumerate(shown)
        ]
        try:
            status, error = _watch(processes, logs)
            if status and silent:
                raise InputError((error or _last_error_line(logs[0])).removeprefix("cxr: "))
            if error:
                console.say(error)
            return status
        except KeyboardInterrupt:
            for process in processes:
                interrupt(process)
            _wait(processes, _GRACE)
            if (ended := processes[0].poll()) in (_INTERRUPTED, _TERMINATED):
                return int(ended or 0)  # it has reported it
            raise
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _environment(rank: int, devices: int, port: int) -> dict[str, str]:
    return {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(devices),
        "LOCAL_WORLD_SIZE": str(devices),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _watch(processes: list[subprocess.Popen[bytes]], logs: Sequence[IO[bytes]]) -> tuple[int, str]:
    """The exit status, and what went wrong where the first process has not written it."""
    while True:
        codes = [process.poll() for process in processes]
        failed = next((rank for rank, code in enumerate(codes) if code), None)
        if failed is not None:
            break
        if all(code == 0 for code in codes):
            return 0, ""
        time.sleep(_POLL)
    if failed and _wait(processes[:1], _REPORT_GRACE):
        failed = 0
    code = processes[failed].returncode
    if code < 0:
        # Where memory runs out, the system sends signal 9, and the process cannot report it.
        why = (
            " (out of memory? try a smaller training.batch_size)" if code == -signal.SIGKILL else ""
        )
        line = f"cxr: process {failed + 1} of {len(processes)} was ended by signal {-code}{why}"
        return 2, f"{line}; run the same command again to go on"
    return int(code), _last_error_line(logs[failed]) if failed else ""


def _wait(processes: list[subprocess.Popen[bytes]], seconds: float) -> bool:
    """Whether all end within some seconds."""
    until = time.monotonic() + seconds
    while any(process.poll() is None for process in processes):
        if time.monotonic() > until:
            return False
        time.sleep(_POLL)
    return True


def _last_error_line(log: IO[bytes]) -> str:
    """The last error line that a process wrote; all that it wrote where there is none."""
    log.seek(0)
    text = log.read().decode(errors="replace").strip()
    lines = [line for line in text.splitlines() if line.startswith("cxr: ")]
    return lines[-1] if lines else text
