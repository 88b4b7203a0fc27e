"""Simulate data sets with a known truth, and count what the program claims about them.

    python -m tools.simulation [DESIGN ...] [--sets 400] [--seed 70] [--processes 2]

A design is named by any part of its name, such as ``chance``; without one, all are run. Results are
kept in ``results.json`` as soon as a design is done. The
tables of docs/validity.md and docs/validity.csv are written from them, and again by
``python tools/documents.py``. Fewer than 100 sets are a trial: they are printed only.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import io
import json
import re
import shlex
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from tools.simulation import findings, folds, rates
from tools.simulation.claims import QUESTIONS, Question, measure
from tools.simulation.designs import core_designs

_RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "validity.md"
_TRIAL = 100  # fewer sets are printed, not kept
_CHUNK = 10  # sets
_BEGIN, _END = "<!--table-->", "<!--end of table-->"

Found = Mapping[str, float]
Measure = Callable[[np.random.Generator], Found]
Result = dict[str, Any]
"""Result of a design: name, command, seed, sets, date, CPU seconds of one set, and for each counted
name its mean and the number of sets in which it is defined."""


def further_modules() -> list[Any]:
    """Return the modules of designs that call another function."""
    return [findings, folds, rates]


@cache
def designs() -> dict[str, Callable[[], Measure]]:
    """Return every design by its name: a function that makes its measure."""
    found: dict[str, Callable[[], Measure]] = {
        design.name: lambda of=design: measure(of) for design in core_designs()
    }
    for module in further_modules():
        found |= module.DESIGNS
    return found


@cache
def questions() -> dict[str, Question]:
    """Return every row of the table by its key."""
    found = dict(QUESTIONS)
    for module in further_modules():
        found |= module.QUESTIONS
    return found


_measure_of = cache(lambda name: designs()[name]())
"""Measure of a design, whose true values a process computes once."""


def draw_sets(name: str, seed: int, numbers: Sequence[int]) -> tuple[list[Found], float]:
    """Draw some data sets of a design, and return what was counted and the CPU seconds."""
    warnings.simplefilter("ignore")
    one = _measure_of(name)
    begun = time.process_time()
    stream = [seed, zlib.crc32(name.encode())]
    counted = [one(np.random.default_rng([*stream, number])) for number in numbers]
    return counted, time.process_time() - begun


def summarise(counted: Iterable[Found]) -> dict[str, dict[str, float]]:
    """Return, for each counted name, its mean and the number of sets in which it is defined."""
    values: dict[str, list[float]] = {}
    for found in counted:
        for key, value in found.items():
            if not np.isnan(value):
                values.setdefault(key, []).append(value)
    return {key: {"mean": round(float(np.mean(of)), 5), "n": len(of)} for key, of in values.items()}


def run(name: str, sets: int, seed: int, pool: ProcessPoolExecutor | None = None) -> Result:
    """Simulate the data sets of a design.

    Each set has a random stream of its own, whatever the number of sets. `pool` None draws in this
    process.
    """
    numbers = range(sets)
    chunks = [numbers[start : start + _CHUNK] for start in range(0, sets, _CHUNK)]
    each = (map if pool is None else pool.map)(
        draw_sets, [name] * len(chunks), [seed] * len(chunks), chunks
    )
    counted: list[Found] = []
    seconds = 0.0
    for found, spent in each:
        counted += found
        seconds += spent
    command = f"python -m tools.simulation {shlex.quote(name)} --sets {sets} --seed {seed}"
    return {
        "design": name,
        "date": datetime.date.today().isoformat(),
        "command": command,
        "seed": seed,
        "sets": sets,
        "seconds_a_set": round(seconds / sets, 2),
        "found": summarise(counted),
    }


def kept(results: Sequence[Result], new: Result) -> list[Result]:
    """Return the results with a new one in place of the former ones of its design.

    A result of the earlier program has no command. It names, under ``replaced_by``, a part of the
    names of the designs that replace it.
    """
    name = new["design"]
    left = [
        result
        for result in results
        if result["design"] != name and result.get("replaced_by", "\n") not in name
    ]
    order = list(designs())
    ours = [result for result in left if "command" in result] + [new]
    ours.sort(key=lambda result: order.index(result["design"]))
    return ours + [result for result in left if "command" not in result]


def _files() -> dict[Path, set[str]]:
    """Return each file of results with its questions."""
    return {_RESULTS: set(questions())}


def read() -> list[Result]:
    """Return the kept results, those of the earlier program last."""
    results: list[Result] = [row for file in _files() for row in json.loads(file.read_text())]
    return sorted(results, key=lambda result: "command" not in result)


def write(results: Sequence[Result]) -> None:
    """Write the results, one design in each line, and the page and the CSV with its tables."""
    for file, asked in _files().items():
        own = [row for row in results if asked & set(map(_question, row["found"]))]
        file.write_text("[\n" + ",\n".join(map(json.dumps, own)) + "\n]\n")
    PAGE.write_text(with_table(PAGE.read_text(), results))
    PAGE.with_suffix(".csv").write_text(every_row(results))


def with_table(page: str, results: Sequence[Result]) -> str:
    """Return the text of the page with the table of all results."""
    block = f"{_BEGIN}\n\n{table(results)}\n\n{_END}"
    return re.sub(f"{_BEGIN}.*?{_END}", lambda _: block, page, flags=re.S)


def table(results: Sequence[Result]) -> str:
    """Return one row for each question: the share over all its designs, and the range of them."""
    lines = [
        "| what is counted | designs | sets | % | 95 % interval | by design | stated | date |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for key, question in questions().items():
        rows = [
            (result, found)
            for result in results
            for name, found in result["found"].items()
            if _question(name) == key
        ]
        if rows:
            lines.append(_row(question, rows))
    return "\n".join(lines)


def _row(question: Question, rows: Sequence[tuple[Result, Mapping[str, float]]]) -> str:
    total = sum(int(found["n"]) for _, found in rows)
    count = sum(found["mean"] * found["n"] for _, found in rows)
    low, high = _interval(round(count), total)
    means = [found["mean"] for _, found in rows]
    dates = sorted({result["date"] for result, _ in rows})
    cells = (
        question.title,
        str(len({result["design"] for result, _ in rows})),
        f"{total:,}",
        _percent(count / total),
        f"{_percent(low)}–{_percent(high)}",
        f"{_percent(min(means))}–{_percent(max(means))}",
        question.promised,
        " to ".join(dict.fromkeys((dates[0], dates[-1])))
        + ("" if all("command" in result for result, _ in rows) else ", earlier program"),
    )
    return f"| {' | '.join(cells)} |"


@cache  # the tables are written after each design
def _interval(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % Clopper-Pearson interval of a share."""
    ends = binomtest(count, total).proportion_ci(0.95)
    return ends.low, ends.high


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _question(name: str) -> str:
    return name.partition(" @ ")[0]


def every_row(results: Sequence[Result]) -> str:
    """Return every counted share as CSV, with its 95 % interval and the command."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = ("design", "counted", "share", "ci_low", "ci_high", "sets", "stated", "date")
    writer.writerow((*columns, "command"))
    for result in results:
        for name, found in result["found"].items():
            n = int(found["n"])
            low, high = _interval(round(found["mean"] * n), n)
            question = questions()[_question(name)]
            writer.writerow(
                (
                    result["design"],
                    name,
                    found["mean"],
                    round(low, 4),
                    round(high, 4),
                    n,
                    question.promised,
                    result["date"],
                    result.get("command", f"{result.get('program', '')}"),
                )
            )
    return out.getvalue()


def main() -> None:
    """Run the designs that are named."""
    parser = argparse.ArgumentParser(prog="python -m tools.simulation", description=__doc__)
    parser.add_argument("design", nargs="*", help="part of the name of designs")
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--seed", type=int, default=70)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="only list the designs")
    options = parser.parse_args()
    parts = options.design or [""]
    chosen = [name for name in designs() if any(part in name for part in parts)]
    if not chosen:
        sys.exit(f"no design has a name with {' or '.join(parts)}; --list lists them")
    with ProcessPoolExecutor(options.processes) as pool:
        for name in chosen if not options.list else ():
            result = run(name, options.sets, options.seed, pool)
            print(f"{name}: {result['seconds_a_set']} s a set", flush=True)
            for key, found in result["found"].items():
                print(f"    {key}: {found['mean']:.3f} of {found['n']}", flush=True)
            if options.sets >= _TRIAL:
                write(kept(read(), result))
    if options.list:
        print("\n".join(chosen))


if __name__ == "__main__":
    main()
