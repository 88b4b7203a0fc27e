"""Commands that usually follow after a command has made a folder, with the paths of that folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_compare.data_prep.contracts.folder_kinds import KindName
from cxr_compare.data_prep.store.identify_folder import (
    find_data_set,
    find_folders,
    folder_kind,
    read_marker,
)
from cxr_compare.evaluation.report.files import PAGE, SYSTEMS

if TYPE_CHECKING:
    from cxr_compare.data_prep.store.dataset import DataSet

_OTHER_MODEL = {"detector": "chexnet_small", "classifier": "retinanet_small"}
_MOST_SYSTEMS = 4  # in one suggested comparison


def next_steps(folder: Path, data: Path | None = None) -> list[str]:
    """Return the commands that usually follow for a complete folder, the most usual one first.

    Args:
        folder: Complete folder of any kind.
        data: Data set that the folder was made from. By default it is searched for beside the
            folder.

    Returns:
        Command lines; empty if the folder is of no known kind.
    """
    kind = folder_kind(folder)
    data = data or find_data_set(folder)
    if kind is None:
        return []
    if kind.name == "phantom":
        return [f"cxr prepare {_word(folder)} {_word(_free(folder, 'data'))} --format rsna"]
    if kind.name == "data set":
        from cxr_compare.data_prep.store.dataset import DataSet

        return trainings(DataSet.open(folder))
    if kind.name == "report":
        return [f"open {_word(folder / PAGE)} in a browser"]
    steps = {"run": _after_run, "sweep": _after_sweep, "predictions": _after_predictions}
    return steps[kind.name](folder, data) if kind.name in steps else []


def trainings(dataset: DataSet, split: str = "default") -> list[str]:
    """Return commands that train on a data set: a classifier, and a detector if it has boxes.

    If the audit found an error, training would stop, so the step that removes the error is
    returned.

    Args:
        dataset: A prepared data set.
        split: Name of the split to train on.

    Returns:
        Command lines in the order in which they are useful.
    """
    from cxr_compare.data_prep.audit.audit import AUDIT_PAGE, redraw_command, split_errors

    if errors := split_errors(dataset, split):
        if any(problem.split for problem in errors):
            return [redraw_command(dataset.folder, split)]
        return [f"open {_word(dataset.folder / AUDIT_PAGE)} in a browser"]
    chosen = "" if split == "default" else f" --set data.split={_word(split)}"
    names = ["chexnet", *(["retinanet"] if len(dataset.boxes) else [])]
    if not dataset.has_pixels or not len(dataset.targets):
        return []
    return [
        f"cxr train {name}_small --data {_word(dataset.folder)} "
        f"--out {_word(_free(dataset.folder, name))}{chosen}"
        for name in names
    ]


def _after_run(folder: Path, data: Path | None) -> list[str]:
    facts = read_marker(folder)
    alike = [run for run in _beside(folder, "run") if _question(run) == _question(folder)]
    rivals = [run for run in alike if read_marker(run).get("model_kind") != facts.get("model_kind")]
    if rivals:
        first = _comparison([folder, *rivals][:_MOST_SYSTEMS], folder, data)
    else:
        other = _OTHER_MODEL[str(facts.get("model_kind"))]
        out = _free(folder, other.removesuffix("_small"))
        first = f"cxr train {other} --data {_word(data or 'DATA')} --out {_word(out)}"
    return [first, f"cxr predict {_word(folder)} IMAGE"]


def _after_sweep(folder: Path, data: Path | None) -> list[str]:
    """Return commands that compare a sweep's best run with other models."""
    best = folder / "best"
    facts = read_marker(folder)
    alike = [run for run in _beside(folder, "run") if _question(run) == _question(best)]
    first = facts["best"]["number"]
    base = facts["as_it_stands"]
    if not alike and base not in (None, first) and folder_kind(run := folder / "trials" / "000"):
        alike = [run]
    steps = [_comparison([best, *alike][:_MOST_SYSTEMS], folder, data)] if alike else []
    return [*steps, f"cxr predict {_word(best)} IMAGE"]


def _after_predictions(folder: Path, data: Path | None) -> list[str]:
    report = folder.parent.parent
    if folder.parent.name == SYSTEMS and folder_kind(
        report
    ):  # a report's own; it is tuned and evaluated
        return next_steps(report, data)
    if not read_marker(folder).get("data_set"):  # of loose images: there is no truth to evaluate by
        return []
    if not (folder / "decisions").is_dir():
        return [f"cxr tune {_word(folder)} --data {_word(data or 'DATA')}"]
    rivals = [p for p in _beside(folder, "predictions") if _question(p) == _question(folder)]
    return [_comparison([folder, *rivals][:_MOST_SYSTEMS], folder, data)]


def _comparison(systems: list[Path], folder: Path, data: Path | None) -> str:
    """Return the command that compares systems, with a report beside a folder."""
    each = " ".join(_word(system) for system in systems)
    out = _word(_free(folder, "report"))
    return f"cxr compare {each} --data {_word(data or 'DATA')} --out {out}"


def _question(folder: Path) -> tuple[Any, ...]:
    """Return what two systems must share to be compared: images, split and target."""
    facts = read_marker(folder)
    made_on = facts.get("data_set") or {}
    return made_on.get("content_id"), made_on.get("split_id"), facts.get("target")


def _beside(folder: Path, kind: KindName) -> list[Path]:
    """Return the other complete folders of a kind with the same parent."""
    own = folder.resolve()
    found = find_folders(own.parent).get(kind, [])
    return [_near(folder, path.name) for path in found if path.resolve() != own]


def _free(folder: Path, name: str) -> Path:
    """Return a path beside a folder at which nothing exists yet."""
    names = [name, *(f"{name}-{number}" for number in range(2, 100))]
    return next(path for path in (_near(folder, each) for each in names) if not path.exists())


def _near(folder: Path, name: str) -> Path:
    """Return a path beside a folder, relative as the folder was given."""
    return (folder.parent if folder.name not in ("", "..") else folder.resolve().parent) / name


def _word(text: object) -> str:
    return shlex.quote(str(text))
