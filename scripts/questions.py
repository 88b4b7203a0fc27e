"""The questions of `cxr compare`: labels, boxes and pixels of the images, for each finding."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted, nearest_name
from cxr_compare.data_prep.base.folders import require_folder
from cxr_compare.data_prep.base.names import (
    LABELS,
    Target,
    class_column,
    find_column,
    finding_name,
    image_names,
    is_named,
    names_finding,
)
from cxr_compare.data_prep.base.user_tables import read_text_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.sources.source import SourceTables
from cxr_compare.data_prep.sources.words import holds_states
from cxr_compare.evaluation.inputs.coco_truth import coco_findings
from cxr_compare.evaluation.inputs.folders import truth_of
from cxr_compare.evaluation.inputs.frames import form_of
from cxr_compare.evaluation.inputs.image_sizes import files_beside, files_of_folder
from cxr_compare.evaluation.inputs.read_truth import (
    describes_images,
    read_truth,
    truth_table,
)
from cxr_compare.evaluation.inputs.rows import texts_of
from cxr_compare.evaluation.inputs.source_truth import (
    names_of_findings,
    read_folder,
    read_table,
    truth_of_source,
)
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.truth import Truth

if TYPE_CHECKING:
    from cxr_compare.evaluation.report.cases import Pixels


@dataclass(frozen=True, eq=False)
class Question:
    """One finding: its truth, and where its images come from.

    Attributes:
        dataset: Prepared data set; None for a truth of values or files.
        target: Target of the data set; None without one.
        split: Name of its split.
        pixels: Function from an image id to its pixels; None without image files.
    """

    truth: Truth
    dataset: DataSet | None = None
    target: Target | None = None
    split: str = "default"
    pixels: Pixels | None = None


def read_questions(
    data: Any,
    truth: Any,
    *,
    boxes: Any = None,
    patients: Any = None,
    columns: Mapping[str, str] | None = None,
    target: Sequence[str] = (),
    split: str = "default",
    images: Path | None = None,
    allow_shared_patients: bool = False,
) -> list[Question]:
    """Read labels, patients, roles and true boxes, and return a question for each finding.

    `images` is the folder of the image files of a truth.
    """
    if (data is None) == (truth is None):
        raise InputError("compare: give either a data set (data) or labels (truth)")
    if data is not None:
        given = {"boxes": boxes, "patients": patients, "columns": columns or None}
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{name}: is for a truth, and the data set has its own")
        if images is not None:
            raise InputError(f"images: {images} is for a truth; the data set has its own images")
        return _of_data(data, target, split)
    if split != "default":
        raise InputError(f"split: {split} is of a data set; name the roles in the truth")
    files = None if images is None else files_of_folder(images)
    options = {
        "patients": patients,
        "columns": dict(columns or {}),
        "allow_shared_patients": allow_shared_patients,
        "files": files,
    }
    questions = _of_truth(truth, boxes, target, options)
    if files is None:
        return questions
    from cxr_compare.evaluation.report.pixels import pixels_of_files

    return [replace(each, pixels=pixels_of_files(files)) for each in questions]


def _of_truth(
    truth: Any, boxes: Any, target: Sequence[str], options: dict[str, Any]
) -> list[Question]:
    """Return the questions of labels in a file, in a folder or in memory."""
    if isinstance(truth, str | os.PathLike):
        path = Path(truth)
        if path.is_dir():
            return _of_folder(path, boxes, target, options)
        if path.suffix.lower() == ".json":
            return _of_coco(path, boxes, target, options)
        options |= {"where": str(path), "files": options["files"] or files_beside(path)}
        return _of_table(truth_table(path), path, boxes, target, options)
    if isinstance(truth, pd.DataFrame):
        return _of_table(truth, truth, boxes, target, options)
    return _of_labels(truth, boxes, target, options)


def _of_labels(
    truth: Any, boxes: Any, target: Sequence[str], options: Mapping[str, Any]
) -> list[Question]:
    """Return the question of labels of one finding; a target names labels without a name."""
    read = read_truth(truth, boxes=boxes, **options)
    if len(target) == 1 and target[0] != "all" and not is_named(read.finding):
        read = replace(read, finding=finding_name(target[0]))
    for name in target:
        if finding_name(name) not in (read.finding, "all"):
            raise InputError(f"target: there is no '{name}'; the truth is of '{read.finding}'")
    return [Question(read)]


def _of_table(
    table: pd.DataFrame,
    given: Path | pd.DataFrame,
    boxes: Any,
    target: Sequence[str],
    options: dict[str, Any],
) -> list[Question]:
    """Return the questions of a table of labels, of names of findings, or of boxes alone.

    `given` is its file, or the frame itself.
    """
    columns = options["columns"]
    named = names_of_findings(table, columns.get("label"))
    if named is None or not _are_names(target, table, columns):
        findings = _finding_columns(table, target, columns)
        if findings:
            return _of_columns(table, boxes, findings, options)
    if named is None and not _is_of_boxes(table, columns):
        return _of_labels(table, boxes, target, options)
    if named is None and not _has_classes(table):
        return _of_unnamed_boxes(table, boxes, target, options)
    tables, order = read_table(given, boxes, columns)
    return _of_source(tables, target, options, order)


def _has_classes(table: pd.DataFrame) -> bool:
    """Return True for boxes of named classes, or of several numbers."""
    column = class_column(table)
    if column is None:
        return False
    kinds = set(texts_of(table[column].replace("", None).dropna()))
    return len(kinds) > 1 or any(map(names_finding, kinds))


def _of_unnamed_boxes(
    table: pd.DataFrame, boxes: Any, target: Sequence[str], options: Mapping[str, Any]
) -> list[Question]:
    """Return the question of a table of boxes that names no finding.

    A row without edges is an image without a lesion.
    """
    plain = table.set_axis([*map(str, table.columns)], axis=1)
    _, edges = form_of([*plain.columns])
    is_empty = plain[edges].replace("", None).isna().all(axis=1)
    labelled = plain.assign(label=(~is_empty).astype(float))
    (question,) = _of_labels(labelled, boxes, target, options)
    text = f"{counted(int(is_empty.sum()), 'row')} without a box: images without a lesion."
    notes = (*question.truth.notes, Note(text)) if is_empty.any() else question.truth.notes
    return [Question(replace(question.truth, notes=notes))]


def _of_folder(
    folder: Path, boxes: Any, target: Sequence[str], options: Mapping[str, Any]
) -> list[Question]:
    """Return the questions of a folder of YOLO's images and labels."""
    for name, value in {"boxes": boxes, "columns": options["columns"] or None}.items():
        if value is not None:
            raise InputError(f"{name}: is for a table of labels, and {folder} is a folder")
    return _of_source(read_folder(folder), target, options)


def _of_data(data: Any, wanted: Sequence[str], split: str) -> list[Question]:
    """Return the questions of a prepared data set."""
    if not isinstance(data, DataSet):
        require_folder(Path(data), "data set")
        data = DataSet.open(data)
    if "all" in wanted and "all" not in data.targets:
        targets = list(data.targets.values())
    elif wanted:
        targets = [data.target(name) for name in dict.fromkeys(wanted)]
    else:
        targets = [data.target(option="target, or all")]
    pixels = data.read_original if data.has_pixels else None
    return [Question(truth_of(data, each, split), data, each, split, pixels) for each in targets]


def _of_coco(
    path: Path, boxes: Any, wanted: Sequence[str], options: Mapping[str, Any]
) -> list[Question]:
    """Return the questions of a COCO annotation file, one for each wanted category."""
    if boxes is not None:
        raise InputError(f"boxes: {boxes}: {path} holds true boxes itself; leave boxes out")
    names = _wanted(path, wanted, coco_findings(path))
    return [Question(read_truth(path, label=name, **options)) for name in names]


def _of_source(
    read: SourceTables, wanted: Sequence[str], options: Mapping[str, Any], order: Any = None
) -> list[Question]:
    """Return the questions of labels that `cxr prepare` reads, one for each wanted finding."""
    names = _wanted(read.root, wanted, list(read.targets))
    others = {name: value for name, value in options.items() if name not in ("columns", "where")}
    return [
        Question(truth_of_source(read, read.targets[name], order=order, **others)) for name in names
    ]


def _wanted(path: Path, wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the wanted findings of a file or folder; the only one if none is named."""
    names = [finding_name(name) for name in wanted] or list(known[:1])
    if "all" in wanted and "all" not in known:
        names = list(known)
    elif not wanted and len(known) > 1:
        raise InputError(f"target: {path} has the findings {', '.join(known)}; name one, or all")
    for name in names:
        if name not in known:
            near = nearest_name(name, known, f"it has {', '.join(known)}")
            raise InputError(f"target: {path} has no '{name}'; {near}")
    return names


def _are_names(target: Sequence[str], truth: pd.DataFrame, columns: Mapping[str, str]) -> bool:
    """Return True if findings are names in a column, and False if they are columns of labels."""
    if "label" in columns:
        return True
    wanted = [finding_name(name) for name in target if name != "all"]
    if wanted:
        return not set(wanted) <= {finding_name(str(column)) for column in truth.columns}
    return not _label_columns(truth, columns)


def _is_of_boxes(truth: pd.DataFrame, columns: Mapping[str, str]) -> bool:
    """Return True for a table of boxes without a column of labels."""
    header = [*map(str, truth.columns)]
    form, edges = form_of(header)
    others = [name for name in header if name not in edges]  # y is an edge here, and no label
    return bool(form) and "label" not in columns and find_column(others, LABELS) is None


def _of_columns(
    truth: pd.DataFrame, boxes: Any, columns: Mapping[str, Any], options: Mapping[str, Any]
) -> list[Question]:
    """Return the questions of a table with a column of labels for each finding."""
    header = [*map(str, truth.columns)]
    if find_column(header, image_names(header)) is None and not isinstance(
        truth.index, pd.RangeIndex
    ):
        truth = truth.rename_axis("image_id").reset_index()
    questions = []
    for name, column in columns.items():
        others = [other for other in columns.values() if other != column]
        labels = truth.drop(columns=others).rename(columns={column: name})
        own = boxes if len(columns) == 1 else _boxes_of(boxes, name, list(columns))
        questions.append(Question(read_truth(labels, boxes=own, label=name, **options)))
    return questions


def _boxes_of(boxes: Any, finding: str, findings: Sequence[str]) -> Any:
    """Return the true boxes of one finding; a box of none that is compared is refused."""
    if isinstance(boxes, str | os.PathLike):
        boxes = read_text_table(Path(boxes), ())
    if not isinstance(boxes, pd.DataFrame):
        return boxes
    column = class_column(boxes)
    if column is None:
        raise InputError(
            f"boxes: no column says of which of the findings {', '.join(findings)} a box is; add a "
            "column 'finding'"
        )
    named = boxes[column].map(lambda text: finding_name(str(text)))
    unknown = sorted(set(named) - set(findings))
    if unknown:
        raise InputError(
            f"boxes: '{unknown[0]}' is none of the findings {', '.join(findings)}; leave its rows "
            "out"
        )
    return boxes[named == finding].drop(columns=column)


def _finding_columns(
    truth: pd.DataFrame, target: Sequence[str], given: Mapping[str, str]
) -> dict[str, Any]:
    """Return the columns of several findings by name; empty for a truth of one finding."""
    columns = {finding_name(str(column)): column for column in truth.columns}
    header = [str(column) for column in truth.columns]
    has_label = "label" in given or find_column(header, LABELS) is not None
    if has_label and not target:
        return {}
    wanted = [finding_name(name) for name in target if name != "all"]
    if not wanted:
        wanted = _label_columns(truth, given)
    unknown = [name for name in wanted if name not in columns]
    if has_label and (unknown or len(wanted) == 1):
        return {}
    if unknown:
        near = nearest_name(unknown[0], list(columns), f"it has {', '.join(columns)}")
        raise InputError(f"target: truth has no column '{unknown[0]}'; {near}")
    if not wanted:
        return {}
    if not target and len(wanted) > 1:
        raise InputError(
            f"truth: no column 'label', and {', '.join(wanted)} may be findings; give target: all "
            "if each is one, or the names of those that are"
        )
    return {name: columns[name] for name in wanted}


def _label_columns(truth: pd.DataFrame, given: Mapping[str, str]) -> list[str]:
    """Return the names of the findings whose columns hold labels, beside those of other roles."""
    header = [str(column) for column in truth.columns]
    form, edges = form_of(header)
    others = {find_column(header, image_names(header)), *given.values()}
    if form:
        others |= {class_column(truth), *edges}
    return [
        finding_name(str(column))
        for position, column in enumerate(truth.columns)
        if str(column) not in others
        and not describes_images(str(column))
        and holds_states(truth.iloc[:, position].dropna().astype(str))
    ]
