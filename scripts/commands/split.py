"""`cxr split`: make another split of a data set by patient."""

from __future__ import annotations

from typing import Annotated, Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.evaluation.sources.shortcuts import measure_shortcuts
from cxr_compare.scripts.next_steps import trainings
from cxr_compare.scripts.options import DataFolder
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command


@command
def split(
    data: DataFolder,
    *,
    name: str,
    val: float | None = None,
    test: float | None = None,
    folds: int | None = None,
    test_folds: bool = False,
    seed: int | None = None,
    file: AnyPath | None = None,
    keep_test_of: Annotated[str | None, Argument(option="--from")] = None,
    share: float | None = None,
    replace: bool = False,
) -> Outcome:
    """Make another split by patient; copies of an image stay together.

    A split gives each patient one role: training (train), validation (val) or test. Trainings,
    predictions and reports name the split that they use.

    Args:
        data: Data set that cxr prepare made.
        name: Name of the new split, for cxr train --set data.split=NAME.
        val: Share of patients for validation, by default 0.15. With more of them a threshold is
            chosen with less chance, and fewer patients are left for training.
        test: Share of patients for test, by default 0.2. It has no meaning with --from or
            --test-folds, which fix the test set.
        folds: Make this many splits, NAME-0, NAME-1, ...; in each another fold of patients is the
            validation set. All have the same test set.
        test_folds: With --folds, let each split test another fold and validate on the next one.
        seed: Random seed of the draw, by default 0.
        file: CSV that gives the split: image_id or patient_id, role (train, val or test) and, if
            wanted, fold. A table of several splits has a column with the name of each in place of
            role.
        keep_test_of: Name of a split whose test images are kept, while validation images are drawn
            again (the option --from).
        share: With --from, keep the split and only this share of its training and validation
            patients. With one seed, a smaller share lies in each larger one.
        replace: Draw the existing split of this name again, with its former shares and seed where
            none are given. What was made by --from, --share, --file or --folds needs them again.
            Train the runs of this split again afterwards.

    Returns:
        How each split was made, and how many images and patients each role has.

    Raises:
        InputError: The options exclude each other, or no such split can be drawn.

    Example:
        cxr split data/rsna --name seed-1 --seed 1

        cxr split data/rsna --name cv --folds 5 --test-folds

        cxr split data/nih --name val-2 --from official --seed 2

        cxr split data/rsna --name mine --file split.csv

        cxr split data/rsna --name default --replace
    """
    data = as_path(data)
    file = as_path(file)
    shares = {"val": val, "test": test, "folds": folds, "seed": seed}
    rule: dict[str, Any] = {key: value for key, value in shares.items() if value is not None}
    excluded = {
        "--file": (file, {"val", "test", "seed"}),
        "--from": (keep_test_of, {"test"}),
        "--test-folds": (test_folds, {"val", "test"}),
    }
    for option, (value, without) in excluded.items():
        clash = sorted(without & set(rule))
        if value and clash:
            raise InputError(f"--{clash[0]} has no meaning with {option}; leave one of them out")
    if keep_test_of and (file or test_folds):
        raise InputError("--from keeps a test set; leave out --file and --test-folds")
    if share is not None and keep_test_of is None:
        raise InputError("--share: give the split whose patients it keeps, --from NAME")
    if share is not None and (val is not None or folds is not None):
        raise InputError(
            "--share keeps a share of the patients of --from; leave out --val, --folds"
        )
    if share is not None and name in {"default", keep_test_of}:
        # Images that 'default' leaves unused stay unused in every later split.
        raise InputError(
            f"--share: a part of '{keep_test_of}' cannot replace '{name}', so choose another --name"
        )
    if test_folds and folds is None:
        raise InputError("--test-folds: say how many with --folds")
    from cxr_compare.data_prep.audit import audit, page
    from cxr_compare.data_prep.splits.stored_splits import (
        SplitRule,
        add_splits,
        read_split_rule,
        require_drawn,
        role_lines,
    )

    dataset = DataSet.open(data)
    if replace and file is None and keep_test_of is None and folds is None and test is None:
        require_drawn(dataset, name)
    made = add_splits(
        dataset,
        name,
        SplitRule(**({**read_split_rule(dataset, name), **rule} if replace else rule)),
        each_fold=folds is not None,
        test_folds=test_folds,
        file=file,
        keep_test_of=keep_test_of,
        share=share,
        replaces=replace,
    )
    dataset = DataSet.open(data)
    with folder_lock(data):
        page.write_audit(dataset, audit.audit_again(dataset, measure_shortcuts), data)
    lines = []
    for split_name, result in made.items():
        lines += [f"{data}: split '{split_name}'", *role_lines(result["roles"])]
    first = next(iter(made))
    lines += [f"note: {note}" for note in made[first]["how"].get("notes", ())]
    if replace:
        lines.append("note: runs and results of the split replaced no longer fit; train again")
    return Outcome("\n".join(lines), made, next_steps=tuple(trainings(dataset, first)))
