"""`cxr check`: what would make results on a data set wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from data_prep.contracts.folders import folder_lock
from data_prep.store.dataset import DataSet
from data_prep.work.engine import open_engine
from evaluation.systems.shortcuts import measure_shortcuts
from scripts.next_steps import trainings
from scripts.options import Address, DataFolder, Engine
from scripts.runner import verb

if TYPE_CHECKING:
    from data_prep.audit.audit import Audit


@verb
def check(
    data: DataFolder,
    *,
    split: str | None = None,
    strict: bool = False,
    no_pixels: bool = False,
    engine: Engine = "local",
    address: Address = None,
) -> Audit:
    """Audit a data set: leaks, copies, impossible boxes, shortcuts.

    Writes into the folder, of all splits: audit.html, to read; audit_cases.csv, with every case;
    exclude.csv, if there is none, with images to leave out (cxr prepare --exclude); audit.json, for
    programs. Exit 0: nothing wrong; 1: something is.

    Args:
        data: Data set folder, as made by cxr prepare.
        split: Report on this split and the images only; all splits by default.
        strict: Exit 1 on warnings too, not on errors only.
        no_pixels: Read the tables only: faster, and no images shown.

    Returns:
        What was found, the worst first.

    Raises:
        InputError: There is no such split, or the engine cannot start.

    Example:
        cxr check data/rsna
    """
    from data_prep.audit.audit import audit
    from data_prep.audit.page import write_audit

    dataset = DataSet.open(data)
    if split is not None:
        dataset.split(split)  # refuses a name that it does not have, before anything is measured
    with open_engine(engine, address=address) as workers:
        found = audit(
            dataset, pixels=not no_pixels, measure_shortcuts=measure_shortcuts, engine=workers
        )
    with folder_lock(data):
        write_audit(dataset, found, data, pixels=not no_pixels)
    if split is not None:
        found = found.of_split(split)
    steps = trainings(dataset, split or "default") if found.passed else []
    return replace(found, folder=data, strict=strict, next_steps=tuple(steps))
