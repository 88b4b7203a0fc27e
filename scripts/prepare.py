"""`cxr prepare`: from a public download to a data set folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def prepare(
    source: Annotated[Path, typer.Argument(help="Folder of the data set as it was published.")],
    out: Annotated[Path, typer.Argument(help="Data set folder to make.")],
    format: Annotated[  # noqa: A002 - the option's own name
        str, typer.Option(help="rsna, or csv (your own images.csv, labels.csv, boxes.csv).")
    ],
    name: Annotated[
        str | None, typer.Option(help="Name in reports; the folder's name if left out.")
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option(help="Also store the pixels at this size, px; may be repeated."),
    ] = None,
    val: Annotated[float, typer.Option(help="Share of patients for validation.")] = 0.15,
    test: Annotated[float, typer.Option(help="Share of patients for test.")] = 0.2,
    folds: Annotated[int, typer.Option(help="Number of folds for cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first file or label that is unusable.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that decode; all processors if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Make a data set folder: tables, split by patient, audit.

    May be interrupted: the same command goes on where it stopped.

    Example: cxr prepare ~/rsna data/rsna --format rsna --size 512
    """
    from data_prep.draw_split import SplitRule
    from data_prep.prepare import prepare as prepare_dataset
    from scripts import console

    summary = prepare_dataset(
        source,
        out,
        format=format,
        name=name,
        sizes=size or (),
        rule=SplitRule(val=val, test=test, folds=folds, seed=seed),
        strict=strict,
        workers=workers,
        progress=console.progress,
    )
    for line in summary.lines:
        console.say(line)
    if as_json:
        console.emit_json(summary.payload)
