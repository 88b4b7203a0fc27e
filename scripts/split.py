"""`cxr split`: another split of a data set, by patient."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def split(
    data: Annotated[Path, typer.Argument(help="Data set folder, as made by cxr prepare.")],
    name: Annotated[
        str, typer.Option(help="Name of the new split, as in train --set data.split=NAME.")
    ],
    val: Annotated[
        float | None, typer.Option(help="Share of patients for validation; 0.15 if left out.")
    ] = None,
    test: Annotated[
        float | None, typer.Option(help="Share of patients for test; 0.2 if left out.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Make a split a fold, NAME-0, NAME-1, ...: it validates; one test set."),
    ] = None,
    test_folds: Annotated[
        bool, typer.Option("--test-folds", help="With --folds: the fold tests, the next validates.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the draw; 0 if left out.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="balanced (default): each class, finding, view and source gets its share. hash: a "
            "patient's role follows from the id, whatever is added."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Follow a CSV: image_id or patient_id, role, and fold if you like."),
    ] = None,
    keep_test: Annotated[
        str | None,
        typer.Option("--from", help="Keep the test images of this split; draw validation anew."),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Replace the split of this name, by its own rule where no option says otherwise; "
            "runs trained on the old one must be trained again.",
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="With --file: every image needs a role.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the splits as JSON.")] = False,
) -> None:
    """Make another split; no patient and no image with its copies has two roles.

    Example: cxr split data/rsna --name seed-1 --seed 1

    Example: cxr split data/rsna --name cv --folds 5 --test-folds

    Example: cxr split data/nih --name val-2 --from official --seed 2

    Example: cxr split data/rsna --name mine --file split.csv

    Example: cxr split data/rsna --name default --replace
    """
    from data_prep.store.folder_kinds import require_kind

    require_kind(data, "data set")  # before what is heavy: a wrong folder is said at once
    from data_prep.audit.audit import audit_again
    from data_prep.audit.page import write_audit
    from data_prep.contracts.errors import InputError
    from data_prep.contracts.folders import folder_lock
    from data_prep.splits.add_split import SplitRule, add_splits, drawn_by, role_lines
    from data_prep.store.dataset import DataSet
    from evaluation.systems.shortcuts import measure_shortcuts
    from scripts import console
    from scripts.next_steps import trainings

    asked = {"val": val, "test": test, "folds": folds, "seed": seed, "method": method}
    given = {key: value for key, value in asked.items() if value is not None}
    idle = {
        "--file": (file, {"val", "test", "seed", "method"}),
        "--from": (keep_test, {"test"}),
        "--test-folds": (test_folds, {"val", "test"}),
    }
    for option, (value, without) in idle.items():
        clash = sorted(without & set(given))
        if value and clash:
            raise InputError(f"--{clash[0]} has no meaning with {option}; leave one of them out")
    if keep_test and (file or test_folds):
        raise InputError("--from keeps a test set; leave out --file and --test-folds")
    if strict and file is None:
        raise InputError("--strict has no meaning without --file; leave it out")
    if test_folds and folds is None:
        raise InputError("--test-folds: say how many with --folds")
    dataset = DataSet.open(data)
    rule = {**(drawn_by(dataset, name) if replace else {}), **given}
    made = add_splits(
        dataset,
        name,
        SplitRule(**rule),
        each_fold=folds is not None,
        test_folds=test_folds,
        file=file,
        keep_test_of=keep_test,
        strict=strict,
        replaces=replace,
    )
    dataset = DataSet.open(data)
    with folder_lock(data):
        write_audit(dataset, audit_again(dataset, measure_shortcuts), data)
    for split_name, result in made.items():
        console.say(f"{data}: split '{split_name}'")
        for line in role_lines(result["roles"]):
            console.say(line)
    for note in next(iter(made.values()))["how"].get("notes", ()):
        console.say(f"note: {note}")
    if replace:
        console.say("note: runs and results of the split replaced no longer fit; train again")
    console.next_step(*trainings(dataset, next(iter(made))))
    if as_json:
        console.emit_json(made)
