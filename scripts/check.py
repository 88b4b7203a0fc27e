"""`cxr check`: what would make results on a data set wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts.options import AddressOption, EngineOption

_NOUNS = {"error": "error", "warning": "warning", "info": "note"}


def check(
    data: Annotated[Path, typer.Argument(help="Data set folder, as made by cxr prepare.")],
    split: Annotated[
        str | None,
        typer.Option(help="Report on this split and the images only; all splits by default."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 on warnings too, not on errors only.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    no_pixels: Annotated[
        bool,
        typer.Option("--no-pixels", help="Read the tables only: faster, and no images shown."),
    ] = False,
    engine: EngineOption = "local",
    address: AddressOption = None,
) -> None:
    """Audit a data set: leaking patients, copies, impossible boxes, shortcuts.

    Writes into the folder, of all splits: audit.html, to read; audit_cases.csv, with every case by
    its id; audit.json, for programs. Exit 0: nothing wrong; 1: something is.

    Example: cxr check data/rsna
    """
    from data_prep.store.folder_kinds import require_kind

    require_kind(data, "data set")  # before what is heavy: a wrong folder is said at once
    from data_prep.audit.audit import audit
    from data_prep.audit.page import say_scope, write_audit
    from data_prep.contracts.engines import open_engine
    from data_prep.contracts.folders import folder_lock
    from data_prep.contracts.words import counted
    from data_prep.store.dataset import DataSet
    from evaluation.systems.shortcuts import measure_shortcuts
    from scripts import console
    from scripts.next_steps import trainings

    dataset = DataSet.open(data)
    if split is not None:
        dataset.split(split)  # refuses a name that it does not have, before anything is measured
    with open_engine(engine, address=address) as workers:
        found = audit(
            dataset, pixels=not no_pixels, measure_shortcuts=measure_shortcuts, engine=workers
        )
    with folder_lock(data):
        page = write_audit(dataset, found, data, pixels=not no_pixels)
    if split is not None:
        found = found.of_split(split)
    for problem in found.problems:
        console.say(problem.line)
        if problem.advice and problem.severity != "info":
            console.say(f"    what to do: {problem.advice}")
    checked = say_scope(found.checked)
    counts = ", ".join(counted(count, _NOUNS[severity]) for severity, count in found.counts.items())
    console.say(f"{data}: checked {checked}: {counts}")
    console.say(f"Page: {page}")
    console.next_step(*(trainings(dataset, split or "default") if found.passed else ()))
    if as_json:
        console.emit_json(found.payload)
    if not found.passed or (strict and found.counts["warning"]):
        raise typer.Exit(1)
