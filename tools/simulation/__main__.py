"""Simulate data sets with a known truth, and count what the program claims about them.

    python -m tools.simulation [--design NAME] [--sets 1000] [--seed 16]
        [--results FOLDER] [--out docs/validity.md] [--column after]

Each case is stored in the folder of results as soon as it is done. A case that is stored for the
same revision, seed and number of sets is not run again; with ``--keep`` the revision does not
matter. With ``--out`` the results of the folder are written into a column of ``results.json``, and
the tables of the page (``docs/validity.md`` or ``docs/guarantees.md``) are written from this file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tools.simulation.designs import DESIGNS, Case
from tools.simulation.tables import every_row, with_tables

RESULTS = Path(__file__).with_name("results.json")
"""File of the results that the page shows, in the columns ``before`` and ``after``."""
_SIMULATED = ["evaluation", "studies", "hospital"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.simulation")
    parser.add_argument("--design", action="append", choices=list(DESIGNS))
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--results", type=Path, default=Path("simulation-results"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--column", choices=("before", "after"), default="after")
    parser.add_argument("--keep", action="store_true", help="keep results of any revision")
    parser.add_argument(
        "--only-write", action="store_true", help="run nothing, only write the page"
    )
    chosen = parser.parse_args()
    chosen.results.mkdir(parents=True, exist_ok=True)
    for design in [] if chosen.only_write else chosen.design or DESIGNS:
        for case in DESIGNS[design]():
            stored_run(case, chosen.sets, chosen.seed, chosen.results, keep=chosen.keep)
    if chosen.out is not None:
        results = json.loads(RESULTS.read_text())
        known = {(row["design"], row["case"]): row for row in results[chosen.column]}
        results[chosen.column] = stored(chosen.results, known)
        RESULTS.write_text(written(results))
        chosen.out.write_text(with_tables(chosen.out.read_text(), results, chosen.out.stem))
        chosen.out.with_name("validity.csv").write_text(every_row(results))


def written(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the text of the file of results, with one case in each line.

    Args:
        results: Results of all cases, by column.

    Returns:
        The text, as JSON.
    """
    columns = [
        f'"{name}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]"
        for name, rows in results.items()
    ]
    return "{" + ",\n".join(columns) + "}\n"


def path_of(case: Case, folder: Path) -> Path:
    """Return the path of the file with a case's result.

    Args:
        case: Case of a design.
        folder: Folder of the results.

    Returns:
        The path; the file need not exist.
    """
    return folder / f"{case.design}-{zlib.crc32(case.name.encode()):08x}.json"


def stored(folder: Path, known: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the stored results of all cases, in the order of the designs.

    Args:
        folder: Folder of the results.
        known: Results to use for cases that the folder does not contain, by design and case.

    Returns:
        One result for each case that is known.
    """
    found = []
    for case in (case for design in DESIGNS.values() for case in design()):
        path = path_of(case, folder)
        row = json.loads(path.read_text()) if path.exists() else known.get((case.design, case.name))
        found += [] if row is None else [row]
    return found


def stored_run(
    case: Case, sets: int, seed: int, folder: Path, *, keep: bool = False
) -> dict[str, Any]:
    """Run a case, or read the result that an earlier call has stored.

    Args:
        case: Case of a design.
        sets: Number of simulated data sets of a case with share 1.
        seed: Random seed.
        folder: Folder of the results.
        keep: True to use a stored result of any revision.

    Returns:
        Result of the case, as the file holds it.
    """
    path = path_of(case, folder)
    wanted = {
        "design": case.design,
        "case": case.name,
        "revision": revision(),
        "seed": seed,
        "sets": max(1, round(sets * case.share)),
    }
    if path.exists():
        known: dict[str, Any] = json.loads(path.read_text())
        if {**wanted, **({"revision": known["revision"]} if keep else {})}.items() <= known.items():
            return known
    begun = time.process_time()
    found = run(case, wanted["sets"], seed)
    result = wanted | {"cpu_seconds": round(time.process_time() - begun, 1), "found": found}
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{case.design}: {case.name}: {result['cpu_seconds']} s", flush=True)
    return result


def run(case: Case, sets: int, seed: int) -> dict[str, dict[str, float]]:
    """Simulate the data sets of a case, and summarise everything that the case measures.

    Args:
        case: Case of a design.
        sets: Number of simulated data sets.
        seed: Random seed.

    Returns:
        By name of the measured value its mean (or median), the standard error, and the number of
        sets in which it is defined.
    """
    stream = [seed, zlib.crc32(f"{case.design} {case.name}".encode())]
    measure = case.make(np.random.default_rng([*stream, 2**32 - 1]))
    each = [measure(np.random.default_rng([*stream, number])) for number in range(sets)]
    found = {}
    for name in dict.fromkeys(key for one in each for key in one):
        values = np.array([one[name] for one in each if not np.isnan(one.get(name, np.nan))])
        if len(values):
            mean = float(values.mean())
            error = float(values.std() / np.sqrt(len(values)))
            # The error of a median is half of a 68 % interval that is taken from the sorted values.
            if name.startswith("median"):
                off = 0.5 / np.sqrt(len(values))
                low, mean, high = np.quantile(values, [max(0, 0.5 - off), 0.5, min(1, 0.5 + off)])
                error = float(high - low) / 2
            found[name] = {
                "mean": round(float(mean), 5),
                "error": round(error, 5),
                "n": len(values),
            }
    return found


def revision() -> str:
    """Return the last commit that changed the code that is simulated."""
    command = ["git", "log", "-1", "--format=%h", "--", *_SIMULATED]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    return shown.stdout.strip()


if __name__ == "__main__":
    main()
