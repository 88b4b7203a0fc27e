"""Files from strangers: each file that the program reads again, changed at random and sealed anew.

Usage: ``python -m tools.attacks.strangers [--cases 2000] [--seed 31] [--work FOLDER]``. Opening a
changed file must give a result, or one line that names the file; otherwise the exit status is 1.
Links, foreign stores and other files' digests are tested in
``tests/data_prep/store/test_dataset.py``.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.test_fuzz_readers import files_of, try_one
from tools.attacks import flips, material


def attack(folders: list[Path], cases: int, seed: int) -> dict[str, Counter[str]]:
    """Change files in turn, and open them.

    Args:
        folders: Folders that the program wrote.
        cases: Number of changes.
        seed: Random seed.

    Returns:
        Number of changes that were tried and that failed the test, by kind of file.
    """
    draw = random.Random(seed)  # noqa: S311
    kinds: dict[str, list[tuple[Path, Path]]] = {}
    for folder in folders:
        for path in files_of(folder):
            if folder.name == "sweep" and path.parent != folder:
                continue  # its runs are as any
            kind = f"{folder.name}/{flips.kind_of(path, folder)}"
            kinds.setdefault(kind, []).append((folder, path))
    table = {kind: Counter[str]() for kind in kinds}
    for number in range(cases):
        kind = list(kinds)[number % len(kinds)]
        folder, path = draw.choice(kinds[kind])
        words = try_one(folder, path, draw)
        table[kind]["tried"] += 1
        if words is not None:
            table[kind]["fell"] += 1
            print(f"fell: case {number}, {path}: {words}", flush=True)
    return table


def _material(folder: Path) -> list[Path]:
    """Make the folders of `tools.attacks.flips`, and those of a reader study and of a sweep."""
    folders = flips.make(folder)
    study = ("--truth", folder / "truth.csv", "--out", folder / "readers")
    trials = ("--over", "training.learning_rate=1e-4..1e-3", "--trials", 2)
    material.complete(
        folder,
        (
            ("readers/readers.json", "readers", folder / "ratings.csv", *study),
            (
                "sweep/sweep.json",
                "sweep",
                folder / "tiny.toml",
                "--data",
                folder / "data",
                *trials,
                "--out",
                folder / "sweep",
            ),
        ),
    )
    return [*folders, *(folder / name for name in ("other", "xrays", "readers", "sweep"))]


def main() -> int:
    """Run the attack; return 1 if a change failed the test."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--work", type=Path, help="folder of the inputs, kept for the next time")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="cxr-strangers-") as scratch:
        folders = _material((given.work or Path(scratch)).resolve())
        table = attack(folders, given.cases, given.seed)
    for kind, counts in sorted(table.items()):
        print(f"{kind:58s}{counts['tried']:8d}{counts['fell']:8d}")
    total = sum(table.values(), Counter[str]())
    print(f"{'all':58s}{total['tried']:8d}{total['fell']:8d}")
    return int(bool(total["fell"]))


if __name__ == "__main__":
    sys.exit(main())
