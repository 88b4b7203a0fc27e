"""Draw data sets with a known truth, and count what the program states falsely about them.

    python -m tools.simulation [--sets 400] [--designs equal,boxes] [--seed 70]

A claim fails if the lower end of the 95 % interval of its rate of false statements is above the
rate that is stated, which is 5 % for most; the exit status is then 1. A design is kept in
``results.json`` as soon as it is done, and the table of docs/validity.md is written from it. Fewer
than 100 sets are a trial, which is printed only.
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

import numpy as np
from scipy.stats import binomtest

from tools.simulation.claims import CLAIMS, Claim
from tools.simulation.designs import DESIGNS, Design

_RESULTS = Path(__file__).with_name("results.json")
_ROOT = Path(__file__).resolve().parents[2]
PAGE = _ROOT / "docs" / "validity.md"
_TRIAL = 100  # fewer sets are printed, not kept
_BEGIN, _END = "<!--table-->", "<!--end of table-->"

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
    git = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty"]
    return {
        "design": name,
        "sets": sets,
        "seed": seed,
        "date": datetime.date.today().isoformat(),
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
        "counted": count(DESIGNS[name], sets, [seed, zlib.crc32(name.encode())]),
    }


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
    limit = CLAIMS[claim_of(name)].limit
    return limit is not None and interval(counted, of)[0] > limit


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each counted name of a design."""
    for name, (counted, of) in result["counted"].items():
        low, high = interval(counted, of)
        share = f"{counted} of {of}, {100 * counted / of:.1f} % ({low:.1f} to {high:.1f})"
        yield f"{result['design']}: {name}: {share}" + ", FAILS" * fails(name, counted, of)


def read() -> dict[str, list[Result]]:
    """Return the kept results of designs, and rows of the former program (see docs/validity.md)."""
    found: dict[str, list[Result]] = json.loads(_RESULTS.read_text(encoding="utf-8"))
    return found


def keep(result: Result) -> None:
    """Keep a result in place of the former one of its design, and write the table."""
    results = read()
    known = {each["design"]: each for each in results["designs"]} | {result["design"]: result}
    results["designs"] = [known[name] for name in DESIGNS if name in known]
    parts = [
        f'"{part}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]"
        for part, rows in results.items()
    ]
    _RESULTS.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def with_table(page: str) -> str:
    """Return the text of the page with the table of all kept results."""
    block = f"{_BEGIN}\n\n{table(read())}\n\n{_END}"
    return re.sub(f"{_BEGIN}.*?{_END}", lambda _: block, page, flags=re.S)


def table(results: Mapping[str, Iterable[Result]]) -> str:
    """Return a row for each claim: its share over all designs, and the range of single ones.

    A claim that no kept design counts has the row of the former program, if there is one.
    """
    former = {row["claim"]: row for row in results["former"]}
    text = [
        "| what is counted | designs | sets | % | 95 % interval | by design | stated | counted |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for key, claim in CLAIMS.items():
        if rows := [
            (each, counted, of)
            for each in results["designs"]
            for name, (counted, of) in each["counted"].items()
            if claim_of(name) == key
        ]:
            shares = [counted / of for _, counted, of in rows]
            dates = sorted({each["date"] for each, _, _ in rows})
            row = {
                "designs": len({each["design"] for each, _, _ in rows}),
                "counted": sum(counted for _, counted, _ in rows),
                "of": sum(of for _, _, of in rows),
                "lowest": min(shares),
                "highest": max(shares),
                "when": " to ".join(dict.fromkeys((dates[0], dates[-1]))),
            }
            text.append(_row(claim, row))
        elif key in former:
            text.append(_row(claim, former[key]))
    return "\n".join(text)


def _row(claim: Claim, row: Mapping[str, Any]) -> str:
    low, high = interval(row["counted"], row["of"])
    cells = (
        claim.title,
        str(row["designs"]),
        f"{row['of']:,}",
        f"{100 * row['counted'] / row['of']:.1f}",
        f"{low:.1f}–{high:.1f}",
        f"{100 * row['lowest']:.1f}–{100 * row['highest']:.1f}",
        "" if claim.limit is None else f"at most {claim.limit:.0f}",
        row["when"],
    )
    return f"| {' | '.join(cells)} |"


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
        result = run(name, options.sets, options.seed)
        print("\n".join(lines(result)), flush=True)
        any_fails |= any(fails(key, *found) for key, found in result["counted"].items())
        if options.sets >= _TRIAL:
            keep(result)
    sys.exit(any_fails)


if __name__ == "__main__":
    main()
