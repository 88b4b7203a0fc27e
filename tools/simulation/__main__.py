"""Draw data sets with a known truth, and count what the program states falsely about them.

    python -m tools.simulation [--sets 400] [--designs equal,boxes] [--seed 70]

A claim fails if the lower end of the 95 % interval of its rate of false statements is above the
rate that is stated, which is 5 % for most; the exit status is then 1. A design is kept in
``results.json`` as soon as it is done, and the tables of docs/validity.md are written from it.
Fewer than 100 sets are a trial, which is printed only.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from scipy.stats import binomtest

from cxr_compare.evaluation.metrics import metric_title
from tools.simulation import checks, designs, primary, real
from tools.simulation.claims import CLAIMS, POWER
from tools.simulation.designs import Design

DESIGNS: dict[str, Design] = {
    **designs.DESIGNS,
    **primary.DESIGNS,
    **checks.DESIGNS,
    **real.DESIGNS,
}

_RESULTS = Path(__file__).with_name("results.json")
_ROOT = Path(__file__).resolve().parents[2]
PAGE = _ROOT / "docs" / "validity.md"
_TRIAL = 100  # fewer sets are printed, not kept
_PROGRAM = ("cxr_compare", "commands", "data_prep", "evaluation")
_TEXT: dict[str, Any] = {"capture_output": True, "text": True, "check": False}

Result = dict[str, Any]
"""Result of a design: name, sets, seed, date, commit, and for each counted name how often it was
counted and in how many sets the report spoke of it."""


def count(design: Design, sets: int, stream: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Draw data sets, and return for each counted name how often it was true, of how many sets.

    Each set has a random stream of its own, whatever the number of sets.
    """
    totals: dict[str, tuple[int, int]] = {}
    for number in range(sets):
        drawn = design.draw(np.random.default_rng([*stream, number]))
        result = design.report(drawn, design.replicates)
        for claims in design.counts:
            for name, is_counted in claims(result, drawn.known).items():
                counted, of = totals.get(name, (0, 0))
                totals[name] = counted + bool(is_counted), of + 1
    return totals


def run(name: str, sets: int, seed: int) -> Result:
    """Simulate the data sets of a design."""
    return {
        "design": name,
        "sets": sets,
        "seed": seed,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "counted": count(DESIGNS[name], sets, [seed, zlib.crc32(name.encode())]),
    }


def commit() -> str:
    """Return the last commit of the program that is simulated, with a mark if its files differ."""
    git = ["git", "-C", str(_ROOT)]
    log = [*git, "log", "-1", "--format=%h", "--abbrev=8", "--", *_PROGRAM]
    head = subprocess.run(log, **_TEXT).stdout.strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *_PROGRAM], **_TEXT)
    return f"{head}-dirty" if changed.returncode else head


@cache  # the table is written after each design
def interval(counted: int, of: int) -> tuple[float, float]:
    """Return the 95 % Clopper-Pearson interval of a share, in %."""
    ends = binomtest(counted, of).proportion_ci(0.95)
    return 100 * ends.low, 100 * ends.high


def claim_of(name: str) -> str:
    """Return the claim to which a counted name, such as ``interval boxes @ ap50``, belongs."""
    return name.partition(" @ ")[0]


def fails(name: str, counted: int, of: int) -> bool:
    """Return True if a claim is false more often than is stated, beyond chance."""
    if (claim := CLAIMS.get(claim_of(name))) is None or claim.limit is None:
        return False
    return interval(counted, of)[0] > claim.limit


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each counted name of a design."""
    for name, (counted, of) in result["counted"].items():
        low, high = interval(counted, of)
        share = f"{counted} of {of}, {100 * counted / of:.1f} % ({low:.1f} to {high:.1f})"
        yield f"{result['design']}: {name}: {share}" + ", FAILS" * fails(name, counted, of)


def read() -> list[Result]:
    """Return the kept results of designs."""
    found: list[Result] = json.loads(_RESULTS.read_text(encoding="utf-8"))
    return found


def keep(result: Result) -> None:
    """Keep a result in place of the former one of its design, and write the tables."""
    with filelock.FileLock(_RESULTS.with_suffix(".lock")):
        known = {each["design"]: each for each in read()} | {result["design"]: result}
        results = [known[name] for name in DESIGNS if name in known]
        text = ",\n".join(map(json.dumps, results))
        _RESULTS.write_text(f"[\n{text}\n]\n", encoding="utf-8")
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(page: str) -> str:
    """Return the text of the page with the tables of all kept results."""
    results = read()
    for name, made in (
        ("origin", origin),
        ("false", false_table),
        ("fails", fails_table),
        ("power", power_table),
        ("real", real_table),
    ):
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        block = "\n".join([begin, "", *made(results), "", end])
        page = re.sub(f"{begin}.*?{end}", lambda _, block=block: block, page, flags=re.S)
    return page


def origin(results: Sequence[Result]) -> Iterator[str]:
    """Yield how many sets were drawn of each design, with which seed, and when."""
    sets, seeds, dates = (
        sorted({each[key] for each in results}) for key in ("sets", "seed", "date")
    )
    if results:
        yield (
            f"{sets[0]} to {sets[-1]:,} data sets of each design, seed {seeds[0]}, counted from "
            f"{dates[0]} to {dates[-1]}."
        )


def _counted(results: Iterable[Result]) -> Iterator[tuple[str, str, int, int]]:
    """Yield design, counted name, how often it was counted, and of how many sets."""
    for each in results:
        for name, (counted, of) in each["counted"].items():
            yield each["design"], name, counted, of


def false_table(results: Sequence[Result]) -> Iterator[str]:
    """Yield a row for each claim: its share over all designs, and the range of single ones."""
    yield "| what is counted | values | % (95 % interval) | by design | stated: at most |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for key, claim in CLAIMS.items():
        rows = [row for row in _counted(results) if claim_of(row[1]) == key]
        if rows:
            shares = [100 * counted / of for _, _, counted, of in rows]
            counted, of = sum(row[2] for row in rows), sum(row[3] for row in rows)
            cells = (
                claim.title,
                f"{of:,}",
                _share(counted, of),
                f"{min(shares):.1f}–{max(shares):.1f}",
                "" if claim.limit is None else f"{claim.limit:g}",
            )
            yield f"| {' | '.join(cells)} |"


def fails_table(results: Sequence[Result]) -> Iterator[str]:
    """Yield a row for each figure of a design that is above the stated rate beyond chance."""
    yield "| design | what is counted | sets | % (95 % interval) |"
    yield "| --- | --- | ---: | ---: |"
    for design, name, counted, of in _counted(results):
        if fails(name, counted, of):
            where = name.partition(" @ ")[2]
            title = CLAIMS[claim_of(name)].title + (f": {where}" if where else "")
            yield f"| `{design}` | {title} | {of:,} | {_share(counted, of)} |"


def power_table(results: Sequence[Result]) -> Iterator[str]:
    """Yield a row for each design in which something true may be shown."""
    yield "| what is shown | design | sets | % (95 % interval) |"
    yield "| --- | --- | ---: | ---: |"
    for key, title in POWER.items():
        for design, name, counted, of in _counted(results):
            if name == key:
                yield f"| {title} | `{design}` | {of:,} | {_share(counted, of)} |"


def real_table(results: Sequence[Result]) -> Iterator[str]:
    """Yield a row for each figure on real patients, whose thresholds are counted together."""
    drawn = [each for each in results if each["design"] in real.DESIGNS]
    counts: dict[str, dict[str, list[int]]] = {}
    for design, name, counted, of in _counted(drawn):
        claim, _, where = name.partition(" @ ")
        figure = metric_title(where.split(", ")[0]) if where else CLAIMS[claim].title
        sums = counts.setdefault(figure, {}).setdefault(design, [0, 0])
        sums[0] += counted
        sums[1] += of
    designs_of = [each["design"] for each in drawn]
    yield (
        "| figure | " + " | ".join(f"`{name}`: intervals | missed, %" for name in designs_of) + " |"
    )
    yield "| --- |" + " ---: | ---: |" * len(designs_of)
    for figure, by_design in counts.items():
        cells = []
        for name in designs_of:
            counted, of = by_design[name]
            cells.append(f"{of:,} | {_share(counted, of)}")
        yield f"| {figure} | {' | '.join(cells)} |"


def _share(counted: int, of: int) -> str:
    """Return a share with its interval, in %."""
    low, high = interval(counted, of)
    return f"{100 * counted / of:.1f} ({low:.1f}–{high:.1f})"


def main() -> None:
    """Run the designs that are named."""
    parser = argparse.ArgumentParser(prog="python -m tools.simulation", description=__doc__)
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--designs", default=",".join(DESIGNS), help="some of %(default)s")
    parser.add_argument("--seed", type=int, default=70)
    options = parser.parse_args()
    names = options.designs.split(",")
    if unknown := [name for name in names if name not in DESIGNS]:
        sys.exit(f"designs: no '{unknown[0]}'; there are {', '.join(DESIGNS)}")
    any_fails = False
    for name in names:
        if why := DESIGNS[name].lacks():
            print(f"{name}: skipped: {why}", flush=True)
            continue
        result = run(name, options.sets, options.seed)
        print("\n".join(lines(result)), flush=True)
        any_fails |= any(fails(key, *found) for key, found in result["counted"].items())
        if options.sets >= _TRIAL:
            keep(result)
    sys.exit(any_fails)


if __name__ == "__main__":
    main()
