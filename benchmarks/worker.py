"""Own process of each candidate, so that no side works under the settings of the other.

``python -m benchmarks.worker MODULE:FUNCTION ARGUMENTS [--tuned]`` calls a function, which sets up
and returns the work. Every line on stdin is the least number of seconds to work, and is answered by
a line of JSON. A peer keeps its own defaults of threads, spinning and memory allocation;
``--tuned`` applies the settings of `scripts.runtime.tune_cpu`, as `cxr train` and `cxr predict` do.
Between two answers the process is stopped, because threads of OpenMP and of ONNX Runtime spin for a
while after their work.
"""

from __future__ import annotations

import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, Self, cast

Run = Callable[[], Any]
"""Does the work once; returns how much it was (images, replicates), None for one, or a dict."""
_PATIENCE = 300.0  # s: who takes longer, to set up or for a sample, has failed
_LAST_WORDS = 300  # characters of what a failed process wrote


class Timed(NamedTuple):
    """One timed run.

    `printed` are the values that the run returned by name; None if it returned an amount.
    """

    amount: float
    seconds: float
    peak_gib: float
    printed: Mapping[str, float] | None = None


class WorkerError(RuntimeError):
    """Error of a candidate that failed; its row states it, and other candidates go on."""


@dataclass(frozen=True)
class Candidate:
    """Work that is set up in its own process.

    `setup` is a function at the top level of a module, which returns the work; its arguments are
    plain JSON values. `tuned` gives the process the settings that the program takes.
    """

    setup: Callable[..., Run]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tuned: bool = False

    @classmethod
    def from_setup(
        cls, setup: Callable[..., Run], *, tuned: bool = False, **arguments: Any
    ) -> Self:
        """Make a candidate from a setup function and its arguments."""
        return cls(setup, arguments, tuned)

    def here(self) -> Run:
        """Set up the work in this process."""
        return self.setup(**self.arguments)

    @property
    def command(self) -> list[str]:
        """Command that starts the process of the candidate."""
        name = f"{self.setup.__module__}:{self.setup.__qualname__}"
        command = [sys.executable, "-P", "-m", "benchmarks.worker", name]
        command.append(json.dumps(dict(self.arguments), default=str))
        if self.tuned:
            command.append("--tuned")
        return command


class Worker:
    """Process of a candidate: `ready` waits until it is set up, and a call takes a sample."""

    def __init__(self, candidate: Candidate) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in `end`
        # The process has its own group, which can be stopped with all its children. If this
        # process dies, the system wakes and ends a stopped group.
        self._child = subprocess.Popen(  # noqa: S603  our own command
            candidate.command,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            process_group=0,
        )
        self._orders = cast("IO[bytes]", self._child.stdin)
        self._answers = cast("IO[bytes]", self._child.stdout)

    def ready(self) -> None:
        """Wait until the process is set up; raise WorkerError if that failed."""
        self._answer()

    def __call__(self, least: float) -> Timed:
        """Let the process work for at least a number of seconds."""
        os.killpg(self._child.pid, signal.SIGCONT)
        try:
            self._orders.write(f"{least}\n".encode())
        except BrokenPipeError:
            raise self._failed("ended") from None
        return Timed(**self._answer())

    def _answer(self) -> dict[str, Any]:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._answers, selectors.EVENT_READ)
            if not waiting.select(_PATIENCE):
                raise self._failed(f"no answer in {_PATIENCE:.0f} s")
        if not (line := self._answers.readline()):
            raise self._failed("ended")
        os.killpg(self._child.pid, signal.SIGSTOP)
        return dict(json.loads(line))

    def _failed(self, how: str) -> WorkerError:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return WorkerError(f"{how}: {lines[-1][-_LAST_WORDS:]}" if lines else how)

    def end(self) -> None:
        """End the process at once."""
        os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        for file in (self._orders, self._answers, self._errors):
            file.close()


def _environment() -> dict[str, str]:
    """Return the environment without variables that set threads and memory."""
    own = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def timed(run: Run, least: float, now: Callable[[], float] = time.perf_counter) -> Timed:
    """Do the work once, and repeat it until a number of seconds are over.

    The work returns an amount or a dictionary. The result has amount and time of all repetitions.
    """
    start = now()
    amount = seconds = 0.0
    printed = None
    while seconds <= 0 or seconds < least:
        given = run()
        printed = given if isinstance(given, dict) else None
        amount += 1.0 if printed is not None or not given else given
        seconds = now() - start
    return Timed(amount, seconds, peak_gib(), printed)


def peak_gib() -> float:
    """Return the peak memory of this process, GiB; `getrusage` would include that of its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def serve(name: str, arguments: dict[str, Any], *, tuned: bool) -> None:
    """Set up the work, then answer orders until stdin ends.

    `name` is ``MODULE:FUNCTION`` that returns the work. `tuned` takes the settings that the program
    takes.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    if tuned:
        from cxr_compare.scripts.runtime import tune_cpu

        tune_cpu()
    module, function = name.split(":")
    run = getattr(importlib.import_module(module), function)(**arguments)
    answers.write("{}\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(timed(run, float(line))._asdict()) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]), tuned="--tuned" in sys.argv[3:])
