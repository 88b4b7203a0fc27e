"""`cxr split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cxr_compare.commands.console import Shown
from cxr_compare.commands.options import AnyPath, DataFolder
from cxr_compare.data_prep.base.errors import InputError, require_extra

_WITHOUT = {
    "file": ("val", "test", "seed", "from", "folds"),
    "from": ("test", "folds"),
    "folds": ("val", "test"),
}
"""Arguments that have no meaning beside another one."""


def split(
    data: DataFolder,
    *,
    name: str,
    val: float | None = None,
    test: float | None = None,
    folds: int | None = None,
    file: AnyPath | None = None,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    seed: int | None = None,
) -> Shown:
    """Add a split by patient to a data set.

    A split gives each patient, and all copies of an image, one role: training (train), validation
    (val) or test. A training takes it by --set data.split=NAME, predict and compare by --split
    NAME.

    Args:
        name: Name of the split; of folds, NAME-0, NAME-1 and so on.
        val: Share of the patients for validation, 0.15 without it.
        test: Share of the patients for the test, 0.2 without it.
        folds: Make so many splits, at least 3. Each patient is a test patient of one of them, and
            a validation patient of another one.
        file: Table with a column image_id or patient_id and a column role (train, val, test); of
            several splits, a column with the name of each in place of role.
        from_: Split whose test images are kept; the validation images are drawn anew.
        seed: Random seed of the draw, 0 without it.
    """
    require_extra("split", "images")
    import pandas as pd

    from cxr_compare.data_prep.audit import audit, write_audit
    from cxr_compare.data_prep.dataset import DataSet, table_lines
    from cxr_compare.data_prep.splits import SplitRule
    from cxr_compare.data_prep.stored_splits import add_splits
    from cxr_compare.evaluation.inputs.file_facts import measure_shortcuts
    from cxr_compare.evaluation.report.data_page import write_data_page

    drawn: dict[str, Any] = {"val": val, "test": test, "folds": folds, "seed": seed}
    options = {**drawn, "file": file, "from": from_}
    options = {key: value for key, value in options.items() if value is not None}
    for argument, without in _WITHOUT.items():
        clash = [key for key in without if key in options]
        if argument in options and clash:
            raise InputError(f"split: {clash[0]} has no meaning with {argument}; leave one out")
    data = Path(data)

    def write_pages(dataset: DataSet) -> None:
        result = audit(dataset, measure_shortcuts)
        write_audit(result)
        write_data_page(dataset, result)

    new_splits = add_splits(
        DataSet.open(data),
        name,
        SplitRule(**{key: value for key, value in drawn.items() if value is not None}),
        test_folds=folds is not None,
        file=None if file is None else Path(file),
        keep_test_of=from_,
        write_pages=write_pages,
    )
    lines = []
    for split_name, result in new_splits.items():
        lines += table_lines(pd.DataFrame(result["roles"]), f"split '{split_name}'")
    notes = next(iter(new_splits.values()))["how"].get("notes", ())
    lines += [f"note: {note}" for note in notes]
    return Shown("\n".join(lines), new_splits)
