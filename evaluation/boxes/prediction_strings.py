"""Submission files of Kaggle's challenges, which hold all boxes of an image in one cell.

RSNA Pneumonia Detection Challenge 2018 (``patientId,PredictionString``): confidence, x, y, width
and height of each box. VinBigData 2021 (``image_id,PredictionString``): class, confidence and the
corners x1, y1, x2, y2; class 14 is "No finding". An empty cell says that nothing was found.

Source:
    https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/overview/evaluation and
    https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection/overview/evaluation
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_readings import BoxForm
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.column_names import column_names, find_column
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.evaluation.boxes.read_table import ColumnNames, ReadTable

_VINBIGDATA_CLASSES = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
)
_NO_FINDING = 14


class _Form(NamedTuple):
    """Numbers of each box in a cell."""

    image_column: str  # as the challenge names it
    numbers: tuple[str, ...]  # the last four are the box
    box_form: BoxForm


_RSNA = _Form("patientId", ("confidence", "x", "y", "width", "height"), "xywh")
_VINBIGDATA = _Form("image_id", ("class", "confidence", "x1", "y1", "x2", "y2"), "xyxy")


def string_columns(header: Sequence[str], image: str) -> tuple[str, str] | None:
    """Return the columns of image ids and of prediction strings; None in any other table.

    `image` is the name of the column of image ids, if the table has it.
    """
    strings = find_column(header, ("predictionstring",))
    images = image if image in header else find_column(header, (*column_names("file"), "patientid"))
    return None if strings is None or images is None else (images, strings)


def read_prediction_strings(
    table: pd.DataFrame,
    columns: tuple[str, str],
    names: ColumnNames,
    where: str,
    class_names: Mapping[int, str] | None = None,
) -> ReadTable:
    """Read the boxes of a submission file, which lists all images that were run.

    The table has one row for each image, and its index numbers the rows in messages. An image with
    two rows, or a cell that holds no whole boxes of numbers, raises InputError. Without
    `class_names`, the class numbers are those of VinBigData.
    """
    image_column, string_column = columns
    images = table[image_column].astype(str).tolist()
    strings = table[string_column]
    cells = [[] if pd.isna(cell) else str(cell).split() for cell in strings]
    form = _form_of(image_column, cells)
    seen: dict[str, str] = {}
    boxes: list[tuple[Any, ...]] = []
    for image, label, cell in zip(images, table.index, cells, strict=True):
        place = f"row {label}"
        if image in seen:
            raise InputError(
                f"{where}: {place}: image '{image}' has a row already ({seen[image]}); write all "
                "its boxes into one"
            )
        seen[image] = place
        numbers = _numbers(cell, form, f"{where}: {place}, image '{image}'")
        boxes += [(image, place, *box) for box in numbers.tolist()]
    meanings = ["image_id", "place", *form.numbers]
    rows = pd.DataFrame(boxes, columns=meanings).rename(columns={"confidence": "score"})
    rows = rows.astype({"image_id": TEXT, "place": TEXT, "score": np.float64})
    read = ReadTable(rows, table, listed=images, ran=images, where=where)
    read.notes = [f"{string_column} is read as {' '.join(form.numbers)} of each box."]
    if form is _VINBIGDATA:
        rows, note = _with_findings(rows, class_names, where)
        read.notes += note
    values = rows[list(form.numbers[-4:])].to_numpy(np.float64)
    rows[EDGES], read.reading = names.corners(values, form.box_form, stated=True)
    kept = ["image_id", *EDGES, "score", *(["finding"] if "finding" in rows else []), "place"]
    read.rows = rows[kept].reset_index(drop=True)
    return read


def _form_of(image_column: str, cells: Sequence[Sequence[str]]) -> _Form:
    """Return the form whose number of values fits all cells, else the form of the column's name."""
    forms = [_RSNA, _VINBIGDATA]
    if find_column([image_column], (_VINBIGDATA.image_column,)):
        forms.reverse()
    fitting = (form for form in forms if all(len(cell) % len(form.numbers) == 0 for cell in cells))
    return next(fitting, forms[0])


def _numbers(cell: Sequence[str], form: _Form, where: str) -> np.ndarray:
    """Return the numbers of a cell, one row for each box."""
    expected = f"{len(form.numbers)} are expected for each box: {' '.join(form.numbers)}"
    if len(cell) % len(form.numbers):
        raise InputError(f"{where}: {counted(len(cell), 'number')} in the cell; {expected}")
    try:
        values = [float(number) for number in cell]
    except ValueError:
        raise InputError(f"{where}: not all of the cell are numbers; {expected}") from None
    if not all(map(math.isfinite, values)):
        raise InputError(f"{where}: a number is missing or infinite; {expected}")
    numbers = np.reshape(values, (-1, len(form.numbers)))
    if form is _VINBIGDATA and ((numbers[:, 0] % 1 != 0) | (numbers[:, 0] < 0)).any():
        raise InputError(f"{where}: the first number of a box is no class number; {expected}")
    return numbers


def _with_findings(
    rows: pd.DataFrame, class_names: Mapping[int, str] | None, where: str
) -> tuple[pd.DataFrame, list[str]]:
    """Name the findings of class numbers, and leave out the class that means 'no finding'."""
    names = dict(enumerate(_VINBIGDATA_CLASSES)) if class_names is None else dict(class_names)
    is_nothing = (rows["class"] == _NO_FINDING).to_numpy(bool) & (_NO_FINDING not in names)
    notes = []
    if is_nothing.any():
        notes.append(
            f"{counted(int(is_nothing.sum()), 'box', 'are')} of class {_NO_FINDING} (No finding) "
            "and left out."
        )
    rows = rows[~is_nothing]
    findings = rows["class"].map(names)
    if findings.isna().any():
        first = rows[findings.isna()].iloc[0]
        raise InputError(
            f"{where}: {first['place']}, image '{first['image_id']}': class {first['class']:g} has "
            f"no name; {len(names)} classes are named"
        )
    return rows.assign(finding=findings.astype(TEXT)), notes
