"""The questions of `cxr compare`: labels, boxes and pixels of the images, for each finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_compare.data_prep.base.errors import InputError, require_extra
from cxr_compare.data_prep.base.names import Target
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.evaluation.inputs.folders import truth_of
from cxr_compare.evaluation.inputs.image_sizes import files_of_folder
from cxr_compare.evaluation.inputs.read_truth import read_truths
from cxr_compare.evaluation.truth import Truth
from cxr_compare.scripts.options import AnyPath

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
    """

    truth: Truth
    dataset: DataSet | None = None
    target: Target | None = None
    split: str = "default"
    pixels: Pixels | None = None
    readings: pd.DataFrame | None = None


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
        given = {"boxes": boxes, "patients": patients, "columns": columns or None}
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{name}: is for a truth, and the data set has its own")
        if images is not None:
            raise InputError(f"images: {images} is for a truth; the data set has its own images")
        return _of_data(data, target, split or "default")
    if split not in (None, "default"):
        raise InputError(f"split: {split} is of a data set; name the roles in the truth")
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
    if files is None:
        return [Question(each) for each in truths]
    from cxr_compare.evaluation.report.pixels import pixels_of_files

    return [Question(each, pixels=pixels_of_files(files)) for each in truths]


def with_numbered_patients(questions: Sequence[Question]) -> list[Question]:
    """Return the questions with a number in place of the name of each patient, in their order.

    A report needs to know whose images are whose, and no more. All numbers have as many digits, so
    that they sort as the names do. Those of a data set are the same for every split.
    """
    owners = [each.truth.owners for each in questions]
    of_data = [each.dataset.images["patient_id"] for each in questions if each.dataset]
    names = np.unique(np.concatenate([*owners, *of_data]).astype(str))
    digits = len(str(len(names)))
    numbers = np.array([f"{number:0{digits}d}" for number in range(1, len(names) + 1)], object)
    return [
        replace(
            each,
            truth=replace(
                each.truth,
                images=each.truth.images.assign(patient_id=numbers[np.searchsorted(names, own)]),
            ),
        )
        for each, own in zip(questions, owners, strict=True)
    ]


def _of_data(data: Any, wanted: Sequence[str], split: str) -> list[Question]:
    """Return the questions of a prepared data set."""
    data = data if isinstance(data, DataSet) else DataSet.open(data)
    if "all" in wanted and "all" not in data.targets:
        targets = list(data.targets.values())
    elif wanted:
        targets = [data.target(name) for name in dict.fromkeys(wanted)]
    else:
        targets = [data.target(others=["all"])]
    pixels = data.read_original if data.has_pixels else None
    if pixels is None:
        return [Question(truth_of(data, each, split), data, each, split) for each in targets]
    from cxr_compare.evaluation.report.pixels import readings_of

    return [
        Question(
            truth_of(data, each, split), data, each, split, pixels, readings_of(data, each.any_of)
        )
        for each in targets
    ]
