"""Growth of processor time and memory with the number of images, from 1,000 to a million.

    python -m benchmarks.growth
    python -m benchmarks.growth 1000 10000 --work tables copies

Each piece of work of each size is a process of its own, with one thread and one pass. Its seconds
are those of its processor after the imports; its memory is the most that the whole process had.
The exponent is that of the last step: with 1 a figure grows as the images do, with 2 as their
square.
"""

import argparse
import contextlib
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import cxr_compare
from benchmarks.drawn_tables import draw_tables
from benchmarks.turns import machine
from cxr_compare.data_prep.copies import close_pairs
from cxr_compare.evaluation.inputs.files import read_rows
from cxr_compare.evaluation.inputs.read_truth import read_truth

SIZES = [1_000, 10_000, 100_000, 1_000_000]
REPLICATES = 100


def tables(folder: Path, n_images: int) -> None:
    """Read the truth with its boxes, the boxes of a detector and the scores of a classifier."""
    read_truth(folder / "truth.csv", boxes=folder / "lesions.csv")
    for name in ("boxes.csv", "scores.csv"):
        read_rows(folder / name, None, {}, name)


def compare(folder: Path, n_images: int) -> None:
    """Compare both systems, from the files to the report with its page."""
    systems = [f"Boxes={folder / 'boxes.csv'}", f"Scores={folder / 'scores.csv'}"]
    cxr_compare.compare(
        *systems,
        truth=folder / "truth.csv",
        boxes=folder / "lesions.csv",
        replicates=REPLICATES,
        out=folder / "report",
    )


def copies(folder: Path, n_images: int) -> None:
    """Search random fingerprints for pairs that may be copies."""
    rng = np.random.default_rng(0)
    close_pairs(rng.integers(0, 2**64, (n_images, 4), dtype=np.uint64))


WORK = {
    "tables": (tables, "read truth, boxes and scores"),
    "compare": (compare, f"compare two systems, {REPLICATES} resamples, report"),
    "copies": (copies, "search fingerprints for copies"),
}


def measure(name: str, folder: Path, n_images: int) -> tuple[float, float]:
    """Do a piece of work in a process of its own, and return its seconds and its MiB."""
    command = [sys.executable, "-m", "benchmarks.growth", str(n_images), "--work", name]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 - this program
        [*command, "--inside", folder], capture_output=True, text=True, env=one_thread, check=True
    )
    seconds, memory = json.loads(done.stdout)
    return seconds, memory


def run_inside(name: str, folder: Path, n_images: int) -> tuple[float, float]:
    """Do a piece of work in this process, and return the seconds and the peak of memory, MiB."""
    begun = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        WORK[name][0](folder, n_images)
    seconds = time.process_time() - begun
    # The peak of getrusage may be that of the process that started this one.
    peak = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return seconds, int(peak[0]) / 1024


def exponent(sizes: list[int], values: list[float]) -> str:
    """Return the exponent of the last step from one size to the next.

    Examples:
        >>> exponent([10, 100, 1000], [5.0, 1.0, 100.0])
        '2.0'
    """
    if len(sizes) < 2:
        return ""
    return f"{math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2]):.1f}"


def main() -> None:
    """Print a table of seconds and one of memory."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, help="numbers of images")
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(run_inside(given.work[0], given.inside, given.sizes[0])))
        return
    sizes = sorted(given.sizes)
    print(f"{machine()}\n")
    print("| work | |", *(f"{size:,} |" for size in sizes), "exponent |")
    print("|---|---|" + "---|" * (len(sizes) + 1), flush=True)
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in given.work}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for name, table in draw_tables(size)._asdict().items():
                table.to_csv(Path(folder, f"{name}.csv"), index=False)
            for name in given.work:
                measured[name].append(measure(name, Path(folder), size))
    for name in given.work:
        seconds, memory = (list(column) for column in zip(*measured[name], strict=True))
        text = WORK[name][1]
        cells = " | ".join(f"{value:,.2f} s" for value in seconds)
        print(f"| {text} | time | {cells} | {exponent(sizes, seconds)} |")
        cells = " | ".join(f"{value:,.0f} MiB" for value in memory)
        print(f"| {text} | memory | {cells} | {exponent(sizes, memory)} |", flush=True)


if __name__ == "__main__":
    main()
