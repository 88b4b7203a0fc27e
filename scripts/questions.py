"""The questions of `cxr compare`: labels, boxes and pixels of the images, for each finding."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, nearest_name
from cxr_compare.data_prep.base.folders import require_folder
from cxr_compare.data_prep.base.names import (
    Target,
    class_column,
    find_column,
    finding_name,
    image_names,
)
from cxr_compare.data_prep.base.user_tables import read_text_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.evaluation.inputs.coco_truth import coco_findings
from cxr_compare.evaluation.inputs.folders import truth_of
from cxr_compare.evaluation.inputs.read_truth import (
    LABELS,
    describes_images,
    read_truth,
    truth_table,
)
from cxr_compare.evaluation.report.cases import Pixels
from cxr_compare.evaluation.truth import Truth

_LABEL_NUMBERS = {0.0, 1.0, -1.0}


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
    allow_shared_patients: bool = False,
) -> list[Question]:
    """Read labels, patients, roles and true boxes, and return a question for each finding."""
    if (data is None) == (truth is None):
        raise InputError("compare: give either a data set (data) or labels (truth)")
    if data is not None:
        given = {"boxes": boxes, "patients": patients, "columns": columns or None}
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{name}: is for a truth, and the data set has its own")
        return _of_data(data, target, split)
    if split != "default":
        raise InputError(f"split: {split} is of a data set; name the roles in the truth")
    options = {
        "patients": patients,
        "columns": dict(columns or {}),
        "allow_shared_patients": allow_shared_patients,
    }
    if isinstance(truth, str | os.PathLike):
        truth = Path(truth)
        if truth.suffix.lower() == ".json":
            return _of_coco(truth, boxes, target, options)
        options["where"] = str(truth)
        truth = truth_table(truth)
    if isinstance(truth, pd.DataFrame):
        findings = _finding_columns(truth, target, options["columns"])
        if findings:
            return _of_columns(truth, boxes, findings, options)
    read = read_truth(truth, boxes=boxes, **options)
    for name in target:
        if finding_name(name) not in (read.finding, "all"):
            raise InputError(f"target: there is no '{name}'; the truth is of '{read.finding}'")
    return [Question(read)]


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
    known = coco_findings(path)
    names = [finding_name(name) for name in wanted] or known[:1]
    if "all" in wanted and "all" not in known:
        names = known
    elif not wanted and len(known) > 1:
        raise InputError(f"target: {path} has the findings {', '.join(known)}; name one, or all")
    for name in names:
        if name not in known:
            near = nearest_name(name, known, f"it has {', '.join(known)}")
            raise InputError(f"target: {path} has no '{name}'; {near}")
    return [Question(read_truth(path, label=name, **options)) for name in names]


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
        images = {find_column(header, image_names(header)), *given.values()}
        wanted = [
            name
            for name, column in columns.items()
            if str(column) not in images
            and not describes_images(str(column))
            and _holds_labels(truth[column])
        ]
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


def _holds_labels(values: pd.Series) -> bool:
    values = values.replace("", None)
    numbers = pd.to_numeric(values, errors="coerce")
    known = set(numbers.dropna().astype(float))
    return bool(known) and known <= _LABEL_NUMBERS and bool((numbers.notna() | values.isna()).all())
