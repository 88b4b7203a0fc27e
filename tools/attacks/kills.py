"""Commands killed (-9) at random moments, several times in a row, and then let end.

Usage: ``python -m tools.attacks.kills [VERB ...] [--rounds N] [--seed N] [--work FOLDER]``. Each
round kills a command one to three times, gives the same command again, and holds the folder
against that of a command that nobody killed: the same files, the same content but for times.
Nothing else may stay: no temporary folder beside it or in TMPDIR, no process. Of the rows of
``CXR_ENGINE=ray`` named "workers", Ray's workers are killed in place of the command, which is to
end as if nothing had happened. Exit status 1 where something differs.
"""

import argparse
import difflib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.scripts.launched import command_line, naming, workers_below
from tools.attacks import material

WORKERS = {
    "workers of predict": "CXR_ENGINE=ray predict",
    "workers of prepare": "CXR_ENGINE=ray prepare",
}
NAMES = (
    "import",
    "predict --data",
    "export run",
    "export openvino",
    "export set",
    "train",
    "sweep",
    "curve",
    "compare",
    "transfer",
    "CXR_ENGINE=ray predict",
    "CXR_ENGINE=ray prepare",
    *WORKERS,
)
_TIMES = {
    "created",
    "revision",
    "seconds",
    "sha256",
    "cost",
    "images_per_second",
    "sha256_of_this_file",
    "peak_memory_bytes",
}
_MOST_WORKERS = 5  # killed in a round
# What says how long something took, or was written by the way.
_ABOUT_TIME = (
    "metrics.csv",
    "last.ckpt",
    "*.log",
    "*.html",
    "*.png",
    "study.journal",
    "*.xml",
    "*.jsonl",
)


def content(folder: Path) -> dict[str, str]:
    """A digest of each file below a folder, without the times in it."""
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


def _begin(words: list[str], scratch: Path) -> subprocess.Popen[bytes]:
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(material.ROOT), "TMPDIR": str(scratch)}
    return subprocess.Popen(
        material.cxr_command(*words),
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def running(folder: Path) -> list[str]:
    """Commands under way that name a folder."""
    return [command_line(each) for each in naming(str(folder)) if each != os.getpid()]


def _fresh(disk: Path, copied: tuple[str, ...], work: Path) -> None:
    shutil.rmtree(disk, ignore_errors=True)
    disk.mkdir()
    for name in copied:
        shutil.copytree(work / name, disk / name)


def attack_workers(
    name: str, work: Path, disk: Path, rounds: int, draw: random.Random
) -> list[str]:
    """Kill Ray's workers below a command; what differs from a command without kills."""
    text, copied = material.COMMANDS[WORKERS[name]]
    words = text.format(w=work, d=disk).split()
    scratch = disk.with_name("tmp")
    scratch.mkdir(exist_ok=True)
    _fresh(disk, copied, work)
    whole = _begin(words, scratch)
    said = whole.communicate()[1].decode()
    if whole.returncode:
        return [f"{name}: fails unkilled: {said}"]
    reference = content(disk)
    wrong = []
    kills = 0
    for number in range(rounds):
        _fresh(disk, copied, work)
        command = _begin(words, scratch)
        killed_in_round = 0
        while command.poll() is None and killed_in_round < _MOST_WORKERS:
            time.sleep(draw.uniform(0.2, 1.0))
            if workers := workers_below(command.pid):
                with suppress(ProcessLookupError):
                    os.kill(draw.choice(workers), signal.SIGKILL)
                    killed_in_round += 1
        kills += killed_in_round
        said = command.communicate(timeout=600)[1].decode()
        if command.returncode or "Traceback" in said:
            wrong.append(f"{name} {number}: ends with {command.returncode}: {said[-600:]}")
            continue
        wrong += _differences(f"{name} {number}", reference, content(disk))
    _report(name, 0, rounds, kills, wrong)
    return wrong


def _differences(row: str, reference: dict[str, str], made: dict[str, str]) -> list[str]:
    """Files of a folder that differ from those of an undisturbed command, a line each."""
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


def attack(name: str, work: Path, disk: Path, rounds: int, draw: random.Random) -> list[str]:
    """Kill a command in some rounds; what differs from one that was not killed, a line each."""
    text, copied = material.COMMANDS[name]
    words = text.format(w=work, d=disk).split()
    scratch = disk.with_name("tmp")
    scratch.mkdir(exist_ok=True)
    _fresh(disk, copied, work)
    began = time.monotonic()
    whole = _begin(words, scratch)
    said = whole.communicate()[1].decode()
    took = time.monotonic() - began
    if whole.returncode:
        return [f"{name}: fails unkilled: {said}"]
    reference = content(disk)
    wrong = []
    kills = 0
    for number in range(rounds):
        _fresh(disk, copied, work)
        for _ in range(draw.randint(1, 3)):
            last = _begin(words, scratch)
            try:
                said = last.communicate(timeout=took * draw.uniform(0.15, 0.8))[1].decode()
                break  # it had ended before
            except subprocess.TimeoutExpired:
                os.kill(last.pid, signal.SIGKILL)
                last.communicate()
                kills += 1
                time.sleep(1)
                wrong += [f"{name} {number}: still runs: {each}" for each in running(disk)]
        else:
            last = _begin(words, scratch)
            said = last.communicate()[1].decode()
        done = "is there and is no empty folder" in said or "complete predictions" in said
        if (last.returncode and not done) or "Traceback" in said:  # done: killed when all was there
            wrong.append(f"{name} {number}: ends with {last.returncode}: {said[-600:]}")
            continue
        wrong += _differences(f"{name} {number}", reference, content(disk))
        wrong += [f"{name} {number}: left in TMPDIR: {path.name}" for path in scratch.iterdir()]
        wrong += [f"{name} {number}: still runs: {each}" for each in running(disk)]
    _report(name, took, rounds, kills, wrong)
    return wrong


def main() -> int:
    """Run the attacks; 1 where anything fell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="VERB", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--work", type=Path, help="folder of the inputs, kept for the next time")
    given = parser.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="cxr-kills-") as folder:
        work = material.make((given.work or Path(folder) / "inputs").resolve())
        print("command               unkilled rounds  kills  differing")
        for name in NAMES:
            if not given.names or name in given.names:
                draw = random.Random(f"{given.seed} {name}")  # noqa: S311
                attacks = attack_workers if name in WORKERS else attack
                wrong += attacks(name, work, Path(folder) / "disk", given.rounds, draw)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
