"""Limits of the system: files above a size (RLIMIT_FSIZE), and actions that only root may do.

Usage: ``python -m tools.attacks.limits [VERB ...] [--work FOLDER]``. The program needs root, to
become another user. The exit status is 1 if a command gave a traceback, printed nothing, or did not
name the file.

The rows: ``size`` allows files of 30 % of the largest that the command writes. ``home`` runs as a
user without a home folder, who owns only the folder of the output. In ``output`` the folder of the
output belongs to another user; in ``input`` the inputs belong to another user and cannot be read.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools.attacks import material

NAMES = (
    "synth",
    "prepare",
    "check",
    "split",
    "train",
    "predict --data",
    "predict",
    "import",
    "ensemble",
    "tune",
    "compare",
    "readers",
    "overlay",
    "export run",
    "export set",
    "plan",
)
_NOBODY = 65534
_SHARE = 0.3  # of the largest file
_LEAST_SIZE = 64


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return size and time of each file below a folder."""
    stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def limit_files(size: int) -> Callable[[], None]:
    """Return a function that limits the size of files, for a process that will run the command."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def become_nobody() -> None:
    """Give up root."""
    os.setgroups([])
    os.setgid(_NOBODY)
    os.setuid(_NOBODY)


def own(folder: Path, user: int) -> None:
    """Give a folder and everything below it to a user.

    Args:
        folder: The folder.
        user: Number of the user.
    """
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


def run(
    words: list[str], before: Callable[[], None] | None, scratch: Path, **variables: str
) -> tuple[int, str]:
    """Run a command.

    Args:
        words: Words of the command.
        before: Function that the new process calls first; None for none.
        scratch: TMPDIR of the command.
        **variables: Environment variables.

    Returns:
        Exit status, and output on stderr.
    """
    surroundings = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(material.ROOT),
        "TMPDIR": str(scratch),
        "PYTHONDONTWRITEBYTECODE": "1",
        **variables,
    }
    done = subprocess.run(
        material.cxr_command(*words),
        env=surroundings,
        cwd=scratch,
        preexec_fn=before,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=900,
        check=False,
    )
    return done.returncode, done.stderr


def problem(status: int, said: str, *, fails: bool, names: Path) -> str:
    """Return the problem with the end of a command; empty if there is none.

    Args:
        status: Exit status.
        said: Output on stderr.
        fails: True if the command has to fail.
        names: Path that the error message must name.

    Returns:
        Description of the problem.
    """
    lines = [line for line in said.splitlines() if line.startswith("cxr: ")]
    if "Traceback" in said:
        return "TRACEBACK"
    if not fails:
        return "" if status == 0 else f"exit {status}"
    if status == 0:
        return "SILENT"
    if status != 2 or len(lines) != 1:
        return f"exit {status}, {len(lines)} lines"
    return "" if str(names) in lines[0] else "NO PLACE"


def attack(name: str, work: Path, folder: Path) -> list[str]:
    """Run a command in each row.

    Args:
        name: Name of the command.
        work: Folder of the inputs.
        folder: Folder for the output.

    Returns:
        One line for each row in which the command failed the test.
    """
    text, copied = material.COMMANDS[name]
    disk = folder / "disk"
    scratch = folder / "scratch"
    words = text.format(w=work, d=disk).split()
    fell = []

    def fresh(user: int) -> None:
        for place in (disk, scratch):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
        for copy in copied:
            shutil.copytree(work / copy, disk / copy)
        own(disk, user)
        own(scratch, _NOBODY)

    def row(label: str, end: tuple[int, str], names: Path, *, fails: bool) -> None:
        status, said = end
        wrong = problem(status, said, fails=fails, names=names)
        last = (said.strip().splitlines() or [""])[-1]
        print(f"{name:16} {label:7} {status:4} {wrong or '-':12} {last[:170]}", flush=True)
        if wrong:
            fell.append(f"{name} {label}: {wrong}: {said[-1500:]}")

    fresh(0)
    before = files(disk)
    if (end := run(words, None, scratch))[0]:
        return [f"{name} fails without a limit: {end[1]}"]
    made = files(disk)
    written = [size for path, (size, _) in made.items() if before.get(path) != made[path]]
    fresh(0)
    size = max(int(_SHARE * max(written)), _LEAST_SIZE)
    row("size", run(words, limit_files(size), scratch), folder, fails=True)
    fresh(_NOBODY)
    row("home", run(words, become_nobody, scratch, HOME="/nonexistent"), folder, fails=False)
    fresh(0)
    row("output", run(words, become_nobody, scratch, HOME="/nonexistent"), folder, fails=True)
    if "{w}" in text:
        fresh(_NOBODY)
        work.chmod(0o700)
        row("input", run(words, become_nobody, scratch, HOME="/nonexistent"), work, fails=True)
        work.chmod(0o755)
    return fell


def main() -> int:
    """Run the attacks; return 1 if a command failed the test."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="VERB", help="these alone")
    parser.add_argument("--work", type=Path, help="folder of the inputs, kept for the next time")
    given = parser.parse_args()
    if os.geteuid() != 0:
        print("skipped: needs root")
        return 0
    fell: list[str] = []
    with tempfile.TemporaryDirectory(prefix="cxr-limits-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        work = material.make((given.work or folder / "inputs").resolve())
        for command in NAMES:
            if not given.names or command in given.names:
                fell += attack(command, work, folder)
    print(f"{len(fell)} fell")
    for text in fell:
        print(text)
    return int(bool(fell))


if __name__ == "__main__":
    sys.exit(main())
