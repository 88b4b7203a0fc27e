"""Full disks: each command on a disk that is too small, and without space for temporary files.

Usage: ``python -m tools.attacks.disks [VERB ...] [--work FOLDER]``. The program needs root, because
it mounts tmpfs; the mounts end with the program, in a mount namespace of its own. The exit status
is 1 if a command gave a traceback, printed nothing, or did not name the disk. Nothing is random.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.attacks import material

_SHARES = (0.0, 0.3, 0.9)  # of what the command writes, as room on the disk
# What is full beside the output; Python tries the folders of the first in turn.
_ELSEWHERE = {
    "TMPDIR": ("full", "/tmp", "/var/tmp", "/usr/tmp", "within"),  # noqa: S108
    "HOME": ("full",),
    "memory": ("/dev/shm",),  # noqa: S108
}
_INSIDE = "CXR_ATTACK_MOUNTS"
_PAGE = 4096


@dataclass(frozen=True)
class Case:
    """A command that writes to a small disk.

    Attributes:
        name: Name of the row.
        words: Words of the command; {w} is the folder of the inputs, {d} the disk.
        copied: Inputs that are copied to the disk, because the command writes into them.
        ends: Seconds after which a server is asked to end; 0 for a command that ends by itself.
    """

    name: str
    words: str
    copied: Sequence[str] = ()
    ends: float = 0


CASES = (
    *(Case(name, *command) for name, command in material.COMMANDS.items()),
    Case(
        "train, pixels",
        "train {w}/tiny.toml --data {d}/data --out {w}/train-{n} --device cpu "
        "--set data.image_size=96",
        ("data",),
    ),
    Case("serve", "serve {w}/run --port 0", (), 25),
)


@dataclass(frozen=True)
class Row:
    """Outcome of one command."""

    case: str
    place: str
    status: int
    cxr_lines: int
    traceback: bool
    named: bool
    last: str

    @property
    def fell(self) -> str:
        """Description of the problem; empty if there is none."""
        if self.traceback:
            return "TRACEBACK"
        if self.status not in (0, 2):
            return f"exit {self.status}"
        if self.status == 2 and self.cxr_lines != 1:
            return f"{self.cxr_lines} LINES"
        if self.status == 2 and not self.named:
            return "NO PLACE"
        return ""


def mount(place: Path, size: int, *, again: bool = False) -> None:
    """Mount a disk of a given size, or change the size of a mounted disk.

    Args:
        place: Folder of the disk.
        size: Size, bytes.
        again: True to change the size of the disk that is mounted there.
    """
    place.mkdir(parents=True, exist_ok=True)
    blocks = max(size // _PAGE, 1)
    options = f"{'remount,' * again}size={blocks * _PAGE},mode=1777"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)


def unmount(place: Path) -> None:
    """Unmount a disk."""
    subprocess.run(["umount", "-l", place], check=True)


def used(place: Path) -> int:
    """Return the number of bytes on a disk."""
    room = os.statvfs(place)
    return (room.f_blocks - room.f_bfree) * room.f_frsize


def fill(place: Path) -> None:
    """Fill a disk completely."""
    with (place / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"\0" * _PAGE):
            pass


def _fill_when(disk: Path, filled: int) -> None:
    """Fill a disk when a command has written half of what it writes."""
    until = time.monotonic() + 60
    while used(disk) < filled and time.monotonic() < until:
        time.sleep(0.002)
    fill(disk)


def run(case: Case, label: str, names: Path, work: Path, disk: Path, **given: Any) -> Row:
    """Run the command of a case.

    Args:
        case: The case.
        label: Description of the disk.
        names: Path that the error message must name.
        work: Folder of the inputs.
        disk: Folder of the disk.
        **given: Environment variables, and ``within`` for the working folder.

    Returns:
        Outcome of the command.
    """
    number = len(list(work.glob("train-*")))
    words = case.words.format(w=work, d=disk, n=number).split()
    if case.ends:
        status, said = _serve(words, case.ends, given)
    else:
        done = material.cxr(*words, **given)
        status = done.returncode
        said = done.stderr
    lines = [line for line in said.splitlines() if line.startswith("cxr: ")]
    row = Row(
        case.name,
        label,
        status,
        len(lines),
        "Traceback" in said,
        any(str(names) in line for line in lines),
        (said.splitlines() or [""])[-1],
    )
    print(
        f"{row.case:16} {row.place:11} {row.status:4} {row.cxr_lines:5} "
        f"{'yes' if row.traceback else 'no':9} {'yes' if row.named else 'no':5} "
        f"{row.fell:10} {row.last[:200]}",
        flush=True,
    )
    if row.fell:
        (work / "said.txt").open("a").write(f"== {case.name} {label}\n{said}\n")
    return row


def _serve(words: Sequence[str], seconds: float, given: dict[str, Any]) -> tuple[int, str]:
    """Return a server's status and output; a server that still runs is asked to end (status 0)."""
    server = subprocess.Popen(
        material.cxr_command(*words),
        cwd=given.pop("within", None),
        env={**os.environ, **given},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        _, said = server.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        server.terminate()
        _, said = server.communicate()
        return 0 if server.returncode == 143 else server.returncode, said
    return server.returncode, said


def attack_output(case: Case, work: Path, disk: Path) -> list[Row]:
    """Run a case on a disk with enough space, then on smaller ones, then with enough space again.

    Args:
        case: The case.
        work: Folder of the inputs.
        disk: Folder of the disk.

    Returns:
        Outcome of each run.
    """
    rows = []

    def fresh() -> None:
        mount(disk, 1 << 30)
        for name in case.copied:
            shutil.copytree(work / name, disk / name)

    fresh()
    before = used(disk)
    if case.ends:
        rows.append(run(case, "whole", disk, work, disk))
        unmount(disk)
        return rows
    whole = run(case, "whole", disk, work, disk)
    needed = used(disk) - before
    unmount(disk)
    if whole.status:
        return [whole]
    fresh()
    filling = threading.Thread(target=_fill_when, args=(disk, before + needed // 2))
    filling.start()
    rows.append(run(case, "fills up", disk, work, disk))
    filling.join()
    unmount(disk)
    for share in _SHARES:
        fresh()
        mount(disk, used(disk) + int(share * needed), again=True)
        rows.append(run(case, f"{share:.0%}", disk, work, disk))
        if share == _SHARES[-1]:
            mount(disk, 1 << 30, again=True)
            rows.append(run(case, "room again", disk, work, disk))
            if rows[-1].status:
                print(f"{case.name}: does not go on where there is room again", flush=True)
        unmount(disk)
    return [whole, *rows]


def attack_elsewhere(case: Case, work: Path, scratch: Path) -> list[Row]:
    """Run a case with space for its output, but without space at other locations that it uses.

    These are the folders for temporary files (TMPDIR and every folder that Python takes instead),
    the home folder, and shared memory.

    Args:
        case: The case.
        work: Folder of the inputs.
        scratch: Folder for the mounts.

    Returns:
        Outcome of each run.
    """
    rows = []
    for name, places in _ELSEWHERE.items():
        disk = scratch / "disk"
        within = scratch / "within"
        mount(disk, 1 << 30)
        for copied in case.copied:
            shutil.copytree(work / copied, disk / copied)
        full = [scratch / place for place in places]
        for place in full:
            mount(place, 4 * _PAGE)
            fill(place)
        within.mkdir(exist_ok=True)
        variables = {name: str(full[0])} if name.isupper() else {}
        rows.append(run(case, name, full[0], work, disk, within=within, **variables))
        for place in full:
            unmount(place)
        unmount(disk)
    return rows


def main() -> int:
    """Run the attacks; return 1 if a command failed the test."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="VERB", help="these alone")
    parser.add_argument("--work", type=Path, help="folder of the inputs, kept for the next time")
    parser.add_argument("--beside", type=Path, default=Path.cwd(), help="for the mounts; not /tmp")
    parser.add_argument("--only", choices=["output", "elsewhere"])
    given = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        print("skipped: mounting needs root and unshare")
        return 0
    if _INSIDE not in os.environ:
        command = ["unshare", "-m", sys.executable, "-m", "tools.attacks.disks", *sys.argv[1:]]
        return subprocess.run(command, env={**os.environ, _INSIDE: "1"}, check=False).returncode
    # Not in /tmp, which is made full.
    with tempfile.TemporaryDirectory(prefix="cxr-disks-", dir=given.beside) as folder:
        work = material.make((given.work or Path(folder) / "inputs").resolve())
        scratch = Path(folder).resolve()
        print(
            "case             place     exit lines traceback named fell       last line on stderr"
        )
        rows = []
        for case in CASES:
            if not given.names or case.name in given.names:
                if given.only != "elsewhere":
                    rows += attack_output(case, work, scratch / "disk")
                if given.only != "output":
                    rows += attack_elsewhere(case, work, scratch)
        for path in work.glob("train-*"):
            shutil.rmtree(path)
    fell = [row for row in rows if row.fell]
    print(f"{len(rows)} commands, {len(fell)} fell")
    return int(bool(fell))


if __name__ == "__main__":
    sys.exit(main())
