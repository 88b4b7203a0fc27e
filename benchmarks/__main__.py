"""``python -m benchmarks``: speed as ratios, ours and another program side by side in one run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts import console

if TYPE_CHECKING:
    from benchmarks.bench import Setting

GROUPS = {
    "machine": "benchmarks.bench_models",
    "training": "benchmarks.bench_models",
    "inference": "benchmarks.bench_inference",
    "predict": "benchmarks.bench_inference",
    "start": "benchmarks.bench_start",
    "data": "benchmarks.bench_data",
    "evaluation": "benchmarks.bench_evaluation",
}
"""Module of each group. Its ``BLOCKS`` are functions that yield rows, one after the other."""


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
    out: Annotated[Path, typer.Option(help="JSON file to write, anew after every row.")] = Path(
        "bench.json"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")] = 0,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Tiny, once, in one process: shows that it runs, not how fast."
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit 1 if a row fails, breaks its limit, or got slower than recorded."
        ),
    ] = False,
    write_docs: Annotated[
        bool,
        typer.Option("--write-docs", help="Record the rows and write docs/benchmarks.md of them."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Measure speed side by side with other programs; record machine and versions.

    A sample counts only while other programs use less than a tenth of the processors. The program
    waits up to ten minutes for that, in all. Without --data or --source the images are synthetic.
    It takes about a quarter of an hour.

    Example: python -m benchmarks data --source ~/rsna --out bench.json
    """
    names = list(dict.fromkeys(groups or GROUPS))
    unknown = [name for name in names if name not in GROUPS]
    if not quick:  # shares of the peak need it
        names = list(dict.fromkeys(["machine", *names]))
    if unknown:
        raise InputError(f"bench: no group '{unknown[0]}'; choose from {', '.join(GROUPS)}")
    if data is not None and source is not None:
        raise InputError("bench: give either --data or --source")
    if not out.parent.is_dir():
        raise InputError(f"{out}: its folder does not exist; make it first")
    from benchmarks.bench import open_setting
    from benchmarks.report import as_lines, line_of, losses, record, recorded
    from cxr_compare.data_prep.contracts.records import write_json

    rows: list[dict[str, Any]] = []
    with open_setting(data, source, seed=seed, quick=quick) as setting:
        for line in setting.lines:
            console.say(line)
        payload = {**setting.payload, "rows": rows}
        made = {key: payload[key] for key in ("created", "revision")}
        for row in _measured(names, setting):
            console.say(line_of(row))
            rows.append({**row, **made})
            write_json(out, "bench", payload)
    for line in ("", *as_lines(rows), *_notes(rows)):
        console.say(line)
    wrong = losses(payload, recorded())
    for line in wrong:
        console.say(f"! {line}")
    if write_docs:
        console.say(f"Written: {record(payload)}")
    if as_json:
        console.emit_json(payload)
    if strict and wrong:
        raise typer.Exit(1)


def _measured(names: list[str], setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield the rows of all groups, one after the other."""
    for name in names:
        for block in importlib.import_module(GROUPS[name]).BLOCKS[name]:
            yield from _block(name, block, setting)


def _block(
    group: str, block: Callable[[Setting], Iterator[dict[str, Any]]], setting: Setting
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one function; an error in it becomes a row, and other functions go on."""
    from benchmarks.bench import Row

    try:
        for row in block(setting):
            yield {"group": group, **row}
    except Exception as error:  # noqa: BLE001  its row reports it
        failed = {"all": f"{type(error).__name__}: {error}"}
        yield {"group": group, **Row(block.__name__, "", "all").measured([], {}, failed=failed)}


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    return [f"- {note}" for note in dict.fromkeys(row["note"] for row in rows) if note]


if __name__ == "__main__":
    try:
        typer.run(bench)
    except InputError as error:
        console.say(str(error))
        sys.exit(2)
