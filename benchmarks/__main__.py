"""``python -m benchmarks``: speed as ratios, ours and a peer side by side in one run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from data_prep.contracts.errors import InputError
from scripts import console

GROUPS = {
    "data": "benchmarks.bench_data",
    "detection": "benchmarks.bench_models",
    "classification": "benchmarks.bench_models",
    "evaluation": "benchmarks.bench_judge",
    "calibration": "benchmarks.bench_calibration",
}
"""The module of each group; its function of the group's name and ``_rows`` yields rows."""


def bench(
    groups: Annotated[
        list[str] | None,
        typer.Argument(help=f"What to measure: {', '.join(GROUPS)}. All if left out."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Prepared data set whose images are used.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="Folder of images, such as DICOM files, to use instead.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny and once: shows that it runs, not how fast.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Measure speed side by side with what others would write; record machine and versions.

    A sample counts only while other programs use less than a tenth of the processors; waits ten
    minutes for that, in all. Without --data or --source the images are synthetic. Takes some
    minutes.

    Example: python -m benchmarks data --source ~/rsna --out bench.json
    """
    from benchmarks.bench import as_lines, line_of, open_setting
    from data_prep.contracts.json_files import write_json

    names = list(dict.fromkeys(groups or GROUPS))
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        raise InputError(f"bench: no group '{unknown[0]}'; choose from {', '.join(GROUPS)}")
    if data is not None and source is not None:
        raise InputError("bench: give either --data or --source")
    if out is not None and not out.parent.is_dir():
        raise InputError(f"{out}: its folder does not exist; make it first")
    rows = []
    with open_setting(data, source, seed=seed, quick=quick) as setting:
        for line in setting.lines:
            console.say(line)
        for name in names:
            for row in getattr(importlib.import_module(GROUPS[name]), f"{name}_rows")(setting):
                console.say(line_of(row))
                rows.append({"group": name, **row})
    notes = [f"- {note}" for note in dict.fromkeys(row["note"] for row in rows) if note]
    for line in ("", *as_lines(rows), *notes):
        console.say(line)
    payload = {**setting.payload, "rows": rows}
    if out is not None:
        write_json(out, "bench", payload)
    if as_json:
        console.emit_json(payload)


if __name__ == "__main__":
    try:
        typer.run(bench)
    except InputError as error:
        console.say(str(error))
        sys.exit(2)
