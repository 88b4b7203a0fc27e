"""`cxr folds`: what the reports on the folds of a cross-validation say together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_prep.contracts.errors import InputError
from scripts import console

_OURS = {"folds.csv", "folds.md", "folds.png", "folds.json"}


def folds(
    reports: Annotated[list[Path], typer.Argument(help="Report folders, one a fold.")],
    out: Annotated[Path, typer.Option(help="Folder for the table and the picture.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print folds.json at the end.")] = False,
) -> None:
    """Mean over the folds of a cross-validation, with intervals, of every figure and difference.

    Each report judges the same systems on another fold: cxr split --folds 5 --test-folds, then
    train, predict, tune and compare with --split NAME-0, NAME-1, ...

    Example: cxr folds out/report-0 out/report-1 out/report-2 --out out/folds
    """
    strangers = sorted(p.name for p in out.iterdir() if p.name not in _OURS) if out.is_dir() else []
    if strangers:
        raise InputError(f"{out}: holds '{strangers[0]}', which is not ours; choose another --out")
    from data_prep.contracts.folders import make_folder
    from evaluation.report.folds import read_folds, summarise_folds
    from evaluation.report.folds_report import markdown_table, write_folds

    read = read_folds(reports)
    table = summarise_folds(read.figures)
    make_folder(out)
    (out / "folds.json").unlink(missing_ok=True)
    write_folds(read, table, out)
    console.say(markdown_table(read, table))
    console.say(f"Picture: {out / 'folds.png'}")
    if as_json:
        import json

        console.emit_json(json.loads((out / "folds.json").read_text()))
