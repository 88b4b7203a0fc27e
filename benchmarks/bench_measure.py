"""Fair timing on a machine that others use too: in turn, several rounds, noisy samples rejected.

Candidates run one after the other in one process, in another order every round. A sample counts
only if other processes took less than a tenth of the processors meanwhile; else it is taken
again. Ratios are formed within a round, so that a machine that changes its speed changes both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

MOST_NOISE = 0.1
"""Share of the processors that others may use during a sample that counts."""
_TRIES = 4
_LOOK_SECONDS = 1.0


class Machine(Protocol):
    """The clocks that a measurement reads."""

    cpus: int

    def now(self) -> float:
        """Time of the wall clock, s."""

    def busy(self) -> float | None:
        """Processor time that everybody has used, s; None where nobody tells."""

    def own(self) -> float:
        """Processor time that this process and its descendants have used, s."""

    def sleep(self, seconds: float) -> None:
        """Do nothing for a while."""


class LinuxMachine:
    """The processors that this process may use, as ``/proc`` tells of them."""

    def __init__(self) -> None:
        self._names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        self._tick = 1 / os.sysconf("SC_CLK_TCK")
        self.cpus = len(self._names)

    def now(self) -> float:
        """Time of the wall clock, s."""
        return time.perf_counter()

    def busy(self) -> float | None:
        """Processor time that everybody has used, s; None where there is no ``/proc/stat``."""
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
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            try:
                text = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue  # it ended meanwhile
            # The name stands in brackets and may hold anything, brackets and spaces included.
            fields = text.rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = sum(map(int, fields[11:15]))
        return sum(used[pid] for pid in used if _descends(pid, parents)) * self._tick

    def sleep(self, seconds: float) -> None:
        """Do nothing for a while."""
        time.sleep(seconds)


def _descends(pid: int, parents: Mapping[int, int]) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = parents.get(pid, 0)
    return False


@dataclass(frozen=True)
class Sample:
    """One timed run.

    Attributes:
        amount: What the run says it did (images, rows), or 1.
        seconds: How long it took.
        noise: Share of the processors that others used meanwhile; None if unknown.
    """

    amount: float
    seconds: float
    noise: float | None


@dataclass
class Timings:
    """Samples that count, by candidate and round; None where no try was quiet.

    Attributes:
        rounds: One mapping a round.
        rejected: Samples that did not count, by candidate.
    """

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

    def sample(self, run: Callable[[], float | None]) -> Sample:
        """Time one run.

        Args:
            run: Does the work; tells how much it was, or None for once.

        Returns:
            The sample, noisy or not.
        """
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
        self,
        candidates: Mapping[str, Callable[[], float | None]],
        *,
        warm: bool = True,
        most_rounds: int | None = None,
    ) -> Timings:
        """Time candidates in turn.

        Args:
            candidates: What to time, by name.
            warm: Run each once before, uncounted.
            most_rounds: Take fewer rounds, where one takes long.

        Returns:
            The samples that count.
        """
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

    def quiet_sample(self, run: Callable[[], float | None]) -> tuple[Sample | None, int]:
        """Time one run until nobody disturbs it, four times at most.

        Returns:
            The sample that counts, the last one taken, or None; and how many did not count.
        """
        rejected = 0
        while True:
            sample = self.sample(run)
            if not self.guarded or sample.noise is None or sample.noise < MOST_NOISE:
                return sample, rejected
            rejected += 1
            if rejected == _TRIES or not self._wait():
                return None, rejected

    def _wait(self) -> bool:
        """Sleep until others are quiet; False if patience ends before."""
        while self.patience > 0:
            self.patience -= _LOOK_SECONDS
            idle = Meter(self.machine, least_seconds=0.0)
            noise = idle.sample(lambda: self.machine.sleep(_LOOK_SECONDS)).noise
            if noise is not None and noise < MOST_NOISE:
                return True
        return False
