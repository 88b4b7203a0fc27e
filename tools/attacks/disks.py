"""Full disks: each command on one that is too small, and without space for temporary files.

Usage: ``python -m tools.attacks.disks [VERB ...] [--work FOLDER]``. Needs root (it mounts tmpfs,
which end with the program, in a mount namespace of its own). Exit status 1: something gave a
traceback, was silent, or did not name the place. Nothing is drawn at random here.
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
        name: Of the row.
        words: Of the command; {w} the inputs' folder, {d} the disk.
        copied: Inputs that lie on the disk, because the command writes into them.
        ends: Seconds after which a server is asked to end; 0: the command ends by itself.
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
    """Put a disk of a size there, or give the disk that is there another size."""
    place.mkdir(parents=True, exist_ok=True)
    blocks = max(size // _PAGE, 1)
    options = f"{'remount,' * again}size={blocks * _PAGE},mode=1777"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)


def unmount(place: Path) -> None:
    """Take the disk away."""
    subprocess.run(["umount", "-l", place], check=True)


def used(place: Path) -> int:
    """Bytes on a disk."""
    room = os.statvfs(place)
    return (room.f_blocks - room.f_bfree) * room.f_frsize


def fill(place: Path) -> None:
    """Leave no byte free."""
    with (place / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"\0" * _PAGE):
            pass


def _fill_when(disk: Path, filled: int) -> None:
    """Take the room of a disk away when something has written half of what it writes."""
    until = time.monotonic() + 60
    while used(disk) < filled and time.monotonic() < until:
        time.sleep(0.002)
    fill(disk)


def run(case: Case, label: str, names: Path, work: Path, disk: Path, **given: Any) -> Row:
    """Run a case's command; `names` is what its message must name."""
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
    """A server's status and words; one that still serves is asked to end, which counts as 0."""
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
    """Run a case once on a disk with room, then on smaller ones, then with room again."""
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
    """Run a case with room for its output, but none for temporary files, at home, in memory.

    For temporary files: neither in TMPDIR nor in any folder that Python takes in its place.
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
    """Run the attacks; 1 where anything fell."""
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
