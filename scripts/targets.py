"""The targets (findings, or groups of findings) that a command is to evaluate."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.identify_folder import folder_kind, read_marker
from cxr_compare.scripts.options import read_target

_ALL = "all"


def chosen_targets(dataset: DataSet, names: list[str] | None) -> list[Target]:
    """Return the targets (findings, or groups of findings) that a command is to evaluate.

    `names` may be ``all``, or define a target as NAME=FINDING,FINDING; None takes the only target.
    They keep their order, without repetition. Raises InputError if there is no such target, it has
    other findings, or there are several targets and `names` is None.
    """
    if names and _ALL in names and _ALL not in dataset.targets:
        return list(dataset.targets.values())
    if not names:
        return [dataset.target()]
    return [_chosen_target(dataset, text) for text in dict.fromkeys(names)]


def learned_target(folders: Iterable[Path]) -> str | None:
    """Return the target that all of several runs learned.

    Paths of other kinds than runs or predictions are passed over. None if they learned different
    ones, or none is known.
    """
    learned = {
        read_marker(folder).get("target")
        for folder in folders
        if (kind := folder_kind(folder)) is not None and kind.name == "run"
    }
    return str(learned.pop()) if len(learned) == 1 and None not in learned else None


def _chosen_target(dataset: DataSet, text: str) -> Target:
    """Return the target that NAME or NAME=FINDING,FINDING names."""
    if "=" not in text:
        return dataset.target(text)
    name, findings = read_target(text)
    target = dataset.targets.get(name)
    if target is None or set(target.any_of) != set(findings):
        raise InputError(
            f"--target {text}: {dataset.folder} has no such target, and the targets of a data set "
            f"are fixed; prepare it anew with cxr prepare --target {text}, or choose one of "
            f"{', '.join(dataset.targets)}"
        )
    return target


def without_definitions(names: list[str] | None) -> list[str] | None:
    """Return names of targets without the findings of NAME=FINDING,FINDING.

    Example:
        >>> without_definitions(["opacity=opacity,opacitiy", "edema"])
        ['opacity', 'edema']
    """
    return None if names is None else [text.partition("=")[0] for text in names]
