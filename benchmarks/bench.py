"""Fair timing side by side: candidates, samples, rows of results, and the setting of one run.

Candidates take turns, each in its own process, in another order every round. A sample counts only
if other programs used less than a tenth of the processors meanwhile; otherwise it is taken again.
Ratios are formed within a round, so that a machine that changes its speed changes both sides.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.worker import Candidate, Run, Timed, Worker, timed
from cxr_compare.data_prep.contracts.disk_space import require_free_space
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.processors import cpu_count, processor_name
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.sources.image_files import list_images
from cxr_compare.data_prep.sources.rsna import TRAIN_IMAGES
from cxr_compare.data_prep.synth.phantom import write_phantom

_MOST_NOISE = 0.1  # share of the processors that others may use during a sample that counts
_TRIES = 4
_ENOUGH = {1: 60.0, 2: 50.0, 3: 25.0}  # seconds after which a number of rounds is enough
_WAIT_SECONDS = 1.0
_MOST_IMAGES = 200
_SCRATCH_BYTES = 4 << 30
_PEERS = ("scikit-learn", "pycocotools", "faster-coco-eval", "onnxruntime", "openvino", "nncf")


class ProcessorTime:
    """The processors that this process may use, and their clocks, read from ``/proc``."""

    now = staticmethod(time.perf_counter)
    sleep = staticmethod(time.sleep)

    def __init__(self) -> None:
        self._names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        self._tick = 1 / os.sysconf("SC_CLK_TCK")
        self.cpus = len(self._names)

    def busy(self) -> float | None:
        """Return the processor time of all processes so far, s; None without ``/proc/stat``."""
        try:
            lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        ours = [line.split() for line in lines if line.split()[0] in self._names]
        # user, nice, system; not idle and waiting; interrupts of two kinds, stolen time
        return self._tick * sum(sum(map(int, [*x[1:4], *x[6:9]])) for x in ours)

    def own(self) -> float:
        """Return the processor time of this process, its descendants and ended children, s."""
        parents: dict[int, int] = {}
        used: dict[int, int] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ended meanwhile
                text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                # The name is in brackets and may contain any character, also brackets and spaces.
                fields = text.rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
                used[int(entry.name)] = sum(map(int, fields[11:15]))

        def descends(pid: int) -> bool:
            return pid == os.getpid() or (pid > 1 and descends(parents.get(pid, 0)))

        return self._tick * sum(used[pid] for pid in used if descends(pid))


Timer = Callable[[float], Timed]
"""Function that does its work for at least a number of seconds."""


@dataclass(frozen=True)
class Sample:
    """One timed run.

    `noise` is the share of the processors that other programs used meanwhile; None if unknown.
    """

    amount: float
    seconds: float
    noise: float | None
    peak_gib: float = 0.0


Round = Mapping[str, Sample | None]
"""Sample of each candidate; None if no try was quiet, or if the candidate failed."""


@dataclass(frozen=True)
class Row:
    """A row that is to be measured: our candidate against another one.

    Attributes:
        unit: Unit of the figure: an amount per second, or s or ms for a run or an amount.
        peer: Name of the other candidate; empty if no other program does the same.
        limit: Largest allowed value of the figure.
        limit_gib: Largest allowed memory of our process, GiB.
        bound: Name of the peak speed that bounds the work (``fp32``, ``bf16``, ``copy``), and the
            floating-point operations or bytes that one unit of amount takes.
        note: Sentence on what the figures do not show.
    """

    work: str
    unit: str
    ours: str
    peer: str = ""
    limit: float | None = None
    limit_gib: float | None = None
    bound: tuple[str, float] | None = None
    note: str = ""

    @property
    def _is_rate(self) -> bool:
        return self.unit.endswith("/s")

    def figure(self, sample: Sample) -> float:
        """Return the figure of a sample, in the unit of the row."""
        if self._is_rate:
            return sample.amount / sample.seconds
        return sample.seconds / sample.amount * (1000 if self.unit.startswith("ms") else 1)

    def measured(
        self,
        rounds: Sequence[Round],
        rejected: Mapping[str, int],
        *,
        failed: Mapping[str, str] | None = None,
        peaks: Mapping[str, float] | None = None,
    ) -> dict[str, Any]:
        """Summarise the samples of all rounds.

        A round counts only if every candidate has a quiet sample. `rejected` samples did not count.
        The result has medians, ranges and ratios, as plain JSON values.
        """
        names = [self.ours, self.peer] if self.peer else [self.ours]
        found = [[samples.get(name) for name in names] for samples in rounds]
        taken = [[sample for sample in each if sample] for each in found if all(each)]
        figures = [[self.figure(sample) for sample in each] for each in taken]
        ours = [each[0] for each in figures]
        peer = [each[1] for each in figures if self.peer]
        pairs = zip(ours, peer, strict=False)  # without a peer there is none
        ratios = [a / b if self._is_rate else b / a for a, b in pairs]
        made: dict[str, Any] = {
            "work": self.work,
            "unit": self.unit,
            "names": {"ours": self.ours, "peer": self.peer or None},
        }
        for key, values in (("ours", ours), ("peer", peer), ("ratio", ratios)):
            made[key] = median(values) if values else None
            made[f"{key}_range"] = [min(values), max(values)] if values else None
        made["seconds"] = [
            median([e[n].seconds for e in taken] or [0.0]) for n in range(len(names))
        ]
        memory = [max((each[n].peak_gib for each in taken), default=0.0) for n in range(len(names))]
        made |= {"n": len(figures), "rejected": sum(rejected.get(name, 0) for name in names)}
        made["peak_gib"] = [round(gib, 3) for gib in memory]
        within = [
            figure <= limit
            for figure, limit in ((made["ours"], self.limit), (memory[0], self.limit_gib))
            if limit is not None and ours
        ]
        made |= {"limit": self.limit, "limit_gib": self.limit_gib}
        made |= {"within_limit": all(within) if within else None, "note": self.note}
        wrong = [f"{name}: {(failed or {})[name]}" for name in names if name in (failed or {})]
        return {**made, **self._share(made["ours"], peaks or {}), "failed": "; ".join(wrong)}

    def _share(self, ours: float | None, peaks: Mapping[str, float]) -> dict[str, Any]:
        """Return our share of the machine's peak speed, if this peak was measured."""
        kind, cost = self.bound or ("", 0.0)
        peak = peaks.get(kind)
        if ours is None or peak is None:
            return {"share": None, "share_of": None}
        rate = ours if self._is_rate else (1000 if self.unit.startswith("ms") else 1) / ours
        return {"share": rate * cost / peak, "share_of": kind}


@dataclass
class Meter:
    """Takes samples, and waits until other programs are quiet.

    Attributes:
        machine: Clocks of the processors.
        least_seconds: Shortest time of a sample, s; a run is repeated until then, because processor
            time is counted in hundredths of a second.
        guarded: True if noisy samples do not count.
        patience: Time that is left for waiting, s.
        apart: True if each candidate is set up in its own process.
        peaks: Peak speeds of the machine per second, by name, once measured.
    """

    machine: ProcessorTime
    rounds: int = 5
    least_seconds: float = 0.5
    guarded: bool = True
    patience: float = 600.0
    apart: bool = True
    peaks: dict[str, float] = field(default_factory=dict)

    def sample(self, timer: Timer, least: float) -> Sample:
        """Time one run, repeated for some seconds, whether other programs are quiet or not."""
        busy = self.machine.busy()
        own = self.machine.own()
        start = self.machine.now()
        taken = timer(least)
        seconds = self.machine.now() - start
        busy_after = self.machine.busy()
        noise = None
        if busy is not None and busy_after is not None:
            others = (busy_after - busy) - (self.machine.own() - own)
            noise = max(others, 0) / (self.machine.cpus * seconds)
        return Sample(taken.amount, taken.seconds, noise, taken.peak_gib)

    def quiet_sample(self, timer: Timer) -> tuple[Sample | None, int]:
        """Take up to four samples until one is quiet; return it or None, and how many were not."""
        for rejected in range(_TRIES):
            if rejected and not self._wait():
                return None, rejected
            sample = self.sample(timer, self.least_seconds)
            if not self.guarded or sample.noise is None or sample.noise < _MOST_NOISE:
                return sample, rejected
        return None, _TRIES

    def _wait(self) -> bool:
        """Sleep until other programs are quiet; return False if the patience ends before."""
        while self.patience > 0:
            self.patience -= _WAIT_SECONDS
            sleep = self._here(lambda: self.machine.sleep(_WAIT_SECONDS))
            noise = self.sample(sleep, 0.0).noise
            if noise is not None and noise < _MOST_NOISE:
                return True
        return False

    def _here(self, run: Run) -> Timer:
        return partial(timed, run, now=self.machine.now)

    def measure(
        self,
        candidates: Mapping[str, Candidate | Run],
        rows: Iterable[Row],
        *,
        warm: bool = True,
        most: int = 5,
    ) -> Iterator[dict[str, Any]]:
        """Time the candidates in turn, and yield each row as plain JSON values.

        A candidate that fails is left out from then on, and its rows state the error. `warm` runs
        each candidate once before it is timed. `most` is the largest number of rounds; long rounds
        are fewer.
        """
        rejected = dict.fromkeys(candidates, 0)
        failed: dict[str, str] = {}
        rounds: list[Round] = []
        with ExitStack() as stack:
            timers = self._timers(candidates, stack, failed)
            for name in list(timers) if warm else ():
                with _noting(name, timers, failed):
                    timers[name](0.0)
            start = self.machine.now()
            for number in range(min(self.rounds, most)):
                if self.machine.now() - start > _ENOUGH.get(number, float("inf")):
                    break
                taken: dict[str, Sample | None] = {}
                for name in _turned(list(timers), number):
                    with _noting(name, timers, failed):
                        taken[name], noisy = self.quiet_sample(timers[name])
                        rejected[name] += noisy
                rounds.append(taken)
        for row in rows:
            yield row.measured(rounds, rejected, failed=failed, peaks=self.peaks)

    def _timers(
        self, candidates: Mapping[str, Candidate | Run], stack: ExitStack, failed: dict[str, str]
    ) -> dict[str, Timer]:
        """Return a timer for each candidate; the processes of candidates start at the same time."""
        timers: dict[str, Timer] = {}
        workers: dict[str, Worker] = {}
        for name, candidate in candidates.items():
            if not isinstance(candidate, Candidate):
                timers[name] = self._here(candidate)
            elif self.apart:
                timers[name] = workers[name] = Worker(candidate)
                stack.callback(workers[name].end)
            else:
                with _noting(name, timers, failed):
                    timers[name] = self._here(candidate.here())
        for name, worker in workers.items():
            with _noting(name, timers, failed):
                worker.ready()
        return timers


@contextmanager
def _noting(name: str, timers: dict[str, Timer], failed: dict[str, str]) -> Iterator[None]:
    """Leave a candidate out after it failed, and note the error."""
    try:
        yield
    except (ImportError, InputError, RuntimeError) as error:  # a WorkerError, too
        failed[name] = str(error)
        timers.pop(name, None)


def _turned(names: list[str], number: int) -> list[str]:
    """Return the names in another order for every round."""
    turn = number % max(len(names), 1)
    return names[turn:] + names[:turn]


def each(function: Callable[..., object], values: Sequence[Any]) -> float:
    """Call a function with every value; return the number of values."""
    for value in values:
        function(value)
    return float(len(values))


@dataclass(frozen=True)
class Setting:
    """Settings of every group.

    `quick` means tiny sizes, one round, one process, and no waiting for a quiet machine.
    """

    scratch: Path
    meter: Meter
    seed: int
    quick: bool
    dataset: DataSet | None
    source: Path | None

    @cached_property
    def images(self) -> list[Path]:
        """Files to decode: the first 200 that can be read, DICOM files if there are any."""
        if self.dataset is not None:
            root = self.dataset.source_root
            named = self.dataset.images["path"].dropna()
            found = [root / path for path in sorted(named)]
        elif self.source is not None:
            found = [self.source / path for path in list_images(self.source)["path"]]
        else:
            n_images, size, workers = (4, 64, 1) if self.quick else (60, 1024, cpu_count())
            phantom = self.scratch / "phantom"
            write_phantom(phantom, n_images=n_images, seed=self.seed, size=size, workers=workers)
            found = sorted((phantom / TRAIN_IMAGES).glob("*.dcm"))
        readable = []
        for path in found[: 2 * _MOST_IMAGES]:
            with suppress(InputError):
                read_image(path)
                readable.append(path)
        chosen = [path for path in readable if is_dicom(path)] or readable
        if not chosen:
            raise InputError(f"{self.source or self.scratch}: no image to measure with")
        return chosen[: 4 if self.quick else _MOST_IMAGES]

    @cached_property
    def payload(self) -> dict[str, Any]:
        """Setting as plain JSON values."""
        made = provenance()
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        made["hardware"] |= {"processor": processor_name(), "memory_gib": round(memory, 1)}
        watched = self.meter.guarded and self.meter.machine.busy() is not None
        place = self.source if self.dataset is None else self.dataset.folder
        for package in _PEERS:
            with suppress(metadata.PackageNotFoundError):
                made["versions"][package] = metadata.version(package)
        return {
            **made,
            "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
            "images": str(place) if place else f"synthetic chest X-rays, seed {self.seed}",
            "n_images": len(self.images),
            "seed": self.seed,
            "quick": self.quick,
            "most_noise": _MOST_NOISE if watched else None,
        }

    @property
    def lines(self) -> list[str]:
        """Setting as lines of text."""
        made = self.payload
        machine = "{processor}, {cpus} processors, {memory_gib:g} GiB"
        lines = [
            "machine: " + machine.format(**made["hardware"]),
            "versions: " + ", ".join(map(" ".join, made["versions"].items())),
            f"revision: {made['revision'] or 'not a git checkout'}, {made['created']}",
            f"images: {made['n_images']} of {made['images']}",
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
    """Set up a benchmark on a data set, a folder of images, or synthetic images.

    Its temporary folder is removed afterwards.
    """
    dataset = None if data is None else DataSet.open(data)
    if source is not None and not source.is_dir():
        raise InputError(f"{source}: no such folder")
    once = partial(Meter, rounds=1, least_seconds=0.0, guarded=False, apart=False)
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as scratch:
        require_free_space(Path(scratch), 0 if quick else _SCRATCH_BYTES)
        yield Setting(
            Path(scratch), (once if quick else Meter)(ProcessorTime()), seed, quick, dataset, source
        )


def is_dicom(path: Path) -> bool:
    """Return True if a file starts as DICOM files do."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
