"""The check of predicted boxes, which may pass the border of their image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import (
    MANY,
    NO_BOX,
    STEPS,
    BoxReading,
    box_faults,
    box_text,
    doubt_about,
    fitting_readings,
    questions_about,
    sorted_corners,
    values_of,
)
from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError, counted

ORDERS = ("xyxy", "yxyx")
"""Orders of the axes: x before y, and y before x."""
FAR = 0.1
"""Share of the side by which a predicted box passes the border if it is far outside."""


def check_predictions(
    table: pd.DataFrame, reading: BoxReading, sizes: np.ndarray
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return predicted boxes with sorted corners, without those of zero size, and notes on both.

    The N rows have ``image_id`` and the edges ``x1, y1, x2, y2`` (px) as they were read; an
    optional column ``place`` says where each row is in its file, and `reading.unit` what the edges
    were before. `sizes` are width and height in px, ``(N, 2)``, NaN if unknown.

    Refused are an edge that is NaN or infinite, and files of which a tenth of the boxes has no
    size, lies far outside the image, or seems to be in another form or unit.
    """
    _require_finite(table, reading.where)
    written = table[EDGES].to_numpy(np.float64)
    values = values_of(written, reading.form)
    if reading.unit != "px":
        values = values / np.hstack([sizes, sizes]) * STEPS[reading.unit]
    if not len(values):
        return table, ()
    # A detector knows no border where nobody states the size of the image.
    known = np.nan_to_num(sizes, nan=np.inf)
    corners, notes = sorted_corners(written, reading.form, known, FAR)
    faults, misfits = box_faults(corners, known, FAR), box_faults(corners, known)
    fitting = []
    if (misfits != "").mean() >= MANY and not reading.affirmed:
        fitting = fitting_readings(values, reading, sizes)
    reasons = misfits if fitting else faults
    row, problem = int((reasons != "").argmax()), ""
    if (reasons != "").mean() >= MANY:
        n_wrong = counted(int((reasons != "").sum()), "box")
        count = f"{n_wrong} of {len(values):,} cannot be used"
        problem = f"{reasons[row]} ({count}): {questions_about(values, reading, sizes)}"
    elif not reading.affirmed:
        row, problem = doubt_about(values, reading, sizes)
    if problem:
        where = row_text(table, row, reading.where)
        raise InputError(f"{where}: {box_text(values[row], reading)}: {problem}")
    kept, note = without_empty_boxes(table.assign(**dict(zip(EDGES, corners.T, strict=True))))
    return kept, (*notes, *([note] if note else []))


def without_empty_boxes(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Leave out predicted boxes of zero width or height, which detectors make by clipping.

    Returned are the boxes with an area, and a note on the others, "" if there are none. If a tenth
    of the boxes is empty, the columns were probably misread: all are returned.

    Examples:
        >>> boxes = pd.DataFrame({"image_id": [*"abcdefghijk"], "x1": 5, "y1": 5, "x2": 9, "y2": 9})
        >>> boxes.loc[3, "x2"] = 5
        >>> rows, note = without_empty_boxes(boxes)
        >>> len(rows), note
        (10, "1 box without width or height left out (first: row 3, image 'd')")
    """
    x1, y1, x2, y2 = table[EDGES].to_numpy(np.float64).T
    is_empty = ((x1 == x2) & (y1 <= y2)) | ((y1 == y2) & (x1 <= x2))
    if not is_empty.any() or is_empty.mean() >= MANY:
        return table, ""
    boxes = counted(int(is_empty.sum()), "box")
    first = row_text(table, int(is_empty.argmax()), "first")
    return table[~is_empty], f"{boxes} without width or height left out ({first})"


def require_corners(
    table: pd.DataFrame, where: str, answers: Mapping[str, str] | None = None
) -> None:
    """Refuse a table of boxes that are not all corners in px with ``x1 < x2`` and ``y1 < y2``.

    The columns are as for `check_predictions`. `where` names the file or argument of the rows, and
    `answers` has what to do if the boxes have another form or unit, by its name.

    Examples:
        >>> table = pd.DataFrame({"image_id": ["a"], "x1": [40], "y1": [5], "x2": [40], "y2": [9]})
        >>> require_corners(table, "boxes")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.base.errors.InputError: boxes: row 0, image 'a': x1=40, y1=5, ...
    """
    _require_finite(table, where)
    corners = table[EDGES].to_numpy(np.float64)
    if not len(corners):
        return
    unknown = np.full((len(corners), 2), np.nan)
    reading = BoxReading(where=where, answers=answers or {})
    _, question = doubt_about(corners, reading, unknown)
    is_wrong = ~(corners[:, :2] < corners[:, 2:]).all(axis=1)
    if question or is_wrong.any():
        row = int(is_wrong.argmax())
        end = f"; {question}" if question else ""
        raise InputError(
            f"{row_text(table, row, where)}: {_edges_text(corners[row])}; {NO_BOX}{end}"
        )


def _require_finite(table: pd.DataFrame, where: str) -> None:
    corners = table[EDGES].to_numpy(np.float64)
    is_odd = ~np.isfinite(corners).all(axis=1)
    if is_odd.any():
        row = int(is_odd.argmax())
        raise InputError(f"{row_text(table, row, where)}: {_edges_text(corners[row])}; {NO_BOX}")


def row_text(table: pd.DataFrame, row: int, where: str) -> str:
    """Return the start of a message: the names of the table, the row and the image."""
    place = table["place"].iloc[row] if "place" in table else f"row {table.index[row]}"
    image = f"image '{table['image_id'].iloc[row]}'"
    return f"{where}: {place}, {image}" if place else f"{where}: {image}"


def _edges_text(corners: np.ndarray) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in zip(EDGES, corners, strict=True))
