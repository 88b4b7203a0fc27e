"""Commands that usually follow after a command has made a folder, with the paths of that folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_compare.data_prep.contracts.folder_kinds import KindName
from cxr_compare.data_prep.store.identify_folder import (
    SHARDS,
    find_data_set,
    find_folders,
    folder_kind,
    join_command,
    read_marker,
)
from cxr_compare.evaluation.report.files import PAGE, SYSTEMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cxr_compare.data_prep.contracts.finding_names import Target
    from cxr_compare.data_prep.dataset import DataSet

_OTHER_MODEL = {"detector": "chexnet_small", "classifier": "retinanet_small"}
_MOST_SYSTEMS = 4  # largest number of systems in a suggested comparison


def next_steps(folder: Path, data: Path | None = None) -> list[str]:
    """Return the commands that are usually useful next for a folder, the most usual one first.

    `data` is the data set that the folder was made from; None searches for it beside the folder.
    The list is empty if there is nothing to suggest for this kind of folder.
    """
    kind = folder_kind(folder)
    data = data or find_data_set(folder)
    if kind is None:
        return []
    if kind.name == "phantom":
        return [f"cxr prepare {_word(folder)} {_word(_free(folder, 'data'))} --format rsna"]
    if kind.name in SHARDS:
        return [join_command(folder, read_marker(folder))]
    if kind.name == "data set":
        from cxr_compare.data_prep.dataset import DataSet

        return data_set_steps(DataSet.open(folder))
    if kind.name == "report":
        return [f"open {_word(folder / PAGE)} in a browser"]
    steps = {"run": _after_run, "predictions": _after_predictions}
    return steps[kind.name](folder, data) if kind.name in steps else []


def data_set_steps(
    dataset: DataSet,
    *,
    source: Path | None = None,
    tables: Sequence[Path] = (),
) -> list[str]:
    """Return commands that are usually useful next for a data set, such as trainings.

    A data set without images can only be used to evaluate predictions, so its command imports some.
    For a data set without labels the command prepares it again with labels, and for one with a
    single class of labels it joins it with another data set. If no patient is known, a last command
    prepares the images again with patients.
    """
    folder = _word(dataset.folder)
    again = _word(_free(dataset.folder, f"{dataset.folder.name}-2"))
    prepared_from = " ".join(_word(path) for path in [*tables, source or "IMAGES"])
    if not len(dataset.targets):
        return [f"cxr prepare LABELS.csv {_word(source or 'IMAGES')} {again}"]
    if not dataset.has_pixels:
        out = _word(_free(dataset.folder, "predictions"))
        return [f"cxr import PREDICTIONS.csv --data {folder} --out {out} --name NAME"]
    steps = trainings(dataset)
    if not steps:  # no target has images of both classes
        both = _word(_free(dataset.folder, "both"))
        return [f"cxr prepare {folder} OTHER_DATA_SET --out {both}"]
    if (dataset.images["patient_id_source"] == "assumed_image").all() and tables:
        steps.append(f"cxr prepare {prepared_from} {again} --columns patient=COLUMN")
    return steps


def trainings(dataset: DataSet, split: str = "default") -> list[str]:
    """Return commands that train on a data set: a classifier, and a detector if it has boxes.

    If the audit (check of the data set) found an error, training would stop. Then the function
    returns the command that draws the split anew if this removes the error, or else one that opens
    the audit's page. Of several targets (findings, or groups of findings), the commands name the
    one with the most training images of its rarer class.

    The list is empty if nothing can be trained.
    """
    from cxr_compare.data_prep.audit.audit import AUDIT_PAGE, redraw_command, split_errors

    if errors := split_errors(dataset, split):
        if any(problem.split for problem in errors):
            return [redraw_command(dataset.folder, split)]
        return [f"open {_word(dataset.folder / AUDIT_PAGE)} in a browser"]
    target = _most_labelled(dataset, split)
    if target is None or not dataset.has_pixels:
        return []
    settings = [] if split == "default" else [f"data.split={split}"]
    settings += [] if len(dataset.targets) == 1 else [f"data.target={target.name}"]
    chosen = "".join(f" --set {_word(setting)}" for setting in settings)
    has_boxes = dataset.boxes["finding"].isin(target.any_of).any()
    names = ["chexnet", *(["retinanet"] if has_boxes else [])]
    return [
        f"cxr train {name}_small --data {_word(dataset.folder)} "
        f"--out {_word(_free(dataset.folder, name))}{chosen}"
        for name in names
    ]


def _most_labelled(dataset: DataSet, split: str) -> Target | None:
    """Return the target with the most training images of its rarer class; None if all have none."""
    trained = dataset.image_ids("train", split)
    counts = {}
    for name, target in dataset.targets.items():
        labels = dataset.labels(target).reindex(trained)
        counts[name] = min(int((labels == 1).sum()), int((labels == 0).sum()))
    best = max(counts, key=lambda name: counts[name], default=None)
    return None if best is None or not counts[best] else dataset.targets[best]


def _after_run(folder: Path, data: Path | None) -> list[str]:
    facts = read_marker(folder)
    alike = [run for run in _beside(folder, "run") if _question(run) == _question(folder)]
    rivals = [run for run in alike if read_marker(run).get("model_kind") != facts.get("model_kind")]
    answers = [f"cxr predict {_word(folder)} IMAGE"]
    if rivals:
        first = _comparison([folder, *rivals][:_MOST_SYSTEMS], folder, data)
    else:
        other = _OTHER_MODEL[str(facts.get("model_kind"))]
        if other.startswith("retinanet") and _is_without_boxes(data):
            return answers
        out = _free(folder, other.removesuffix("_small"))
        first = f"cxr train {other} --data {_word(data or 'DATA')} --out {_word(out)}"
    return [first, *answers]


def _is_without_boxes(data: Path | None) -> bool:
    """Return True for a data set that is known to have no boxes, so that no detector can learn."""
    if data is None or not (data / "boxes.parquet").exists():
        return False
    from cxr_compare.data_prep.dataset import DataSet

    return not len(DataSet.open(data).boxes)


def _after_predictions(folder: Path, data: Path | None) -> list[str]:
    report = folder.parent.parent
    if folder.parent.name == SYSTEMS and folder_kind(
        report
    ):  # a report's own; it is tuned and evaluated
        return next_steps(report, data)
    if not read_marker(folder).get("data_set"):  # of loose images: there is no truth to evaluate by
        return []
    has_scores = read_marker(folder).get("has_scores", True)
    if has_scores and not (folder / "decisions").is_dir():
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
