"""`cxr split`: another split of a data set, by patient."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def split(
    data: Annotated[Path, typer.Argument(help="Data set folder, as made by cxr prepare.")],
    name: Annotated[str, typer.Option(help="Name of the new split, as in train --split NAME.")],
    val: Annotated[float, typer.Option(help="Share of patients for validation.")] = 0.15,
    test: Annotated[float, typer.Option(help="Share of patients for test.")] = 0.2,
    folds: Annotated[
        int | None,
        typer.Option(help="Make one split a fold, NAME-0, NAME-1, ..., with one test set."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the splits as JSON.")] = False,
) -> None:
    """Draw another split by patient; no patient has two roles, classes are balanced.

    Example: cxr split data/rsna --name seed-1 --seed 1

    Example: cxr split data/rsna --name cv --folds 5
    """
    from data_prep.dataset import DataSet
    from data_prep.draw_split import SplitRule, add_splits
    from scripts import console

    rule = SplitRule(val=val, test=test, folds=folds or SplitRule.folds, seed=seed)
    made = add_splits(DataSet.open(data), name, rule, each_fold=folds is not None)
    for split_name, counts in made.items():
        roles = ", ".join(f"{count:,} {role}" for role, count in counts.items())
        console.say(f"{data}: split '{split_name}': {roles} images")
    if as_json:
        console.emit_json(made)
