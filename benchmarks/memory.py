"""``python -m benchmarks.memory``: the peak memory of each command, and its growth with the images.

Each command runs in its own process on two synthetic sets that differ only in the number of images,
so that the difference is what one image costs. The memory is also valid on a busy machine; the
seconds are not. A command above its bound is named, and the program then fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.records import write_json
from cxr_compare.scripts import console

_SIDE = 32
_FOLDS = 3
_DECLARED = ("--policy", "threshold=0.5")  # imported systems are tuned on the default split alone
_READERS = 3
_EVERY = 0.05  # s between two looks at the processes


@dataclass(frozen=True)
class Bound:
    """Memory that a command may take: without the images, MiB, and for each of them, KiB."""

    fixed_mib: float
    image_kib: float

    def at(self, images: int) -> float:
        """Return the bound at a number of images, MiB."""
        return self.fixed_mib + self.image_kib * images / 1024


@dataclass(frozen=True)
class Row:
    """A row of the table: the words of commands in their order, and the bound of their memory."""

    bound: Bound
    commands: list[list[str]]


SERVICES = {
    "serve",
    "pacs",  # annex hospital
}
"""Commands that run until they are ended."""


@dataclass(frozen=True)
class Peak:
    """Memory that the commands of a row took, with the time."""

    command: str
    images: int
    peak_mib: float
    seconds: float


def _tree(process: int) -> Iterable[int]:
    """Yield a process and all processes below it."""
    yield process
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in (thread / "children").read_text(encoding="ascii").split():
                yield from _tree(int(child))


def _kib(process: int, file: str, field: str) -> int:
    with suppress(OSError):  # it has just ended
        for line in Path(f"/proc/{process}/{file}").read_text(encoding="ascii").splitlines():
            if line.startswith(field):
                return int(line.split()[1])
    return 0


def together_kib(process: int) -> int:
    """Return the memory of a process and its children in KiB; shared pages count in parts."""
    return sum(_kib(each, "smaps_rollup", "Pss:") for each in _tree(process))


def _resident_kib(process: int) -> int:
    """Return the peak of the first process so far, or the present memory of all, if greater."""
    return max(_kib(process, "status", "VmHWM:"), together_kib(process))


def peak_mib(command: list[str]) -> float:
    """Run a command, and return its peak memory, MiB.

    It is that of the first process or of all processes together, whichever is greater. Raises
    InputError, which ends with the last line that was printed, if the command failed.
    """
    with tempfile.TemporaryFile() as said:
        environment = {**os.environ, "CXR_DESPITE_AUDIT": "1"}  # of a curve
        process = subprocess.Popen(  # noqa: S603  our own command
            command, stdout=said, stderr=said, env=environment
        )
        ended = threading.Event()
        resident = [0]

        def watch() -> None:
            while not ended.wait(_EVERY):
                resident.append(_resident_kib(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        failed = process.wait()
        ended.set()
        watcher.join()
        if failed:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise InputError(f"{' '.join(command)} failed: {last}")
    return max(resident) / 1024


def _write_source(folder: Path, count: int, seed: int) -> None:
    """Write images of noise, a third with a box, and outputs of two systems and three readers."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    ids = [f"image-{number:07d}" for number in range(count)]
    for name in ids:
        pixels = rng.integers(0, 256, (_SIDE, _SIDE), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png", compress_level=1)
    positive = rng.random(count) < 1 / 3
    frame = pd.DataFrame({"image_id": ids, "patient_id": ids})
    frame["path"] = "images/" + frame["image_id"] + ".png"
    frame.to_csv(folder / "images.csv", index=False)
    states = np.where(positive, "present", "absent")
    labels = pd.DataFrame({"image_id": ids, "finding": "opacity", "state": states})
    labels.to_csv(folder / "labels.csv", index=False)
    boxes = labels.loc[positive, ["image_id", "finding"]].assign(x1=5, y1=6, x2=15, y2=20)
    boxes.to_csv(folder / "boxes.csv", index=False)
    for system in ("one", "two"):
        scores = np.clip(0.3 * positive + rng.random(count) * 0.7, 0, 1)
        pd.DataFrame({"image_id": ids, "score": scores}).to_csv(
            folder / f"{system}.csv", index=False
        )
    readings = [
        pd.DataFrame({"reader": f"reader {number}", "case": ids, "rating": rating})
        for number, rating in enumerate(positive + rng.normal(size=(_READERS, count)).round(1))
    ]
    pd.concat(readings).to_csv(folder / "ratings.csv", index=False)
    log = pd.DataFrame({"patient": ids, "score": rng.random(count)})
    log["time"] = pd.date_range("2026-01-01", "2026-02-26", periods=count, tz="UTC").floor("s")
    log.to_csv(folder / "log.csv", index=False)


def _rows(folder: Path, count: int) -> dict[str, Row]:
    """Return the rows in the order in which their commands can run.

    Bounds are about a quarter above what was measured.
    """
    data = folder / "data"
    one = folder / "one"
    two = folder / "two"
    run = str(folder / "run")
    exported = str(folder / "exported")
    source = folder / "source"
    tables = [str(source / f"{name}.csv") for name in ("images", "labels", "boxes")]
    settings = ["model.backbone=small_cnn", "model.weights=none", "training.epochs=1"]
    settings += [f"data.image_size={_SIDE}", "training.batch_size=32"]
    sets = [word for setting in settings for word in ("--set", setting)]
    at = ["--data", str(data)]
    images = str(source / "images")
    report = str(folder / "report")
    reports = [str(folder / f"report-{fold}") for fold in range(_FOLDS)]
    evaluated = [*at, "--replicates", "200"]

    def imported(name: str, out: Path) -> list[str]:
        file = str(source / f"{name}.csv")
        return ["import", file, *at, "--out", str(out), "--name", name, "--ignore-unknown"]

    def of_fold(fold: int, out: str) -> list[list[str]]:
        """Systems without a decision of another split, and their report on a fold."""
        fresh = {name: folder / f"{name}-{fold}" for name in ("one", "two")}
        systems = [str(each) for each in fresh.values()]
        return [
            *(imported(name, each) for name, each in fresh.items()),
            ["compare", *systems, *evaluated, "--out", out, "--split", f"fold-{fold}", *_DECLARED],
        ]

    return {
        "--help": Row(Bound(40, 0), [["--help"]]),
        "configs": Row(Bound(50, 0), [["configs"]]),
        "synth": Row(
            Bound(370, 1),
            [["synth", str(folder / "drawn"), "--images", str(count // 10), "--size", "64"]],
        ),
        "prepare": Row(
            Bound(480, 10),
            [["prepare", *tables, str(source), str(data), "--size", str(_SIDE)]],
        ),
        "check": Row(Bound(290, 8), [["check", str(data)]]),
        "split": Row(
            Bound(360, 8),
            [
                ["split", str(data), "--name", "other", "--seed", "1"],
                ["split", str(data), "--name", "fold", "--folds", str(_FOLDS), "--test-folds"],
            ],
        ),
        "train": Row(
            Bound(1500, 30),
            [["train", "chexnet_quickstart", *at, "--out", run, *sets, "--despite-audit"]],
        ),
        # annex studies
        "curve": Row(Bound(2000, 30), [_curve(settings, at, folder)]),
        # end of annex studies
        "export RUN": Row(Bound(1360, 4), [["export", run, exported, "--format", "openvino", *at]]),
        "predict RUN --data": Row(
            Bound(1400, 4), [["predict", run, *at, "--out", str(folder / "predicted")]]
        ),
        "predict RUN FOLDER": Row(Bound(1400, 4), [_loose(run, images, folder)]),
        "predict EXPORT --data": Row(
            Bound(360, 4), [["predict", exported, *at, "--out", str(folder / "said")]]
        ),
        "predict EXPORT FOLDER": Row(Bound(330, 4), [_loose(exported, images, folder)]),
        "import": Row(Bound(330, 12), [imported("one", one), imported("two", two)]),
        "tune": Row(Bound(250, 10), [["tune", str(each), *at] for each in (one, two)]),
        "ensemble": Row(
            Bound(250, 10),
            [
                [
                    "ensemble",
                    str(one),
                    str(two),
                    *at,
                    "--out",
                    str(folder / "both"),
                    "--name",
                    "Both",
                ]
            ],
        ),
        "compare": Row(
            Bound(610, 30),
            [
                ["compare", str(one), str(two), *evaluated, "--out", report],
                *(command for fold, out in enumerate(reports) for command in of_fold(fold, out)),
            ],
        ),
        "folds": Row(Bound(290, 4), [["folds", *reports, "--out", str(folder / "folds")]]),
        # annex studies
        "readers": Row(
            Bound(260, 6),
            [["readers", str(source / "ratings.csv"), *at, "--out", str(folder / "readers")]],
        ),
        "plan": Row(Bound(340, 8), [["plan", str(one), str(two), *at, "--difference", "0.05"]]),
        # end of annex studies
        # annex hospital
        "monitor": Row(
            Bound(285, 4), [["monitor", str(source / "log.csv"), "--out", str(folder / "watched")]]
        ),
        # end of annex hospital
        "overlay": Row(
            Bound(360, 12),
            [["overlay", str(one), *at, "--out", str(folder / "drawings"), "--limit", "5"]],
        ),
        "export DATA": Row(
            Bound(270, 12), [["export", str(data), str(folder / "coco"), "--format", "coco"]]
        ),
        "show": Row(Bound(280, 10), [["show", str(data)], ["show", report]]),
    }


# annex studies
def _curve(settings: list[str], at: list[str], folder: Path) -> list[str]:
    """Return the command of a learning curve with four trainings, one after another."""
    detector = ["training.epochs=1", "training.batch_size=32", "data.image_size=96"]
    words = ["curve", "--detector", "retinanet_quickstart", "--classifier", "chexnet_quickstart"]
    words += [word for each in detector for word in ("--detector-set", each)]
    words += [word for each in settings for word in ("--classifier-set", each)]
    words += [*at, "--out", str(folder / "curve"), "--sizes", "0.5,1", "--seeds", "1"]
    return [*words, "--equal", "epochs"]


# end of annex studies


def _loose(model: str, images: str, folder: Path) -> list[str]:
    return ["predict", model, images, "--no-overlay", "--csv", str(folder / "answers.csv")]


BOUNDS = {name: row.bound for name, row in _rows(Path("folder"), 1000).items()}
"""The largest peak of each row's processes together."""


def measure(counts: tuple[int, int], commands: set[str], seed: int) -> list[Peak]:
    """Measure the peak memory of rows or commands, or of all, at two numbers of images."""
    peaks = []
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="cxr-memory-") as name:
            folder = Path(name)
            _write_source(folder / "source", count, seed)
            for command, row in _rows(folder, count).items():
                for words in row.commands:
                    started = time.perf_counter()
                    mib = peak_mib([sys.executable, "-m", "cxr_compare.scripts.cli", *words])
                    peak = Peak(command, count, mib, time.perf_counter() - started)
                    console.say(f"{command}: {peak.peak_mib:.0f} MiB at {count} images")
                    if not commands or commands & {command, command.split()[0]}:
                        peaks.append(peak)
    return peaks


def _worst(peaks: Iterable[Peak], command: str) -> dict[int, float]:
    """Return the greatest peak of a row at each number of images, MiB."""
    found: dict[int, float] = {}
    for peak in peaks:
        if peak.command == command:
            found[peak.images] = max(peak.peak_mib, found.get(peak.images, 0.0))
    return found


def over_bounds(peaks: list[Peak]) -> list[str]:
    """Return one line for each command that took more than its bound.

    Example:
        >>> over_bounds([Peak("configs", 1000, 2000.0, 1.0)])
        ['configs: 2000 MiB at 1000 images; its bound is 50 MiB']
        >>> over_bounds([Peak("configs", 1000, 40.0, 1.0)])
        []
    """
    lines = []
    for peak in peaks:
        bound = BOUNDS[peak.command].at(peak.images)
        if peak.peak_mib > bound:
            took = f"{peak.peak_mib:.0f} MiB at {peak.images} images"
            lines.append(f"{peak.command}: {took}; its bound is {bound:.0f} MiB")
    return lines


def table_of(peaks: list[Peak]) -> str:
    """Return the peaks as a Markdown table, by command and number of images.

    The last columns are the growth with each image, and the bound.

    Example:
        >>> print(table_of([Peak("show", 1000, 200.0, 1.0), Peak("show", 2000, 300.0, 1.0)]))
        | command | 1,000 images | 2,000 images | an image | bound |
        |---|---:|---:|---:|---|
        | `cxr show` | 200 MiB | 300 MiB | 102.4 KiB | 280 MiB + 10 KiB an image |
    """
    counts = sorted({peak.images for peak in peaks})
    heads = [f"{count:,} images" for count in counts]
    lines = [f"| command | {' | '.join(heads)} | an image | bound |"]
    lines.append(f"|---|{'---:|' * (len(counts) + 1)}---|")
    for command in dict.fromkeys(peak.command for peak in peaks):
        worst = _worst(peaks, command)
        bound = BOUNDS[command]
        growth = (worst[counts[-1]] - worst[counts[0]]) * 1024 / max(counts[-1] - counts[0], 1)
        cells = [f"{worst[count]:.0f} MiB" for count in counts]
        limit = f"{bound.fixed_mib:g} MiB"
        limit += f" + {bound.image_kib:g} KiB an image" if bound.image_kib else ""
        lines.append(f"| `cxr {command}` | {' | '.join(cells)} | {growth:.1f} KiB | {limit} |")
    return "\n".join(lines)


def main(
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    images: Annotated[tuple[int, int], typer.Option(min=20, help="The two numbers of images.")] = (
        1000,
        10000,
    ),
    only: Annotated[list[str] | None, typer.Option(help="Measure this command only.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of images and scores.")] = 0,
) -> None:
    """Measure each command's peak memory at two numbers of images; fail if it exceeds its bound.

    Example: python -m benchmarks.memory --out memory.json
    """
    known = {*BOUNDS, *(row.split()[0] for row in BOUNDS)}
    if unknown := sorted({*(only or [])} - known):
        raise InputError(f"memory: no command '{unknown[0]}'; choose from {', '.join(BOUNDS)}")
    peaks = measure(images, {*(only or [])}, seed)
    over = over_bounds(peaks)
    table = table_of(peaks)
    if out is not None:
        rows = [asdict(peak) for peak in peaks]
        write_json(out, "memory", {"seed": seed, "rows": rows, "table": table, "over": over})
    console.emit(table)
    for line in over:
        console.say(line)
    if over:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
