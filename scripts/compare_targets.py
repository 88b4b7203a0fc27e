"""`cxr compare` for several targets: a report for each, one page and one table over all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import LOCK, folder_lock
from evaluation.report.files import OF_ALL_TARGETS, PAGE, require_only
from scripts import console

if TYPE_CHECKING:
    from data_prep.store.dataset import DataSet, Target

ALL = "all"


def chosen_targets(dataset: DataSet, names: list[str] | None) -> list[Target]:
    """The targets that are asked for, each once; ``all`` means every one of the data set.

    Raises:
        InputError: One is unknown, or there are several and none is named.
    """
    if names and ALL in names and ALL not in dataset.targets:
        return list(dataset.targets.values())
    if not names:
        return [dataset.target()]
    return [dataset.target(name) for name in dict.fromkeys(names)]


def compare_each(
    judge: Callable[[str, list[str], Path], Any],
    systems: list[str],
    dataset: DataSet,
    targets: list[Target],
    out: Path,
    split: str,
) -> Path:
    """Compare the same systems on every target, each into a folder of its own.

    Args:
        judge: Compares systems on one target and writes its report; target, systems, folder.
        systems: As on the command line; a run is predicted once.
        dataset: Which data set.
        targets: Two or more.
        out: Folder to make; gets ``report.html`` and ``metrics.csv`` over all targets, last.
        split: Name of the split.

    Returns:
        The page over all targets.

    Raises:
        InputError: The folder holds something else, or a system cannot be judged on a target.
    """
    from evaluation.report.targets_page import write_targets_page

    _require_folder(out, [target.name for target in targets])
    with folder_lock(out):
        # Without its page the folder is incomplete, whatever an earlier run had left.
        (out / PAGE).unlink(missing_ok=True)
        predicted = [_predicted(system, dataset, targets[0], out, split) for system in systems]
        for target in targets:
            console.say(f"{target.display_name}:")
            judge(target.name, predicted, out / target.name)
        return write_targets_page(out, targets, dataset.name)


def _require_folder(out: Path, targets: list[str]) -> None:
    require_only(out, OF_ALL_TARGETS.union(targets), "report on these targets")
    reserved = sorted({*OF_ALL_TARGETS, LOCK} & set(targets))
    if reserved:
        raise InputError(f"compare: a target cannot be called '{reserved[0]}'; compare it alone")


def _predicted(system: str, dataset: DataSet, target: Target, out: Path, split: str) -> str:
    """The system as predictions folders, so that no run is predicted once per target."""
    from scripts.systems import open_seeds, split_seeds

    name, paths = split_seeds(system)
    opened = open_seeds(name, paths, dataset, target, out, split)
    folders = ",".join(str(each.folder) for each in opened)
    return f"{name or opened[0].name}={folders}"
