"""Which settings suit this machine: measured once in a few seconds, kept in the user's cache.

A candidate replaces what torch does by itself only where it is better by a clear margin, so a
calibration is never worse than leaving the settings alone. Imports no torch: what it measures runs
in `scripts.machines.calibration_step`.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median, stdev
from typing import IO, Any, Literal, NamedTuple, Self, cast

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import atomic_path
from data_prep.contracts.workers import cpu_count, processor_name
from scripts import console

SWITCH = "CXR_CALIBRATION"  # "off": nothing is measured or read; else a choice, as JSON
_VERSION = 1  # of what is measured and how is chosen; another one measures anew
_SPINS = (1_000, 10_000, 1_000_000)  # left alone, libgomp takes 300,000
_ROUNDS, _LEAST_ROUNDS = 8, 4
_STUDENT = {4: 5.841, 5: 4.604, 6: 4.032, 7: 3.707, 8: 3.499}  # 99.5th percentile, by rounds
_HOPELESS = 3.0  # times as slow as the fastest
_SECONDS = 5.0  # of rounds; a slow machine gets fewer
_DEADLINE = 60.0  # s: a machine that takes longer is left alone
_MARGIN = 0.05  # a candidate must be faster by this share at least
_MOST_OTHERS = 0.1  # share of the processors that other programs may use
_THIS_TIME = "calibration, not kept"
_USERS_OWN = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86, x86, Arm

Precision = Literal["fp32", "bf16"]
Work = Literal["step", "large"]


@dataclass(frozen=True)
class Choice:
    """Settings for this machine; what is None or False is left alone."""

    threads: int | None = None
    spin: int | None = None
    keep_memory: bool = False
    precision: Precision | None = None

    @classmethod
    def read(cls, content: Any) -> Self:
        """From JSON; ValueError where it is nothing that `asdict` would give."""
        made = cls(**content)
        numbers = (made.threads, made.spin)
        if any(n is not None and (type(n) is not int or n < 1) for n in numbers):
            raise ValueError(f"expected whole numbers, got {numbers}")
        if type(made.keep_memory) is not bool or made.precision not in (None, "fp32", "bf16"):
            raise ValueError(f"expected settings, got {content}")
        return made

    def __str__(self) -> str:
        threads = "threads left alone"
        if self.threads:
            threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        spin = f"spin {self.spin:,}" if self.spin else "spin left alone"
        memory = "freed memory kept" if self.keep_memory else "memory left alone"
        return f"{threads}, {spin}, {memory}, {self.precision or 'precision left alone'}"


class Candidate(NamedTuple):
    """Settings that are timed; None is what torch does by itself."""

    threads: int | None
    spin: int | None
    keep_memory: bool
    precision: Precision

    def __str__(self) -> str:
        return str(Choice(*self))


Times = Mapping[tuple[Candidate, Work], Sequence[float]]
"""Seconds of each candidate at each kind of work, a round each."""


@dataclass(frozen=True)
class Calibration:
    """What was chosen for a machine, and why.

    Attributes:
        choice: The settings.
        table: A row for each candidate and kind of work: settings, ms, ratio to left alone.
        speed: Training steps a second of the whole machine: under the choice, or of two trainings
            with one thread each, side by side, where that is more.
        measured: When, ISO 8601.
        seconds: How long measuring took.
        others: Share of the processors that other programs used meanwhile; None: unknown.
    """

    choice: Choice
    table: list[dict[str, Any]] = field(default_factory=list)
    speed: float = 0.0
    measured: str = ""
    seconds: float = 0.0
    others: float | None = None

    @classmethod
    def read(cls, content: dict[str, Any]) -> Self:
        """From JSON; TypeError, KeyError or ValueError where it is nothing of ours."""
        return cls(**{**content, "choice": Choice.read(content["choice"])})

    @property
    def is_disturbed(self) -> bool:
        """Whether other programs used too much of the machine for the result to be kept."""
        return self.others is not None and self.others > _MOST_OTHERS


class ProcessorTime:
    """The processors that this process may use, and their clocks, read from ``/proc``."""

    now, sleep = staticmethod(time.perf_counter), staticmethod(time.sleep)

    def __init__(self) -> None:
        self._names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        self._tick = 1 / os.sysconf("SC_CLK_TCK")
        self.cpus = len(self._names)

    def busy(self) -> float | None:
        """Processor time that all processes have used, s; None without ``/proc/stat``."""
        try:
            lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        ours = [line.split() for line in lines if line.split()[0] in self._names]
        # user, nice, system; not idle and waiting; interrupts of two kinds, stolen time
        return self._tick * sum(sum(map(int, [*x[1:4], *x[6:9]])) for x in ours)

    def own(self) -> float:
        """Processor time of this process, its living descendants and their ended children, s."""
        parents: dict[int, int] = {}
        used: dict[int, int] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ended meanwhile
                text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                # The name stands in brackets and may hold anything, brackets and spaces included.
                fields = text.rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
                used[int(entry.name)] = sum(map(int, fields[11:15]))

        def descends(pid: int) -> bool:
            return pid == os.getpid() or (pid > 1 and descends(parents.get(pid, 0)))

        return self._tick * sum(used[pid] for pid in used if descends(pid))


def computes_bf16() -> bool:
    """Whether the processor has instructions for bf16."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return False
    flags = [
        line.partition(":")[2].split()
        for line in info.read_text(encoding="utf-8").splitlines()
        if line.lower().startswith(("flags", "features"))
    ]
    return bool(flags) and bool(_BF16_FLAGS & set(flags[0]))


def plan(cpus: int, bf16: bool) -> list[tuple[Candidate, Work]]:
    """What to time, what is left alone first.

    Example:
        >>> [str(candidate) for candidate, work in plan(1, bf16=False)][:1]
        ['threads left alone, spin left alone, memory left alone, fp32']
    """
    alone = Candidate(None, None, False, "bf16" if bf16 else "fp32")
    kept = alone._replace(keep_memory=True)
    made: list[tuple[Candidate, Work]] = [
        (alone, "step"), (alone, "large"), (kept, "step"), (kept, "large"),
    ]  # fmt: skip
    threads = cpus // 2
    while threads:
        fewer = kept._replace(threads=threads)
        made += [(fewer, "step"), (fewer, "large")]
        threads //= 2
    if cpus > 1:
        made += [(kept._replace(spin=spin), "step") for spin in _SPINS]
    if bf16:
        made.append((kept._replace(precision="fp32"), "step"))
    return made


class _Gain(NamedTuple):
    """How much faster one candidate is than another; 1: neither."""

    ratio: float
    margin: float

    @property
    def is_clear(self) -> bool:
        return self.ratio > 1 + self.margin


def gain(before: Sequence[float], after: Sequence[float]) -> _Gain:
    """Compare two candidates round by round: another program's load then hits both alike.

    The margin is 5 %, or what noise alone exceeds once in 200 times where that is more (Student's
    t of the logarithms); a single round of great noise thus speaks for leaving things alone.

    Example:
        >>> gain([2.0, 2.1, 2.0, 2.2], [1.0, 1.05, 1.0, 1.1])
        _Gain(ratio=2.0, margin=0.05)
    """
    logs = [math.log(old / new) for old, new in zip(before, after, strict=True)]
    error = stdev(logs) / math.sqrt(len(logs))
    return _Gain(math.exp(median(logs)), max(_MARGIN, math.expm1(_STUDENT[len(logs)] * error)))


def choose(times: Times) -> Choice:
    """The settings that are clearly better than those left alone.

    Fewer threads must also be no slower where blocks are large, since large images have such, and
    keeping freed memory no slower where they are small.
    """
    alone = next(iter(times))[0]
    kept = alone._replace(keep_memory=True)

    def against(base: Candidate, candidate: Candidate, work: Work) -> _Gain:
        return gain(times[base, work], times[candidate, work])

    keeps = (
        against(alone, kept, "large").is_clear and against(alone, kept, "step").ratio > 1 - _MARGIN
    )
    best, most = kept, 1.0
    for candidate, work in times:
        if work != "step" or candidate == alone or candidate.precision != alone.precision:
            continue
        found = against(kept, candidate, "step")
        slower = (candidate, "large") in times and (
            against(kept, candidate, "large").ratio < 1 - _MARGIN
        )
        if found.is_clear and found.ratio > most and not slower:
            best, most = candidate, found.ratio
    exact = kept._replace(precision="fp32")
    precision = alone.precision
    if (exact, "step") in times and against(kept, exact, "step").is_clear:
        precision = "fp32"
    return Choice(best.threads, best.spin, keeps, precision)


Timer = Callable[[Candidate, Work], float]
"""Times a candidate at some work, s; TimeoutError where that takes too long."""


def measure(
    order: Sequence[tuple[Candidate, Work]], timer: Timer, clock: ProcessorTime
) -> dict[tuple[Candidate, Work], list[float]]:
    """Time all candidates in turn, round by round, forwards and backwards.

    The first two rounds are not kept: kernels are prepared in them. A candidate that is hopeless
    then is left out, unless others are compared with it.

    Raises:
        TimeoutError: The machine is too slow, or too busy, for the least number of rounds.
    """
    for each in order:
        timer(*each)
    first = {each: timer(*each) for each in order}
    fastest = {kind: min(s for (_, work), s in first.items() if work == kind) for _, kind in order}
    references = [settings for settings, work in order if work == "large"][:2]
    hopeless = {each[0] for each in order if first[each] > _HOPELESS * fastest[each[1]]}
    order = [each for each in order if each[0] not in hopeless - set(references)]
    rounds: list[dict[tuple[Candidate, Work], float]] = []
    end = clock.now() + _SECONDS
    with suppress(TimeoutError):  # what was measured until then may do
        while len(rounds) < _ROUNDS and (len(rounds) < _LEAST_ROUNDS or clock.now() < end):
            turn = order[:: -1 if len(rounds) % 2 else 1]
            rounds.append({each: timer(*each) for each in turn})
    if len(rounds) < _LEAST_ROUNDS:
        raise TimeoutError
    return {each: [taken[each] for taken in rounds] for each in order}


def calibrate(clock: ProcessorTime, opened: Callable[[], Any] | None = None) -> Calibration | None:
    """Measure this machine, whatever was measured before.

    Returns:
        None where it is too slow or too busy to be measured.
    """
    order = plan(cpu_count(), computes_bf16())
    busy, own, start = clock.busy(), clock.own(), clock.now()
    try:
        with (opened or _processes)() as timer:
            times = measure(order, timer, clock)
            seconds, busy_after = clock.now() - start, clock.busy()
            own = clock.own() - own
    except (TimeoutError, OSError):
        return None
    others = None
    if busy is not None and busy_after is not None:
        others = max(0.0, busy_after - busy - own) / (clock.cpus * seconds)
    choice = choose(times)
    base = {work: times[order[0][0], work] for work in ("step", "large")}
    table = [
        {
            "settings": str(candidate),
            "work": work,
            "ms": round(1000 * median(taken), 2),
            "ratio": round(gain(base[work], taken).ratio, 3),
        }
        for (candidate, work), taken in times.items()
    ]
    return Calibration(
        choice,
        table,
        speed=round(_speed(times, choice), 2),
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        others=None if others is None else round(others, 3),
    )


def _speed(times: Times, choice: Choice) -> float:
    """Training steps a second of the whole machine, see `Calibration`."""
    steps = {
        candidate: median(taken) for (candidate, work), taken in times.items() if work == "step"
    }
    alone = next(iter(steps))
    chosen = Candidate(choice.threads, choice.spin, True, choice.precision or "fp32")
    single = [s for c, s in steps.items() if c.threads == 1 and c.precision == alone.precision]
    return max(1 / steps.get(chosen, steps[alone]), *(2 / seconds for seconds in single), 0.0)


@contextmanager
def _processes() -> Iterator[Timer]:
    """Processes that time, one for each spin and way with memory; they end with the block."""
    until = time.monotonic() + _DEADLINE
    started: dict[tuple[int | None, bool], TimingProcess] = {}
    with ExitStack() as stack:
        for keeps, spin in ((False, None), (True, None), *((True, spin) for spin in _SPINS)):
            if not spin or cpu_count() > 1:
                child = started[spin, keeps] = TimingProcess(spin, keeps)
                stack.callback(child.end)

        def timer(candidate: Candidate, work: Work) -> float:
            child = started[candidate.spin, candidate.keep_memory]
            child.order(candidate.threads, candidate.precision, work)
            return child.answer(until - time.monotonic())

        yield timer


class TimingProcess:
    """A process that times pieces of work under settings, see `scripts.machines.calibration_step`.

    Args:
        spin: How long its waiting threads spin; None leaves that alone.
        keep_memory: Whether it keeps freed memory.
        module: What it runs: a module that answers as `scripts.machines.calibration_step` does.
    """

    def __init__(
        self, spin: int | None, keep_memory: bool, module: str = "scripts.machines.calibration_step"
    ) -> None:
        self._child = subprocess.Popen(  # noqa: S603  our own command
            [sys.executable, "-P", "-m", module] + ["--keep-memory"] * keep_memory,
            env=_clean_environment(spin),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._orders = cast("IO[bytes]", self._child.stdin)
        self._answers = cast("IO[bytes]", self._child.stdout)

    def order(self, threads: int | None, precision: str, work: str) -> None:
        """Let it begin a piece of work."""
        told = {"threads": threads, "precision": precision, "work": work}
        self._orders.write(json.dumps(told).encode() + b"\n")

    def answer(self, seconds: float) -> float:
        """Seconds that the piece took; TimeoutError where the answer does, OSError if it ended."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._answers, selectors.EVENT_READ)
            if not waiting.select(max(seconds, 0.0)):
                raise TimeoutError
        if not (line := self._answers.readline()):
            raise OSError("the process that times ended")
        return float(line)

    def end(self) -> None:
        """End it at once."""
        self._child.kill()
        self._child.wait()
        self._orders.close()
        self._answers.close()


def _clean_environment(spin: int | None) -> dict[str, str]:
    """Without what a user or this program set for threads."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OMP_", "GOMP_", "KMP_", "MALLOC_")) and name != SWITCH
    }
    kept["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return kept if spin is None else {**kept, "GOMP_SPINCOUNT": str(spin)}


def cache_file() -> Path | None:
    """Where calibrations are kept; None where the user has no folder for such."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = given if given.is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # no home
        return None
    return base / "cxr-compare" / "machine.json"


def machine_key() -> str:
    """What a calibration holds for: another processor, number of them or torch measures anew."""
    limit = Path("/sys/fs/cgroup/cpu.max")
    share = limit.read_text(encoding="ascii").split() if limit.is_file() else ["max"]
    granted = "" if share[0] == "max" else f" of a share of {'/'.join(share)}"
    return (
        f"{processor_name()}, {cpu_count()} processors{granted}, "
        f"torch {metadata.version('torch')}, calibration {_VERSION}"
    )


def stored() -> Calibration | None:
    """The calibration of this machine, if there is one; a file that is broken is none."""
    try:
        return Calibration.read(_entries()[machine_key()])
    except (FileNotFoundError, KeyError):
        return None
    except (OSError, TypeError, ValueError, AttributeError) as error:
        console.say(f"{cache_file()}: left out, since it cannot be read ({error})")
        return None


def _entries() -> dict[str, Any]:
    """What the file holds, by `machine_key`: a home may be shared by several machines."""
    if (path := cache_file()) is None:
        return {}
    return dict(json.loads(path.read_text(encoding="utf-8"))["machines"])


def keep(calibration: Calibration) -> Path | None:
    """Write a calibration into the user's cache; None, and a line, where that cannot be."""
    if (path := cache_file()) is None:
        return None
    entries: dict[str, Any] = {}
    with suppress(OSError, KeyError, TypeError, ValueError):  # a broken file is replaced
        entries = _entries()
    content = {"machines": {**entries, machine_key(): asdict(calibration)}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except (OSError, InputError) as error:
        console.say(f"{path}: not written ({error}); this machine is measured again next time")
        return None
    return path


def settle(*, worth: bool) -> tuple[Choice, str]:
    """The settings of this process, and where they come from.

    Args:
        worth: Whether the work is long enough to measure a machine that was not measured before.
            Where the user has set threads or waiting, nothing is measured.
    """
    told = os.environ.get(SWITCH, "")
    if told == "off":
        return Choice(), "left alone"
    if told:
        try:
            return Choice.read(json.loads(told)), _THIS_TIME
        except (TypeError, ValueError) as error:
            raise InputError(f"{SWITCH}={told}: set it to 'off', or not at all ({error})") from None
    if known := stored():
        return known.choice, f"calibration of {known.measured}"
    if not worth or any(name in os.environ for name in _USERS_OWN):
        return Choice(), "left alone"
    found, kept = measure_and_keep()
    if kept:
        return found.choice, f"calibration of {found.measured}"
    # For later calls, and for processes that this one starts: they find nothing in the cache.
    os.environ[SWITCH] = json.dumps(asdict(found.choice))
    return found.choice, _THIS_TIME


def measure_and_keep() -> tuple[Calibration, Path | None]:
    """Calibrate, say so, and keep the result unless other programs disturbed it.

    Beside other programs the result holds for the moment only, but it does hold: what is best
    there, such as a single thread, can be several times faster than what torch does by itself.
    """
    console.say("Calibrating this machine, once: some seconds")
    found = calibrate(ProcessorTime())
    if found is None:
        console.say("Too slow or too busy to calibrate: all settings are left alone this time")
        return Calibration(Choice()), None
    told = f"{found.seconds:.0f} s: {found.choice}"
    if found.is_disturbed:
        console.say(
            f"{told}; for this time only, since other programs used {found.others:.0%} of the "
            "processors: measured again next time"
        )
        return found, None
    path = keep(found)
    console.say(told + (f" (kept in {path})" if path else ""))
    return found, path


def describe_machine(*, anew: bool) -> dict[str, Any]:
    """This machine and its calibration, for `cxr show --machine`; ``anew`` measures it first."""
    found = measure_and_keep()[0] if anew else stored()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    facts: dict[str, Any] = {
        "processor": processor_name(),
        "usable processors": cpu_count(),
        "memory": f"{memory:.1f} GiB",
        "torch": metadata.version("torch"),
        "bf16 instructions": "yes" if computes_bf16() else "no",
        "set by you": {n: os.environ[n] for n in (*_USERS_OWN, SWITCH) if n in os.environ} or "-",
        "file": str(cache_file() or "-"),
    }
    if found is None or not found.table:
        told = "none: a long training makes it, or cxr show --machine --calibrate"
        return {**facts, "calibration": told, "table": []}
    age = datetime.now(UTC) - datetime.fromisoformat(found.measured)
    others = "unknown" if found.others is None else f"{found.others:.0%}"
    return {
        **facts,
        "calibration": f"{found.measured}, {age.days} days ago; took {found.seconds:.0f} s, other "
        f"programs used {others} of the processors" + "; not kept" * found.is_disturbed,
        "choice": str(found.choice),
        "settings": asdict(found.choice),
        "kept": not found.is_disturbed,
        "steps a second": round(found.speed),
        "table": found.table,
    }
