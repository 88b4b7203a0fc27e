"""Measure the guard: false alarms on held-out X-rays, and what it catches of other images.

    python tests/measure_guard.py --set RSNA=rsna:cv-0,cv-1,cv-2,cv-3,cv-4 --set Kermany=kermany \\
        --frontal COVID-19=more/frontal --odd odd

A set is a folder of ``cxr prepare``; of each split named the guard is learned from the training
images and shown the others, and what else is shown, is shown to the guard of the first split.
``--frontal`` names folders of frontal chest X-rays of elsewhere, ``--odd`` a folder with one folder
for each kind of other image. Negatives, turned images and crops are made of held-out X-rays.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from data_prep.contracts.errors import InputError
from data_prep.images.image import read_image
from data_prep.store.dataset import DataSet
from serving.guard import Guard, _fit_guard, file_warnings

_CROPPED = 0.35  # of either side


class Tally:
    """Refused images of those shown, by row and column of a table."""

    def __init__(self) -> None:
        self.refused: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.shown: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.patients: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

    def add(self, row: str, column: str, refused: bool, patient: str = "") -> None:
        """Count one image."""
        self.refused[row, column] += refused
        self.shown[row, column] += 1
        self.patients[row, column].add(patient)

    def table(self, corner: str, columns: list[str]) -> str:
        """The table in Markdown: percentage, 95 % Clopper-Pearson interval and counts."""
        rows = list(dict.fromkeys(row for row, _ in self.shown))
        lines = [f"| {corner} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        return "\n".join(
            [*lines, *(f"| {r} | {' | '.join(self._cell(r, c) for c in columns)} |" for r in rows)]
        )

    def _cell(self, row: str, column: str) -> str:
        n, k = self.shown[row, column], self.refused[row, column]
        if n == 0:
            return ""
        low, high = binomtest(k, n).proportion_ci()
        return f"{k / n:.1%} ({low:.1%} to {high:.1%}), {k} of {n}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", required=True, metavar="NAME=FOLDER[:SPLITS]")
    parser.add_argument("--frontal", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--odd", type=Path, action="append", default=[], metavar="FOLDER")
    chosen = parser.parse_args()
    sets, guards = {}, {}
    for name, text in (given.split("=", 1) for given in chosen.set):
        folder, _, splits = text.partition(":")
        sets[name] = DataSet.open(Path(folder))
        guards[name] = _fit(name, sets[name], splits.split(",") if splits else ["default"])
    first = {name: next(iter(by_split.values())) for name, by_split in guards.items()}
    alarms, caught = Tally(), Tally()
    for name, dataset in sets.items():
        _show_set(name, dataset, guards[name], first, alarms, caught)
    for name, folder in (given.split("=", 1) for given in chosen.frontal):
        for path, pixels in _images(Path(folder)):
            for learned, guard in first.items():
                alarms.add(name, learned, bool(_said(guard, pixels, path)), path.name)
    for folder in chosen.odd:
        for kind in sorted(p for p in folder.iterdir() if p.is_dir()):
            for path, pixels in _images(kind):
                for learned, guard in first.items():
                    refused = guard.score(pixels) >= guard.limit
                    named = bool(_said(guard, pixels, path))
                    for row in (kind.name, f"all of {folder.name}"):
                        caught.add(row, learned, refused)
                        caught.add(row, f"{learned}, with the file", named)
    columns = list(first)
    print("\nFalse alarms (columns: what the guard was learned from)\n")
    print(alarms.table("shown", columns))
    for row in sets:
        print(f"{row}: {len(alarms.patients[row, row])} patients")
    print("\nRefused of other images\n")
    print(caught.table("shown", [c for name in columns for c in (name, f"{name}, with the file")]))


def _fit(name: str, dataset: DataSet, splits: list[str]) -> dict[str, Guard]:
    store = dataset.store(max(_sizes(dataset)))
    patients = dataset.images.set_index("image_id")["patient_id"]
    guards = {}
    for split in splits:
        start = time.perf_counter()
        guard = _fit_guard(store, patients.loc[dataset.image_ids("train", split)])
        if guard is None:
            raise InputError(f"{dataset.folder}: too few training images in split '{split}'")
        seconds = time.perf_counter() - start
        print(f"{name}, split {split}: {guard}, {seconds:.1f} s", flush=True)
        guards[split] = guard
    return guards


def _sizes(dataset: DataSet) -> list[int]:
    return [int(p.name.rpartition("-")[2]) for p in (dataset.folder / "pixels").iterdir()]


def _show_set(
    name: str,
    dataset: DataSet,
    own: dict[str, Guard],
    first: dict[str, Guard],
    alarms: Tally,
    caught: Tally,
) -> None:
    """Show held-out images of a set to its own guards and to those of the other sets."""
    roles = {s: dataset.split(s).set_index("image_id")["role"] for s in own}
    rng = np.random.default_rng(0)
    first_split = next(iter(own))
    for row in dataset.images.itertuples():
        wanted = ("val", "test") if len(own) == 1 else ("test",)  # of folds, each image once
        tested = [split for split in own if roles[split].get(row.image_id) in wanted]
        if not tested:
            continue
        pixels = dataset.read_original(row.image_id)
        for split in tested:
            alarms.add(name, name, own[split].score(pixels) >= own[split].limit, row.patient_id)
        for learned, guard in first.items():
            if learned != name:
                alarms.add(name, learned, guard.score(pixels) >= guard.limit, row.patient_id)
        if first_split in tested:
            for kind, made in _spoiled(pixels, rng):
                for learned, guard in first.items():
                    caught.add(f"{name}, {kind}", learned, guard.score(made) >= guard.limit)


def _spoiled(pixels: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    yield "negative", 255 - pixels
    yield "turned by 90 degrees", np.rot90(pixels, 1 if rng.random() < 0.5 else 3)
    yield "upside down", np.rot90(pixels, 2)
    height, width = (int(_CROPPED * side) for side in pixels.shape)
    top = int(rng.integers(pixels.shape[0] - height))
    left = int(rng.integers(pixels.shape[1] - width))
    yield "an eighth of it", pixels[top : top + height, left : left + width]


def _said(guard: Guard, pixels: np.ndarray, path: Path) -> tuple[str, ...]:
    return file_warnings(path) + guard.warnings(pixels)


def _images(folder: Path) -> Iterator[tuple[Path, np.ndarray]]:
    """Every file of a folder that can be read; the others are counted."""
    unread = 0
    for path in sorted(folder.iterdir()):
        try:
            pixels = read_image(path).pixels
        except InputError:
            unread += 1
            continue
        yield path, pixels
    if unread:
        print(f"{folder}: {unread} files cannot be read as images")


if __name__ == "__main__":
    main()
