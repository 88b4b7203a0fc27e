"""Time and memory of ``cxr prepare`` and ``cxr compare`` for 10,000 to a million images.

    python -m benchmarks.scale [--most 100000] [--seed 0]

``prepare`` reads a folder of PNG files of 32 px, three of each patient, and a table of labels.
``compare`` compares the random scores of two systems on as many images, a fifth of them for
validation. Each command runs in a process of its own, whose peak memory does not include that of
its workers. The program prints a table for docs/scale.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from benchmarks.worker import peak_gib
from cxr_compare.scripts import console

_FEWEST = 10_000
_SIDE = 32  # px
_COARSE = 8  # px: random greys that are enlarged to an image
_IMAGES_PER_PATIENT = 3
_POSITIVE = 0.22


def write_source(folder: Path, count: int, seed: int) -> None:
    """Write images of random greys, and a table of their patients and labels."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng([seed, count])
    names = [f"{number:07d}.png" for number in range(count)]
    for name in names:
        coarse = rng.integers(0, 256, (_COARSE, _COARSE), dtype=np.uint8)
        grey = cv2.resize(coarse, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "images" / name), grey)
    table = pd.DataFrame({"file": names, "patient": np.arange(count) // _IMAGES_PER_PATIENT})
    table["label"] = np.where(rng.random(count) < _POSITIVE, "opacity", "normal")
    table.to_csv(folder / "labels.csv", index=False)


def write_scores(folder: Path, count: int, seed: int) -> None:
    """Write labels of validation and test images, and the scores of two systems."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, count])
    label = (rng.random(count) < _POSITIVE).astype(int)
    truth = pd.DataFrame({"image_id": [f"i{number:07d}" for number in range(count)]})
    patients = np.arange(count) // _IMAGES_PER_PATIENT
    truth["patient_id"] = [f"p{patient:07d}" for patient in patients]
    truth["role"] = np.where(patients % 5 == 0, "val", "test")
    truth["label"] = label
    truth.to_csv(folder / "truth.csv", index=False)
    for name, skill in (("A", 1.5), ("B", 1.4)):
        score = 1 / (1 + np.exp(-(rng.normal(size=count) + skill * label - 1)))
        truth[["image_id"]].assign(score=score).to_csv(folder / f"{name}.csv", index=False)


def prepare_once(folder: Path) -> tuple[float, float]:
    """Prepare the images of a folder; return seconds and peak memory, GiB."""
    from cxr_compare import prepare

    began = time.perf_counter()
    prepare(folder / "labels.csv", folder / "images", folder / "data", size=[_SIDE])
    return time.perf_counter() - began, peak_gib()


def compare_once(folder: Path) -> tuple[float, float]:
    """Compare two tables of scores; return seconds and peak memory, GiB."""
    from cxr_compare import compare

    systems = [f"{name}={folder / name}.csv" for name in "AB"]
    began = time.perf_counter()
    compare(systems, truth=folder / "truth.csv", out=folder / "report")
    return time.perf_counter() - began, peak_gib()


def in_process(work: Callable[[Path], tuple[float, float]], folder: Path) -> tuple[float, float]:
    """Call a function in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, folder).result()


def main() -> None:
    """Print the table, a row for each command and number of images."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--most", type=int, default=100_000, help="images, in tenfold steps")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    console.emit("| command | images | seconds | images/s | memory, MiB |")
    console.emit("|---|---|---|---|---|")
    count = _FEWEST
    while count <= chosen.most:
        for name, write, work in (
            ("prepare", write_source, prepare_once),
            ("compare", write_scores, compare_once),
        ):
            with tempfile.TemporaryDirectory(prefix="cxr-scale-") as scratch:
                folder = Path(scratch) / name
                write(folder, count, chosen.seed)
                seconds, gib = in_process(work, folder)
            line = (f"{count:,}", f"{seconds:.1f}", f"{count / seconds:,.0f}", f"{gib * 1024:,.0f}")
            console.emit(f"| `{name}` | {' | '.join(line)} |")
        count *= 10


if __name__ == "__main__":
    main()
