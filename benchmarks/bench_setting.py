"""Where a benchmark runs: the machine, the pictures, a folder for its files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2

from benchmarks.bench_measure import MOST_NOISE, LinuxMachine, Meter
from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import provenance, require_free_space
from data_prep.contracts.workers import cpu_count
from data_prep.formats.common import list_pictures
from data_prep.images.image import read_image
from data_prep.store.dataset import DataSet
from data_prep.synth.files import TRAIN_FOLDER
from data_prep.synth.phantom import write_phantom

_MOST_PICTURES = 200
_SCRATCH_BYTES = 2 << 30


@dataclass(frozen=True)
class Setting:
    """What every group of the benchmark is given.

    Attributes:
        scratch: A folder that is removed at the end.
        meter: Takes samples.
        seed: Seed of what is drawn.
        quick: Tiny sizes, one round, nothing rejected.
        dataset: The prepared data set of the user, if one was given.
        source: The folder of pictures of the user, if one was given.
    """

    scratch: Path
    meter: Meter
    seed: int
    quick: bool
    dataset: DataSet | None
    source: Path | None

    @cached_property
    def pictures(self) -> list[Path]:
        """Files to decode: the first 200 that can be read, DICOM where there are any.

        Raises:
            InputError: There is none.
        """
        if self.dataset is not None:
            root, named = self.dataset.source_root, self.dataset.images["path"].dropna()
            found = [root / path for path in sorted(named)]
        elif self.source is not None:
            found = [self.source / path for path in list_pictures(self.source)["path"]]
        else:
            found = self._phantom()
        readable = [path for path in found[: 2 * _MOST_PICTURES] if _is_readable(path)]
        chosen = [path for path in readable if is_dicom(path)] or readable
        if not chosen:
            raise InputError(f"{self.source or self.scratch}: no picture to measure with")
        return chosen[: 4 if self.quick else _MOST_PICTURES]

    def _phantom(self) -> list[Path]:
        n_images, size = (4, 64) if self.quick else (60, 1024)
        place = self.scratch / "phantom"
        write_phantom(
            place,
            n_images=n_images,
            seed=self.seed,
            size=size,
            workers=1 if self.quick else cpu_count(),
        )
        return sorted((place / TRAIN_FOLDER).glob("*.dcm"))

    @property
    def origin(self) -> str:
        """Where the pictures come from, in words."""
        if self.dataset is not None:
            return str(self.dataset.folder)
        return str(self.source) if self.source else f"synthetic chest X-rays, seed {self.seed}"

    @cached_property
    def payload(self) -> dict[str, Any]:
        """The setting as JSON."""
        made = provenance()
        made["hardware"].update(_hardware())
        watched = self.meter.guarded and self.meter.machine.busy() is not None
        return {
            **made,
            "pictures": self.origin,
            "n_pictures": len(self.pictures),
            "seed": self.seed,
            "quick": self.quick,
            "most_noise": MOST_NOISE if watched else None,
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
            f"pictures: {made['n_pictures']} of {self.origin}",
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
    """Set up a benchmark.

    Args:
        data: A prepared data set, or None.
        source: A folder of pictures, or None; without both a phantom is drawn.
        seed: Seed of what is drawn.
        quick: Tiny sizes, one round.

    Yields:
        The setting; its folder goes with the block.

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
    """Whether a file says that it is DICOM."""
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
