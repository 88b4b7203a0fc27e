"""`python -m benchmarks`: speed as ratios, ours and a peer side by side in one run."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_prep.contracts.errors import InputError
from scripts import console

if TYPE_CHECKING:
    from benchmarks.bench_rows import Row
    from benchmarks.bench_setting import Setting

GROUPS: dict[str, tuple[str, ...]] = {
    "data": ("benchmarks.bench_data", "benchmarks.bench_tables"),
    "detection": ("benchmarks.bench_models",),
    "classification": ("benchmarks.bench_classification"),
    "evaluation": ("benchmarks.bench_judge",),
}
"""Modules of each group; each has ``rows(setting)``, which yields rows as they are measured."""


def bench(
    groups: Annotated[
        list[str] | None,
        typer.Argument(help=f"What to measure: {', '.join(GROUPS)}. All if left out."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Prepared data set whose pictures are used.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="Folder of pictures, such as DICOM files, to use instead.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny and once: shows that it runs, not how fast.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Measure speed side by side with what others would write; say the machine and the versions.

    A sample counts only while other programs use less than a tenth of the processors; waits ten
    minutes for that, in all. Without --data or --source the pictures are synthetic. Takes some
    minutes.

    Example: python -m benchmarks data --source ~/rsna --out bench.json
    """
    from benchmarks.bench_rows import as_lines, as_payload
    from benchmarks.bench_setting import open_setting
    from data_prep.contracts.tables import write_json

    names = list(dict.fromkeys(groups or GROUPS))
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        raise InputError(f"bench: no group '{unknown[0]}'; choose from {', '.join(GROUPS)}")
    if data is not None and source is not None:
        raise InputError("bench: give either --data or --source")
    if out is not None and not out.parent.is_dir():
        raise InputError(f"{out}: its folder does not exist; make it first")
    with open_setting(data, source, seed=seed, quick=quick) as setting:
        for line in setting.lines:
            console.say(line)
        measured = [(name, row) for name in names for row in _rows(name, setting)]
    console.say()
    for line in as_lines(row for _, row in measured):
        console.say(line)
    for note in dict.fromkeys(row.note for _, row in measured if row.note):
        console.say(f"- {note}")
    payload: dict[str, Any] = {
        **setting.payload,
        "rows": [{"group": name, **as_payload(row)} for name, row in measured],
    }
    if out is not None:
        write_json(out, "bench", payload)
    if as_json:
        console.emit_json(payload)


def _rows(group: str, setting: Setting) -> Iterator[Row]:
    from benchmarks.bench_rows import as_sentence

    for module in GROUPS[group]:
        for row in importlib.import_module(module).rows(setting):
            console.say(as_sentence(row))
            yield row
