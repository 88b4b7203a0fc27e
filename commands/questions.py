"""The questions of `cxr compare`: labels, boxes and pixels of the images, for each finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_compare.commands.options import AnyPath
from cxr_compare.data_prep.base.errors import InputError, as_typed, require_extra
from cxr_compare.data_prep.base.names import Target
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.evaluation.inputs.classes import EXCLUSIVE, NO_FINDING, truths_of_all
from cxr_compare.evaluation.inputs.folders import truth_of
from cxr_compare.evaluation.inputs.image_sizes import files_of_folder
from cxr_compare.evaluation.inputs.read_truth import read_truths
from cxr_compare.evaluation.truth import Truth

if TYPE_CHECKING:
    import pandas as pd

    from cxr_compare.evaluation.report.cases import Pixels


@dataclass(frozen=True, eq=False)
class Question:
    """One finding: its truth, and where its images come from.

    Attributes:
        dataset: Prepared data set; None for a truth of values or files.
        target: Target of the data set; None without one.
        split: Name of its split.
        pixels: Function from an image id to its pixels; None without image files.
        readings: Boxes of single readers of a data set; None for a truth.
        others: Questions on the other classes, of one on the images of no finding.
    """

    truth: Truth
    dataset: DataSet | None = None
    target: Target | None = None
    split: str = "default"
    pixels: Pixels | None = None
    readings: pd.DataFrame | None = None
    others: tuple[Question, ...] = ()


def read_questions(
    data: Any,
    truth: Any,
    *,
    boxes: Any = None,
    patients: Any = None,
    columns: Mapping[str, str] | None = None,
    target: Sequence[str] = (),
    split: str | None = None,
    images: AnyPath | None = None,
    allow_shared_patients: bool = False,
) -> list[Question]:
    """Read labels, patients, roles and true boxes, and return a question for each finding.

    `images` is the folder of the image files of a truth.
    """
    if (data is None) == (truth is None):
        raise InputError("compare: give either a data set (data) or labels (truth)")
    if data is not None:
        stated = dict(columns or {})
        classes = stated.pop("classes", "")
        truth_options = {"boxes": boxes, "patients": patients, "columns": stated or None}
        for name, value in truth_options.items():
            if value is not None:
                raise InputError(f"{name}: is for a truth, and the data set has its own")
        if images is not None:
            given = as_typed({"images": str(images)})
            raise InputError(f"{given}: is for a truth; the data set has its own images")
        return _with_others(_of_data(data, target, split or "default", classes))
    if split not in (None, "default"):
        given = as_typed({"split": split})
        raise InputError(f"{given}: is of a data set; name the roles in the truth")
    if images is not None:
        require_extra(f"images: {images}", "images")
    files = None if images is None else files_of_folder(Path(images))
    truths = read_truths(
        truth,
        boxes=boxes,
        patients=patients,
        columns=columns,
        target=target,
        allow_shared_patients=allow_shared_patients,
        files=files,
    )
    pixels = None
    if files is not None:
        from cxr_compare.evaluation.report.pixels import pixels_of_files

        pixels = pixels_of_files(files)
    return _with_others([Question(one_truth, pixels=pixels) for one_truth in truths])


def _with_others(questions: list[Question]) -> list[Question]:
    """Return the questions, that on the images of no finding with all others."""
    one, *others = questions
    is_none = one.truth.finding == NO_FINDING and len(one.truth.classes) > 1
    return [replace(one, others=tuple(others)), *others] if is_none else questions


def with_numbered_patients(questions: Sequence[Question]) -> list[Question]:
    """Return the questions with a number in place of the name of each patient, in their order.

    A report needs to know whose images are whose, and no more. All numbers have as many digits, so
    that they sort as the names do. Those of a data set are the same for every split.
    """
    owners = [question.truth.owners for question in questions]
    of_data = [question.dataset.images["patient_id"] for question in questions if question.dataset]
    names = np.unique(np.concatenate([*owners, *of_data]).astype(str))
    digits = len(str(len(names)))
    numbers = np.array([f"{number:0{digits}d}" for number in range(1, len(names) + 1)], object)
    return [
        replace(
            question,
            truth=replace(
                question.truth,
                images=question.truth.images.assign(
                    patient_id=numbers[np.searchsorted(names, patients)]
                ),
            ),
        )
        for question, patients in zip(questions, owners, strict=True)
    ]


def _of_data(data: Any, names: Sequence[str], split: str, classes: str) -> list[Question]:
    """Return the questions of a prepared data set; folders of classes exclude each other."""
    data = data if isinstance(data, DataSet) else DataSet.open(data)
    if "all" not in data.targets and ("all" in names or (classes and not names)):
        targets = list(data.targets.values())
    elif names:
        targets = [data.target(name) for name in dict.fromkeys(names)]
    else:
        targets = [data.target(others=["all"])]
    all_targets = data.targets
    if classes == EXCLUSIVE or (not classes and data.has_class_folders):
        with suppress(InputError):  # findings that may occur together
            exclusive = {*data.classes()[0].any_of}  # and none that joins others
            chosen = [target for target in targets if target.any_of == (target.name,)]
            if len(exclusive) > 1 and {target.name for target in chosen} >= exclusive:
                targets = [target for target in chosen if target.name in exclusive]
                all_targets, classes = {target.name: target for target in targets}, EXCLUSIVE
    truths = [truth_of(data, one_target, split) for one_target in targets]
    all_truths = truths_of_all(truths, all_targets, classes, str(data.folder), data.reading)
    pixels = data.read_original if data.has_pixels else None
    if pixels is not None:
        from cxr_compare.evaluation.report.pixels import readings_of
    return [
        Question(
            truth,
            data,
            target := data.targets.get(truth.finding),
            split,
            pixels,
            readings_of(data, target.any_of) if pixels and target else None,
        )
        for truth in all_truths
    ]
