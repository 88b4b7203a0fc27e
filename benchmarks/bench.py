"""Fair timing side by side, the rows that come of it, and the setting of one run.

Candidates run in turn in one process, in another order every round. A sample counts only if other
processes used less than a tenth of the processors meanwhile; else it is taken again. Ratios are
formed within a round, so that a machine that changes its speed changes both sides.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import cv2

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import provenance, require_free_space
from data_prep.contracts.workers import cpu_count
from data_prep.formats.common import list_image_files
from data_prep.images.image import read_image
from data_prep.store.dataset import DataSet
from data_prep.synth.files import TRAIN_FOLDER
from data_prep.synth.phantom import write_phantom

_MOST_NOISE = 0.1  # share of the processors that others may use during a sample that counts
_TRIES = 4
_WAIT_SECONDS = 1.0
_MOST_IMAGES = 200
_SCRATCH_BYTES = 2 << 30
_HEADER = ("what", "ours", "peer", "unit", "ratio", "min-max", "n", "rejected")

Run = Callable[[], float | None]
"""Does the work once; returns how much it was (images, replicates), or None for one."""


class Machine(Protocol):
    """The clocks that a measurement reads."""

    cpus: int

    def now(self) -> float:
        """Time of the wall clock, s."""

    def busy(self) -> float | None:
        """Processor time that all processes have used, s; None where it is unknown."""

    def own(self) -> float:
        """Processor time that this process and its descendants have used, s."""

    def sleep(self, seconds: float) -> None:
        """Do nothing for a while."""


class LinuxMachine:
    """The processors that this process may use, read from ``/proc``."""

    def __init__(self) -> None:
        self._names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        self._tick = 1 / os.sysconf("SC_CLK_TCK")
        self.cpus = len(self._names)
        self.now, self.sleep = time.perf_counter, time.sleep

    def busy(self) -> float | None:
        """Processor time that all processes have used, s; None without ``/proc/stat``."""
        try:
            lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        ticks = 0
        for name, *times in map(str.split, lines):
            if name in self._names:
                user, nice, system, _idle, _wait, irq, softirq, steal = map(int, times[:8])
                ticks += user + nice + system + irq + softirq + steal
        return ticks * self._tick

    def own(self) -> float:
        """Processor time of this process, its living descendants and their ended children, s."""
        parents: dict[int, int] = {}
        used: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue  # it ended meanwhile
            # The name stands in brackets and may hold anything, brackets and spaces included.
            fields = text.rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = sum(map(int, fields[11:15]))
        return sum(used[pid] for pid in used if _descends(pid, parents)) * self._tick


def _descends(pid: int, parents: Mapping[int, int]) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = parents.get(pid, 0)
    return False


@dataclass(frozen=True)
class Sample:
    """One timed run: its amount of work, how long it took, and the share that others used."""

    amount: float
    seconds: float
    noise: float | None


@dataclass
class Timings:
    """Samples by round and candidate (None where no try was quiet), and how many were rejected."""

    rounds: list[dict[str, Sample | None]] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)

    def values(self, candidate: str, of: Callable[[Sample], float]) -> list[float]:
        """A figure of each sample of a candidate that counts."""
        samples = (taken.get(candidate) for taken in self.rounds)
        return [of(sample) for sample in samples if sample is not None]


@dataclass
class Meter:
    """Takes samples.

    Attributes:
        machine: The clocks.
        rounds: Samples wanted of each candidate.
        least_seconds: A run is repeated within its sample until it has taken so long: clocks of
            processor time tick in hundredths of a second.
        guarded: Whether noisy samples are rejected.
        patience: How long to wait, in all, for others to be quiet before a sample is taken again,
            s; once it is used up, each sample has one try.
    """

    machine: Machine
    rounds: int = 5
    least_seconds: float = 0.5
    guarded: bool = True
    patience: float = 600.0

    def sample(self, run: Run) -> Sample:
        """Time one run, noisy or not."""
        busy, own, start = self.machine.busy(), self.machine.own(), self.machine.now()
        amount = 0.0
        while True:
            amount += run() or 1.0
            seconds = self.machine.now() - start
            if seconds > 0 and seconds >= self.least_seconds:
                break
        busy_after = self.machine.busy()
        if busy is None or busy_after is None:
            return Sample(amount, seconds, None)
        others = (busy_after - busy) - (self.machine.own() - own)
        return Sample(amount, seconds, max(others, 0.0) / (self.machine.cpus * seconds))

    def compare(
        self, candidates: Mapping[str, Run], *, warm: bool = True, most_rounds: int | None = None
    ) -> Timings:
        """Time candidates in turn; ``warm`` runs each once before, uncounted."""
        timings = Timings(rejected=dict.fromkeys(candidates, 0))
        if warm:
            for run in candidates.values():
                run()
        names = list(candidates)
        for number in range(min(self.rounds, most_rounds or self.rounds)):
            turn = number % len(names)
            taken: dict[str, Sample | None] = {}
            for name in names[turn:] + names[:turn]:
                taken[name], rejected = self.quiet_sample(candidates[name])
                timings.rejected[name] += rejected
            timings.rounds.append(taken)
        return timings

    def answers(self, module: str, *arguments: object, most_rounds: int) -> tuple[list[Any], int]:
        """What a module prints as JSON in a fresh process, sample by sample; and the rejected."""
        given: list[Any] = []
        counted, rejected = [], 0
        for _ in range(min(self.rounds, most_rounds)):
            sample, noisy = self.quiet_sample(lambda: given.append(answer_of(module, *arguments)))
            rejected += noisy
            if sample is not None:
                counted.append(given[-1])
        return counted, rejected

    def quiet_sample(self, run: Run) -> tuple[Sample | None, int]:
        """The first quiet sample of four tries, or None; and how many did not count."""
        rejected = 0
        while True:
            sample = self.sample(run)
            if not self.guarded or sample.noise is None or sample.noise < _MOST_NOISE:
                return sample, rejected
            rejected += 1
            if rejected == _TRIES or not self._wait():
                return None, rejected

    def _wait(self) -> bool:
        """Sleep until others are quiet; False if patience ends before."""
        while self.patience > 0:
            self.patience -= _WAIT_SECONDS
            idle = Meter(self.machine, least_seconds=0.0)
            noise = idle.sample(lambda: self.machine.sleep(_WAIT_SECONDS)).noise
            if noise is not None and noise < _MOST_NOISE:
                return True
        return False


def answer_of(module: str, *arguments: object) -> Any:
    """What one of our modules prints as JSON in a process of its own: its memory is its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603  our own command
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def peak_gib() -> float:
    """The greatest memory that this process has held, GiB.

    ``getrusage`` would also count what the parent held when it started this process.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kib) / 2**20


@dataclass(frozen=True)
class Row:
    """One line of the benchmark: ours, a peer's where there is one, and the ratio.

    Attributes:
        name: What was measured.
        unit: Of ``ours``, ``peer`` and ``limit``.
        ours: Median; None where no sample was quiet. ``ours_range`` is the least and greatest.
        peer: Median of what ours is compared with, and its range.
        ratio: Median over the rounds of how many times better ours is, and its range.
        n: Rounds that count.
        rejected: Samples that did not, because others used the machine.
        limit: What ours must stay below, where there is a limit.
        note: What the figures do not show.
    """

    name: str
    unit: str
    ours: float | None
    ours_range: tuple[float, float] | None
    peer: float | None = None
    peer_range: tuple[float, float] | None = None
    ratio: float | None = None
    ratio_range: tuple[float, float] | None = None
    n: int = 0
    rejected: int = 0
    limit: float | None = None
    note: str = ""

    def __str__(self) -> str:
        if self.ours is None:
            return f"{self.name}: not measured, others use the machine"
        against = "" if self.peer is None else f" to {_figure(self.peer)}"
        ratio = "" if self.ratio is None else f", {_figure(self.ratio)}x"
        return f"{self.name}: {_figure(self.ours)}{against} {self.unit}{ratio}"


def rate(sample: Sample) -> float:
    """Amount a second: more is better."""
    return sample.amount / sample.seconds


def duration(sample: Sample) -> float:
    """Seconds a run: less is better."""
    return sample.seconds / sample.amount


def milliseconds(sample: Sample) -> float:
    """Milliseconds a run: less is better."""
    return 1000 * duration(sample)


def paired_row(
    name: str,
    timings: Timings,
    ours: str,
    peer: str,
    unit: str,
    figure: Callable[[Sample], float],
    note: str = "",
) -> Row:
    """A row from two candidates; a round counts in which both were quiet."""
    pairs = [
        (figure(a), figure(b))
        for a, b in ((taken[ours], taken[peer]) for taken in timings.rounds)
        if a is not None and b is not None
    ]
    ratios = [a / b if figure is rate else b / a for a, b in pairs]
    rejected = timings.rejected[ours] + timings.rejected[peer]
    return Row(
        name,
        unit,
        *_middle([a for a, _ in pairs]),
        *_middle([b for _, b in pairs]),
        *_middle(ratios),
        n=len(pairs),
        rejected=rejected,
        note=note,
    )


def single_row(
    name: str,
    unit: str,
    values: list[float],
    *,
    rejected: int = 0,
    limit: float | None = None,
    note: str = "",
) -> Row:
    """A row that has no peer, but may have a limit."""
    figures = _middle(values)
    return Row(name, unit, *figures, n=len(values), rejected=rejected, limit=limit, note=note)


def _middle(values: list[float]) -> tuple[float | None, tuple[float, float] | None]:
    return (median(values), (min(values), max(values))) if values else (None, None)


def as_payload(row: Row) -> dict[str, Any]:
    """A row as JSON; ``within_limit`` is None where there is no limit or no figure."""
    within = None if row.limit is None or row.ours is None else row.ours <= row.limit
    return {**asdict(row), "within_limit": within}


def as_lines(rows: Iterable[Row]) -> list[str]:
    r"""Rows as a plain table; what was not measured stays empty.

    Example:
        >>> print("\n".join(as_lines([Row("open", "s", 0.5, (0.4, 0.6), limit=2.0, n=3)])))
        what  ours        peer  unit  ratio  min-max  n  rejected
        open   0.5  limit    2  s                     3         0
    """
    cells = [_HEADER, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligns = "<>><><>>"
    return [
        "  ".join(f"{c:{a}{w}}" for c, a, w in zip(line, aligns, widths, strict=True)).rstrip()
        for line in cells
    ]


def _cells(row: Row) -> tuple[str, ...]:
    peer = f"limit {_figure(row.limit)}" if row.limit is not None else _figure(row.peer)
    ratio = "" if row.ratio is None else f"{_figure(row.ratio)}x"
    spread = "" if row.ratio_range is None else "-".join(map(_figure, row.ratio_range))
    counts = str(row.n), str(row.rejected)
    return (row.name, _figure(row.ours), peer, row.unit, ratio, spread, *counts)


def _figure(value: float | None) -> str:
    """Three significant digits.

    Example:
        >>> [_figure(value) for value in (31245.6, 12.34, 0.01234, None)]
        ['31,200', '12.3', '0.0123', '']
    """
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{round(value, 3 - len(str(int(abs(value))))):,.0f}"
    return f"{value:.3g}"


@dataclass(frozen=True)
class Setting:
    """What every group of the benchmark gets; ``quick`` is tiny sizes, one round, unguarded."""

    scratch: Path
    meter: Meter
    seed: int
    quick: bool
    dataset: DataSet | None
    source: Path | None

    @cached_property
    def images(self) -> list[Path]:
        """Files to decode: the first 200 that can be read, DICOM where there are any.

        Raises:
            InputError: There is none.
        """
        if self.dataset is not None:
            root, named = self.dataset.source_root, self.dataset.images["path"].dropna()
            found = [root / path for path in sorted(named)]
        elif self.source is not None:
            found = [self.source / path for path in list_image_files(self.source)["path"]]
        else:
            n_images, size, workers = (4, 64, 1) if self.quick else (60, 1024, cpu_count())
            phantom = self.scratch / "phantom"
            write_phantom(phantom, n_images=n_images, seed=self.seed, size=size, workers=workers)
            found = sorted((phantom / TRAIN_FOLDER).glob("*.dcm"))
        readable = [path for path in found[: 2 * _MOST_IMAGES] if _is_readable(path)]
        chosen = [path for path in readable if is_dicom(path)] or readable
        if not chosen:
            raise InputError(f"{self.source or self.scratch}: no image to measure with")
        return chosen[: 4 if self.quick else _MOST_IMAGES]

    @cached_property
    def payload(self) -> dict[str, Any]:
        """The setting as JSON."""
        made = provenance()
        made["hardware"].update(_hardware())
        watched = self.meter.guarded and self.meter.machine.busy() is not None
        place = self.source if self.dataset is None else self.dataset.folder
        return {
            **made,
            "pictures": str(place) if place else f"synthetic chest X-rays, seed {self.seed}",
            "n_pictures": len(self.images),
            "seed": self.seed,
            "quick": self.quick,
            "most_noise": _MOST_NOISE if watched else None,
        }

    @property
    def lines(self) -> list[str]:
        """The setting as lines of text."""
        made = self.payload
        hardware, versions = made["hardware"], made["versions"]
        lines = [
            f"machine: {hardware['processor']}, {hardware['cpus']} processors, "
            f"{hardware['memory_gib']:g} GiB",
            "versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()),
            f"revision: {made['revision'] or 'not a git checkout'}, {made['created']}",
            f"images: {made['n_pictures']} of {made['pictures']}",
        ]
        if self.quick:
            lines.append("quick: tiny and once; the figures show that it runs, not how fast")
        elif made["most_noise"] is None:
            lines.append("other programs are not watched here: keep the machine quiet")
        return lines


@contextmanager
def open_setting(
    data: Path | None, source: Path | None, *, seed: int, quick: bool
) -> Iterator[Setting]:
    """Set up a benchmark on a data set, a folder of images, or a phantom; its folder is temporary.

    Raises:
        InputError: The data set or folder is not there, or the disk is too full.
    """
    dataset = None if data is None else DataSet.open(data)
    if source is not None and not source.is_dir():
        raise InputError(f"{source}: no such folder")
    machine = LinuxMachine()
    meter = Meter(machine, rounds=1, least_seconds=0.0, guarded=False) if quick else Meter(machine)
    cv2.setNumThreads(1)  # what is compared with one processor must use one
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as scratch:
        require_free_space(Path(scratch), 0 if quick else _SCRATCH_BYTES)
        yield Setting(Path(scratch), meter, seed, quick, dataset, source)


def is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's mark."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _is_readable(path: Path) -> bool:
    try:
        read_image(path)
    except InputError:
        return False
    return True


def _hardware() -> dict[str, Any]:
    facts: dict[str, Any] = {"processor": "unknown", "memory_gib": 0.0}
    for file, key, name in (
        ("/proc/cpuinfo", "model name", "processor"),
        ("/proc/meminfo", "MemTotal", "memory_gib"),
    ):
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        value = next((x.partition(":")[2].strip() for x in lines if x.startswith(key)), None)
        if value:
            facts[name] = round(int(value.split()[0]) / 2**20, 1) if "Mem" in key else value
    return facts
