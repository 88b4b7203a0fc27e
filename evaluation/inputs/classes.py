"""Classes of which each image has exactly one: their truths, and scores or called classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, Remedy
from cxr_compare.data_prep.base.names import Target, finding_name
from cxr_compare.data_prep.base.user_tables import cell_texts
from cxr_compare.data_prep.classes import reference_name
from cxr_compare.data_prep.sources.words import are_class_numbers, normal_classes
from cxr_compare.evaluation.inputs.frames import (
    flat_array,
    ids_of_series,
    image_column,
    predicted_table,
    scores_of_findings,
)
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.statistics.arrays import as_array
from cxr_compare.evaluation.truth import Truth, no_boxes

NO_FINDING = "no_finding"
"""Class of the images that show none of the findings."""
EXCLUSIVE, TOGETHER = "exclusive", "together"
_OFFERED = 3  # findings, in a message
_WAYS = [
    Remedy("each image is of exactly one", {"columns": {"classes": EXCLUSIVE}}),
    Remedy("an image may have several", {"columns": {"classes": TOGETHER}}),
]


def numbers_of_classes(values: Any) -> Any:
    """Return the number of the class of each image; None for labels of another kind.

    Classes are three or more, numbered from 0 or 1 on without a gap; or each image has a row of an
    array, with one 1 among zeros.
    """
    try:
        array = as_array(values)
    except (TypeError, ValueError):  # whatever it is, its reader refuses it
        return None
    if isinstance(values, pd.DataFrame) or array.dtype.kind not in "biuf" or not array.size:
        return None
    if array.ndim == 2 and array.shape[1] > 2:
        is_one_hot = np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()
        return array.argmax(axis=1) if is_one_hot else None
    numbers = array[~np.isnan(array.astype(np.float64))].ravel().tolist()
    return values if array.ndim == 1 and are_class_numbers(numbers) else None


def numbered_targets(numbers: pd.Series) -> dict[str, Target]:
    """Return a target for each number of a class, with it as its name."""
    names = [f"{number:.0f}" for number in sorted(numbers.dropna().unique())]
    return {name: Target(name, (name,), f"class {name}") for name in names}


def truths_of_all(
    truths: Sequence[Truth],
    targets: Mapping[str, Target],
    answer: str,
    where: str,
    reading: pd.DataFrame | None = None,
) -> list[Truth]:
    """Return the truths, as `exclusive_truths` if they are of classes of which each image has one.

    `targets` are all that the labels have. `answer` is ``exclusive``, ``together``, or empty where
    nobody said it: InputError asks if each image has a label, or a cell of no finding, of its own
    by the record of what was read (`reading`), and none is of two of three classes or more.
    """
    is_all = {truth.finding for truth in truths} == {*targets} and len(truths) > 1
    if answer == EXCLUSIVE:
        if not is_all:
            raise InputError(
                f"classes: {where} has the classes {', '.join(targets)}, which exclude each other "
                "only all together; leave target out"
            )
        return exclusive_truths(truths, reading)
    are_named = reading is not None and (reading["fact"] == "label_of_each_image").any()
    if answer or not is_all or not are_named:
        return [*truths]
    labels = _labels_of(truths).dropna(how="all")
    is_one = labels.sum(axis=1) == 1
    names = [*labels] if is_one.all() else [NO_FINDING, *labels]
    if len(names) > 2 and labels.notna().all(axis=None) and (labels.sum(axis=1) < 2).all():
        raise InputError(
            f"{where}: each image is of one of the classes {', '.join(names)}: do they exclude "
            "each other?",
            [
                *_WAYS,
                *(
                    Remedy(f"{name} alone is asked about", {"target": name}, verb="write")
                    for name in [*labels][:_OFFERED]
                ),
            ],
        )
    return [*truths]


def exclusive_truths(truths: Sequence[Truth], reading: pd.DataFrame | None = None) -> list[Truth]:
    """Return the truths of findings that exclude each other, with that of no finding first.

    An image that has one of the findings has none of the others. InputError if it has two. No
    finding has the name of the labels, by the record of what was read (`reading`).
    """
    labels = _labels_of(truths)
    several = labels.index[labels.sum(axis=1) > 1]
    if len(several):
        both = labels.columns[labels.loc[several[0]] == 1]
        raise InputError(
            f"classes: image '{several[0]}' is of {' and '.join(both)}, so they do not exclude "
            "each other; leave classes out, or correct it"
        )
    is_one = labels.sum(axis=1) == 1
    is_none = ~is_one & labels.notna().all(axis=1)
    labels = (labels == 1).astype(np.float64).where(is_one | is_none)
    names = [NO_FINDING, *labels] if is_none.any() else [*labels]
    exclusive = [
        replace(
            truth,
            images=truth.images.assign(label=labels[truth.finding]),
            classes=tuple(names),
        )
        for truth in truths
    ]
    if not is_none.any():
        return exclusive
    rest = replace(
        exclusive[0],
        images=exclusive[0].images.assign(label=1.0 - labels.max(axis=1, skipna=False)),
        boxes=no_boxes(),
        boxed=exclusive[0].boxed[:0],
        finding=NO_FINDING,
        title="No finding" if reading is None else reference_name(reading),
    )
    return [rest, *exclusive]


def _labels_of(truths: Sequence[Truth]) -> pd.DataFrame:
    """Return the label of each image, with a column for each finding."""
    return pd.DataFrame({truth.finding: truth.images["label"] for truth in truths})


def read_classes(value: Any, truth: Truth, where: str) -> tuple[Any, bool]:
    """Return a frame with a column for each class, of an array or of called classes.

    True is returned beside called classes, which have 1 in the column of the called one. All else
    is returned as it is: its reader finds the columns by their names.
    """
    classes, order = truth.classes, truth.order
    if isinstance(value, pd.DataFrame):
        return _frame_of_classes(value, classes, where)
    is_array = hasattr(value, "__len__") and not isinstance(value, str | list | dict)
    if not is_array or order is None:
        return value, False
    array = as_array(value)
    if array.ndim == 2 and array.shape[1] > 1:
        if array.shape != (len(order), len(classes)) or not classes[0].isdigit():
            ordered = "" if classes[0].isdigit() else ", whose order in an array is not known"
            raise InputError(
                f"{where}: has the shape {array.shape}, and truth {len(order)} images of the "
                f"classes {', '.join(classes)}{ordered}; give a frame with a column of scores for "
                "each"
            )
        return pd.DataFrame(array, columns=[*classes]).assign(image_id=order.to_numpy()), False
    ids = ids_of_series(value, order, where) if isinstance(value, pd.Series) else order.tolist()
    flat = flat_array(value, where)
    if len(flat) != len(ids):
        raise InputError(f"{where}: has the shape {flat.shape}, and truth {(len(ids),)}")
    frame_of_calls = pd.DataFrame({"image_id": ids, "called": flat})
    frame, is_called = _frame_of_classes(frame_of_calls, classes, where)
    if not is_called:
        raise InputError(
            f"{where}: truth has the classes {', '.join(classes)}; give a frame with a column of "
            "scores for each, or the called class of each image"
        )
    return frame, True


def _frame_of_classes(
    frame: pd.DataFrame, classes: Sequence[str], where: str
) -> tuple[pd.DataFrame, bool]:
    """Return a frame whose column of no finding has its name, or with 1 for a called class."""
    table = predicted_table(frame, {}, where)
    if table.box_form is not None or not len(frame):
        return frame, False
    if NO_FINDING in classes:
        of_none = scores_of_findings([*frame.columns], [*normal_classes()])
        if len(of_none) == 1:
            frame = frame.rename(columns=dict.fromkeys(of_none.values(), NO_FINDING))
    if scores_of_findings([*frame.columns], classes):
        return frame, False
    images = image_column(frame, {})
    names = {column: _class_names(frame[column]) for column in frame if column != images}
    called = [column for column, cells in names.items() if cells.isin(classes).all()]
    if len(called) != 1:
        return frame, False
    of_class = {name: 1.0 * (names[called[0]] == name) for name in classes}
    return frame.drop(columns=called).assign(**of_class), True


def _class_names(cells: pd.Series) -> pd.Series:
    names = cell_texts(cells).map(finding_name)
    return names.mask(names.isin(normal_classes()), NO_FINDING)


def output_of_none(outputs: Sequence[Output]) -> Output:
    """Return the output for no finding of a softmax of all others: 1 minus their sum."""
    scores = pd.concat([output.scores for output in outputs], axis=1)
    none = (1.0 - scores.sum(axis=1, skipna=False)).clip(0.0, 1.0)
    return Output(none, record=outputs[0].record, notes=outputs[0].notes)
