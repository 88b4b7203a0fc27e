"""Commands that are killed (-9) at random moments, several times in a row, and then run to the end.

Each round kills a command up to a number of times, starts the same command again, and compares the
folder with that of a command that was not killed: the same files, the same content except for
times. Nothing else may remain: no temporary folder beside it or in TMPDIR, and no process. A kill
comes after a random number of changes in the folder, at most a given share of the changes that the
undisturbed command makes, so that a busy machine gets as far as an idle one.

``tests/tools/test_kills.py`` runs the attack.
"""

import difflib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.scripts.launched import command_line, naming
from tools.attacks import material
from tools.attacks.forked import ForkedCommand, orphans

_TIMES = {
    "created",
    "revision",
    "seconds",
    "sha256",
    "cost",
    "images_per_second",
    "sha256_of_this_file",
}
_LONGEST_COMMAND = 1200.0  # seconds, after which a command counts as one that does not end
# What says how long something took, or was written by the way.
_ABOUT_TIME = (
    "last.ckpt",
    "*.log",
    "*.html",
    "*.png",
    "*.xml",
    "*.jsonl",
)


def content(folder: Path) -> dict[str, str]:
    """Return a digest of each file below a folder, without the times in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            continue
        if any(path.match(pattern) for pattern in _ABOUT_TIME):
            found[name] = "about time"
        elif path.suffix == ".json":
            found[name] = json.dumps(_timeless(json.loads(path.read_text())), sort_keys=True)
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {
            key: _timeless(item)
            for key, item in value.items()
            if key not in _TIMES and "seconds" not in key and "time" not in key
        }
    return [_timeless(item) for item in value] if isinstance(value, list) else value


Running = subprocess.Popen[bytes] | ForkedCommand


def _begin(words: list[str], scratch: Path, *, forked: bool) -> Running:
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(material.ROOT), "TMPDIR": str(scratch)}
    environment = {**os.environ, **variables}
    if forked:
        return ForkedCommand(words, environment)
    return subprocess.Popen(
        material.cxr_command(*words),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def running(folder: Path, *, forked: bool = False) -> list[str]:
    """Return the running commands that name a folder; if forked, all that this process started."""
    if forked:
        return [f"process {each}" for each in orphans()]
    return [command_line(each) for each in naming(str(folder)) if each != os.getpid()]


def _fresh(disk: Path, copied: tuple[str, ...], work: Path) -> None:
    shutil.rmtree(disk, ignore_errors=True)
    disk.mkdir()
    for name in copied:
        shutil.copytree(work / name, disk / name)


@dataclass
class Plan:
    """Number of kills, and the moments at which they come.

    Attributes:
        kills: Kills after which no further round begins.
        most: Most kills in one round.
        share: Most changes in the folder before a kill, as a share of those of an unkilled command.
        draw: Source of the random moments.
        forked: True forks the commands from this process.
        pause: Longest time between a change in the folder and the kill, and the time after the kill
            in which the processes that the command started may end, s.
    """

    kills: int
    most: int
    share: float
    draw: random.Random
    forked: bool = False
    pause: float = 1.0


class Ended(NamedTuple):
    """The end of a command."""

    status: int | None  # None if it did not end by itself
    stderr: str


@dataclass
class Attacked:
    """A command that is run again and again with a fresh folder.

    Attributes:
        copied: Inputs that are copied into the folder.
        work: Folder of the inputs.
        disk: Folder that the command writes.
        changes: Changes that it makes there when nobody kills it.
        forked: True forks it from this process.
    """

    name: str
    words: list[str]
    copied: tuple[str, ...]
    work: Path
    disk: Path
    changes: int = 0
    forked: bool = False

    @property
    def scratch(self) -> Path:
        """TMPDIR of the command."""
        return self.disk.with_name("tmp")

    def prepare(self) -> None:
        """Empty the folder and copy the inputs into it."""
        self.scratch.mkdir(exist_ok=True)
        _fresh(self.disk, self.copied, self.work)

    def begin(self) -> Running:
        """Start the command."""
        return _begin(self.words, self.scratch, forked=self.forked)

    def running(self) -> list[str]:
        """Name its processes that run."""
        return running(self.disk, forked=self.forked)

    def leftovers(self, row: str) -> list[str]:
        """Return a line for each process that still runs and each file left in TMPDIR."""
        left = [f"{row}: left in TMPDIR: {path.name}" for path in self.scratch.iterdir()]
        return left + [f"{row}: still runs: {each}" for each in self.running()]

    def outcome(self, row: str, ended: Ended, reference: dict[str, str]) -> list[str]:
        """Return a line for each difference from a command that was not killed.

        `row` is the name of the round; `reference` has the digests of the files of the other
        command.
        """
        # If the output was complete when the command was killed, the same command reports this.
        complete = (
            "is there and is no empty folder" in ended.stderr
            or "complete predictions" in ended.stderr
        )
        if (ended.status != 0 and not complete) or "Traceback" in ended.stderr:
            return [f"{row}: ends with {ended.status}: {ended.stderr[-600:]}"]
        return _differences(row, reference, content(self.disk)) + self.leftovers(row)


def finish(command: Running, seconds: float = _LONGEST_COMMAND) -> Ended:
    """Wait for the end of a command, or end it after so many seconds."""
    try:
        stderr = command.communicate(timeout=seconds)[1]
        return Ended(command.returncode, stderr.decode())
    except subprocess.TimeoutExpired:
        command.kill()
        stderr = command.communicate()[1]
        return Ended(None, f"{stderr.decode()}\nit did not end within {seconds:.0f} s")


def modification_times(folder: Path) -> dict[Path, int]:
    """Return when each file below a folder was last written, in nanoseconds."""
    times = {}
    for path in folder.rglob("*"):
        with suppress(OSError):  # it has just been removed
            times[path] = path.lstat().st_mtime_ns
    return times


def count_changes(command: Running, folder: Path, most: int | None = None) -> int:
    """Watch the folder of a command until it has changed so often, or the command has ended.

    Each file counts as often as it was seen to change. None waits for the end of the command.
    """
    changes = 0
    before = modification_times(folder)
    began = time.monotonic()
    while command.poll() is None and (most is None or changes < most):
        if time.monotonic() - began > _LONGEST_COMMAND:
            break
        time.sleep(0.02)
        now = modification_times(folder)
        changes += sum(before.get(path) != written for path, written in now.items())
        before = now
    return changes


def kill_command(attacked: Attacked, row: str, most: int, plan: Plan) -> tuple[int, list[str]]:
    """Start a command and kill it, several times in a row.

    Returns the number of kills, and a line for each process that outlived its command.
    """
    wrong = []
    kills = 0
    most_changes = max(1, round(plan.share * attacked.changes))
    for _ in range(plan.draw.randint(1, most)):
        command = attacked.begin()
        count_changes(command, attacked.disk, plan.draw.randint(1, most_changes))
        # Without a pause, each kill would directly follow a written file.
        time.sleep(plan.draw.uniform(0, plan.pause))
        if command.poll() is not None:
            command.communicate()
            break
        os.kill(command.pid, signal.SIGKILL)
        command.communicate()
        kills += 1
        time.sleep(plan.pause)
        wrong += [f"{row}: still runs: {each}" for each in attacked.running()]
    return kills, wrong


def attack(name: str, work: Path, disk: Path, plan: Plan) -> list[str]:
    """Kill a command of `material.COMMANDS` until there were enough kills.

    The folder `disk` that it writes is emptied for each round. There is a line for everything that
    differs from a command that nobody killed.
    """
    text, copied = material.COMMANDS[name]
    words = text.format(w=work, d=disk).split()
    attacked = Attacked(name, words, copied, work, disk, forked=plan.forked)
    attacked.prepare()
    began = time.monotonic()
    command = attacked.begin()
    attacked.changes = count_changes(command, disk)
    unkilled = finish(command)
    took = time.monotonic() - began
    if unkilled.status != 0:
        return [f"{name}: fails unkilled: {unkilled.stderr}"]
    reference = content(disk)
    wrong: list[str] = []
    kills = 0
    rounds = 0
    while kills < plan.kills and rounds < 2 * plan.kills:
        row = f"{name} {rounds}"
        most = min(plan.most, plan.kills - kills)
        attacked.prepare()
        killed, outlived = kill_command(attacked, row, most, plan)
        kills += killed
        wrong += outlived
        ended = finish(attacked.begin())
        rounds += 1
        wrong += attacked.outcome(row, ended, reference)
        print(f"  {row}: {kills} kills, {len(wrong)} differ", file=sys.stderr, flush=True)
    _report(name, took, rounds, kills, wrong)
    return wrong


def _differences(row: str, reference: dict[str, str], made: dict[str, str]) -> list[str]:
    """Return one line for each file that differs from that of an undisturbed command."""
    wrong = []
    for file in sorted({*made, *reference}):
        if made.get(file) != reference.get(file):
            both = [(of.get(file) or "").split(", ") for of in (reference, made)]
            marks = " ".join(line for line in difflib.ndiff(*both) if line[0] in "+-")
            wrong.append(f"{row}: {file}: {marks[:300]}")
    return wrong


def _report(name: str, took: float, rounds: int, kills: int, wrong: list[str]) -> None:
    print(f"{name:20} {took:6.0f} s {rounds:6} {kills:6} {len(wrong):9}", flush=True)
    for line in wrong:
        print(f"  {line}", flush=True)
