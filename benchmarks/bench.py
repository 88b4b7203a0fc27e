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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import provenance, require_free_space
from data_prep.contracts.workers import cpu_count, processor_name
from data_prep.formats.common import list_image_files
from data_prep.images.image import read_image
from data_prep.store.dataset import DataSet
from data_prep.synth.files import TRAIN_FOLDER
from data_prep.synth.phantom import write_phantom
from scripts.calibration import ProcessorTime

_MOST_NOISE = 0.1  # share of the processors that others may use during a sample that counts
_TRIES = 4
_WAIT_SECONDS = 1.0
_MOST_IMAGES = 200
_SCRATCH_BYTES = 2 << 30

Run = Callable[[], Any]
"""Does the work once; returns how much it was (images, replicates), None for one, or a dict."""


@dataclass(frozen=True)
class Sample:
    """One timed run: how much, how long, the share that others used, and what the run printed."""

    amount: float
    seconds: float
    noise: float | None
    printed: Mapping[str, float] | None = None


Round = Mapping[str, Sample | None]
"""A sample of each candidate; None where no try was quiet."""


@dataclass(frozen=True)
class Row:
    """A row to be measured: candidate ``ours`` against ``peer``; the unit says which figure.

    ``part`` is the figure's key in what a process of its own prints, ``limit`` what it must stay
    below, ``note`` what the figures do not show.
    """

    name: str
    unit: str
    ours: str
    peer: str = ""
    part: str = ""
    limit: float | None = None
    note: str = ""

    def figure(self, sample: Sample) -> float:
        """Amount a second, of which more is better, or time a run, of which less is."""
        if self.part:
            return (sample.printed or {})[self.part]
        if self.unit.endswith("/s"):
            return sample.amount / sample.seconds
        return sample.seconds / sample.amount * (1000 if self.unit.startswith("ms") else 1)

    def measured(self, rounds: Sequence[Round], rejected: Mapping[str, int]) -> dict[str, Any]:
        """Medians and ranges as JSON; a round counts in which every candidate was quiet."""
        names = [self.ours, self.peer] if self.peer else [self.ours]
        taken = [[samples[name] for name in names] for samples in rounds]
        figures = [[self.figure(s) for s in each if s] for each in taken if all(each)]
        ours, peer = [each[0] for each in figures], [each[1] for each in figures if self.peer]
        pairs = zip(ours, peer, strict=False)  # without a peer there is none
        ratios = [a / b if self.unit.endswith("/s") else b / a for a, b in pairs]
        made: dict[str, Any] = {"name": self.name, "unit": self.unit}
        for key, values in (("ours", ours), ("peer", peer), ("ratio", ratios)):
            made[key] = median(values) if values else None
            made[f"{key}_range"] = (min(values), max(values)) if values else None
        made |= {"n": len(figures), "rejected": sum(rejected[name] for name in names)}
        within = None if self.limit is None or not ours else made["ours"] <= self.limit
        return {**made, "limit": self.limit, "note": self.note, "within_limit": within}


@dataclass
class Meter:
    """Takes samples; until ``patience``, s, is used up, it waits for others to be quiet.

    A run is repeated within its sample for ``least_seconds``: clocks of processor time tick in
    hundredths of a second. Unless ``guarded``, a noisy sample counts.
    """

    machine: ProcessorTime
    rounds: int = 5
    least_seconds: float = 0.5
    guarded: bool = True
    patience: float = 600.0

    def sample(self, run: Run, least: float) -> Sample:
        """Time one run, repeated for the ``least`` seconds, noisy or not."""
        busy, own, start = self.machine.busy(), self.machine.own(), self.machine.now()
        amount = seconds = 0.0
        printed = None
        while seconds <= 0 or seconds < least:
            given = run()
            printed = given if isinstance(given, dict) else None
            amount += 1.0 if printed is not None or not given else given
            seconds = self.machine.now() - start
        busy_after = self.machine.busy()
        if busy is None or busy_after is None:
            return Sample(amount, seconds, None, printed)
        others = (busy_after - busy) - (self.machine.own() - own)
        return Sample(amount, seconds, max(others, 0) / (self.machine.cpus * seconds), printed)

    def quiet_sample(self, run: Run) -> tuple[Sample | None, int]:
        """The first quiet sample of four tries, or None; and how many did not count."""
        for rejected in range(_TRIES):
            if rejected and not self._wait():
                return None, rejected
            sample = self.sample(run, self.least_seconds)
            if not self.guarded or sample.noise is None or sample.noise < _MOST_NOISE:
                return sample, rejected
        return None, _TRIES

    def _wait(self) -> bool:
        """Sleep until others are quiet; False if patience ends before."""
        while self.patience > 0:
            self.patience -= _WAIT_SECONDS
            noise = self.sample(lambda: self.machine.sleep(_WAIT_SECONDS), 0.0).noise
            if noise is not None and noise < _MOST_NOISE:
                return True
        return False

    def measure(
        self, runs: Mapping[str, Run], rows: Iterable[Row], *, warm: bool = True, most: int = 5
    ) -> Iterator[dict[str, Any]]:
        """Time candidates in turn, at most ``most`` rounds; ``warm`` runs each once before."""
        names, rejected = list(runs), dict.fromkeys(runs, 0)
        rounds: list[Round] = []
        for run in runs.values() if warm else ():
            run()
        for number in range(min(self.rounds, most)):
            turn = number % len(names)
            taken: dict[str, Sample | None] = {}
            for name in names[turn:] + names[:turn]:
                taken[name], noisy = self.quiet_sample(runs[name])
                rejected[name] += noisy
            rounds.append(taken)
        for row in rows:
            yield row.measured(rounds, rejected)


def own_process(module: str, *arguments: object) -> Any:
    """What one of our modules prints as JSON in a process of its own: its memory is its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603  our own command
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def peak_gib() -> float:
    """The greatest memory of this process, GiB; `getrusage` would count its parent's, too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def each(function: Callable[..., object], values: Sequence[Any]) -> float:
    """Call a function with every value; says how many there were."""
    for value in values:
        function(value)
    return float(len(values))


def line_of(row: Mapping[str, Any]) -> str:
    """A measured row as a sentence."""
    if row["ours"] is None:
        return f"{row['name']}: not measured, others use the machine"
    against = "" if row["peer"] is None else f" to {_figure(row['peer'])}"
    ratio = "" if row["ratio"] is None else f", {_figure(row['ratio'])}x"
    return f"{row['name']}: {_figure(row['ours'])}{against} {row['unit']}{ratio}"


def as_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    r"""Measured rows as a plain table; what was not measured stays empty.

    Example:
        >>> row = Row("open", "s", "store", limit=2.0)
        >>> rounds = [{"store": Sample(1.0, seconds, 0.0)} for seconds in (0.4, 0.5, 0.6)]
        >>> print("\n".join(as_lines([row.measured(rounds, {"store": 0})])))
        what  ours     peer  unit  ratio  min-max  n  rejected
        open   0.5  limit 2  s                     3         0
    """
    cells = [("what", "ours", "peer", "unit", "ratio", "min-max", "n", "rejected")]
    for row in rows:
        peer = f"limit {_figure(row['limit'])}" if row["limit"] else _figure(row["peer"])
        ratio = f"{_figure(row['ratio'])}x" if row["ratio"] else ""
        spread = "-".join(map(_figure, row["ratio_range"] or ()))
        counts = str(row["n"]), str(row["rejected"])
        cells.append((row["name"], _figure(row["ours"]), peer, row["unit"], ratio, spread, *counts))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    shaped = [zip(line, "<>><><>>", widths, strict=True) for line in cells]
    return ["  ".join(f"{c:{a}{w}}" for c, a, w in line).rstrip() for line in shaped]


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
        """Files to decode: the first 200 that can be read, DICOM where there are any."""
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
        """The setting as JSON."""
        made = provenance()
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        made["hardware"] |= {"processor": processor_name(), "memory_gib": round(memory, 1)}
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
        made, machine = self.payload, "{processor}, {cpus} processors, {memory_gib:g} GiB"
        lines = [
            "machine: " + machine.format(**made["hardware"]),
            "versions: " + ", ".join(map(" ".join, made["versions"].items())),
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
    """Set up a benchmark on a data set, a folder, or a phantom; its own folder is temporary."""
    dataset = None if data is None else DataSet.open(data)
    if source is not None and not source.is_dir():
        raise InputError(f"{source}: no such folder")
    plain = partial(Meter, rounds=1, least_seconds=0.0, guarded=False) if quick else Meter
    cv2.setNumThreads(1)  # what is compared with one processor must use one
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as scratch:
        require_free_space(Path(scratch), 0 if quick else _SCRATCH_BYTES)
        yield Setting(Path(scratch), plain(ProcessorTime()), seed, quick, dataset, source)


def is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's mark."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
