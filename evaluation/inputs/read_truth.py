"""Truth of findings from arrays, frames, tables and folders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.names import Target, finding_name, is_named
from cxr_compare.data_prep.sources.table_images import ids_of_names
from cxr_compare.evaluation.inputs.classes import (
    EXCLUSIVE,
    numbered_targets,
    numbers_of_classes,
    truths_of_all,
)
from cxr_compare.evaluation.inputs.files import are_outputs
from cxr_compare.evaluation.inputs.frames import flat_array, is_unnamed
from cxr_compare.evaluation.inputs.image_sizes import ImageFiles, files_beside, with_files
from cxr_compare.evaluation.inputs.patients import set_patients
from cxr_compare.evaluation.inputs.source_truth import (
    numbered,
    read_labels,
    truth_of_labels,
    wanted_targets,
)
from cxr_compare.evaluation.statistics.arrays import as_array
from cxr_compare.evaluation.truth import UNNAMED, Truth


def read_truth(truth: Any, **options: Any) -> Truth:
    """Return the truth of labels of one finding; the options are those of `read_truths`."""
    (only,) = read_truths(truth, has_classes=False, **options)
    return only


def read_truths(
    truth: Any,
    *,
    boxes: Any = None,
    patients: Any = None,
    columns: Mapping[str, str] | None = None,
    target: Sequence[str] = (),
    allow_shared_patients: bool = False,
    files: ImageFiles | None = None,
    has_classes: bool = True,
) -> list[Truth]:
    """Return the truth of each wanted finding in an array, a Series, a frame, a file or a folder.

    A frame with a row for each box holds labels and boxes. Labels are 1 and 0, words of yes and no,
    or missing; -1 beside both is unknown. InputError for what is not understood, with its row.

    Args:
        truth: Labels, with what else is known of each image.
        boxes: True boxes; without them only figures of whole images are computed.
        patients: Patient of each image, in their order or by image id.
        columns: Names of columns by role (image, label, state, negated, patient, study, role), and
            how true boxes are written (box_form, box_unit); ``classes`` is exclusive if each image
            is of exactly one of all findings, and else together.
        target: Wanted findings; the only one if none is named.
        allow_shared_patients: True to note, and not refuse, patients of test images in other roles.
        files: Image files, for sizes that the truth does not state; None takes those beside a file.
        has_classes: False if three numbers or more are no classes that exclude each other.
    """
    columns = dict(columns or {})
    classes = columns.pop("classes", "")
    people = {"patients": patients, "allow_shared_patients": allow_shared_patients}
    if isinstance(truth, str | os.PathLike):
        truth = Path(truth)
        files = files or (None if truth.is_dir() else files_beside(truth))
    elif not isinstance(truth, pd.DataFrame):
        if are_outputs(truth):
            boxes = truth if boxes is None else boxes
            truth = np.array([len(as_array(output["boxes"])) > 0 for output in truth], dtype=float)
        numbered = numbers_of_classes(truth) if has_classes and boxes is None else None
        if numbered is not None:
            return _truths_of_classes(*_by_image(numbered), target, **people)
        values, order = _by_image(truth)
        name = truth.name if isinstance(truth, pd.Series) and isinstance(truth.name, str) else ""
        numbers = _as_numbers(values) if boxes is None else None
        if numbers is not None:
            finding = finding_name(name) or UNNAMED
            (one,) = wanted_targets({finding: Target.of(finding, [finding])}, target, "truth")
            truth_of_array = _truth_of_numbers(numbers, order, one, **people)
            return [with_files(truth_of_array, files)]
        columns["label"] = name or "label"
        truth = pd.DataFrame({"image_id": values.index, columns["label"]: values.to_numpy()})
        truth.index = order.index
    asked = {"numbers_classes": classes == EXCLUSIVE, "knows_patients": patients is not None}
    labels = read_labels(truth, boxes, columns, target=target, files=files, **asked)
    targets = labels.tables.targets
    is_open = not target and labels.named not in targets and all(map(is_named, targets))
    target_wanted = ["all"] if is_open else target
    chosen = wanted_targets(targets, target_wanted, labels.where, labels.named)
    truths = [truth_of_labels(labels, one_target, files=files, **people) for one_target in chosen]
    all_truths = truths_of_all(truths, targets, classes, labels.where, labels.tables.read)
    if is_open and not classes:  # or else refuses several
        wanted_targets(targets, target, labels.where)
    return all_truths


def _truths_of_classes(
    numbers: pd.Series, order: pd.Series, targets_wanted: Sequence[str], **people: Any
) -> list[Truth]:
    """Return the truth of each class, of the number of the class of each image."""
    targets = numbered_targets(numbers)
    truths = [
        _truth_of_numbers(
            (numbers == float(one_target.name)).astype(np.float64).where(numbers.notna()),
            order,
            one_target,
            **people,
        )
        for one_target in wanted_targets(targets, targets_wanted or ["all"], "truth")
    ]
    return truths_of_all(truths, targets, EXCLUSIVE if len(truths) > 1 else "", "truth")


def _by_image(truth: Any) -> tuple[pd.Series, pd.Series]:
    """Return labels in memory by image id, and the ids by the index of the user.

    Images are numbered if the index names none.
    """
    if isinstance(truth, pd.Series) and truth.index.nlevels > 1:
        raise InputError("truth: its index has several levels; give one of image ids")
    array = flat_array(truth, "truth")
    ids = index = pd.Index(numbered(len(array)))
    if isinstance(truth, pd.Series):
        index = truth.index
        ids = ids if is_unnamed(index) else index.astype(str).where(index.notna(), None)
    return pd.Series(array, ids), pd.Series(ids, index)


def _as_numbers(values: pd.Series) -> pd.Series | None:
    """Return labels as float64, NaN where one is missing; None if one is no number."""
    if values.dtype.kind not in "biuf":
        try:
            values = pd.to_numeric(values.where(values.notna(), np.nan))
        except (TypeError, ValueError):
            return None
    return values.astype(np.float64)


def _truth_of_numbers(
    numbers: pd.Series,
    order: pd.Series,
    target: Target,
    *,
    patients: Any,
    allow_shared_patients: bool,
) -> Truth:
    """Return the truth of labels 1, 0, NaN, or -1 beside both, which is uncertain."""
    names = numbers.index
    if not len(names):
        raise InputError("truth: has no row")
    if names.hasnans:
        raise InputError(f"truth: row {names.isna().argmax()}: image_id is missing; fill it in")
    if not names.is_unique:
        twice = names[names.duplicated()][0]
        raise InputError(f"truth: image '{twice}' appears more than once; keep one row")
    allowed = (
        {1.0, 0.0, -1.0} if numbers.isin([0.0]).any() and numbers.isin([1.0]).any() else {1, 0}
    )
    wrong = ~(numbers.isin(allowed) | numbers.isna()).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"truth: row {row}, image '{names[row]}': label={numbers.iloc[row]:g}; write 1, 0 or "
            f"nothing ({int(wrong.sum())} are not)"
        )
    ids = pd.Index(ids_of_names(pd.Series(names)), dtype=object, name="image_id")
    order = pd.Series(ids, order.index)
    images = pd.DataFrame({"label": numbers.where(numbers >= 0).to_numpy(), "role": "test"}, ids)
    notes = set_patients(images, patients, order, "truth", allowed=allow_shared_patients)
    return Truth(
        images.sort_index(),
        finding=target.name if is_named(target.name) else UNNAMED,
        title=target.display_name,
        notes=notes,
        order=order,
    )
