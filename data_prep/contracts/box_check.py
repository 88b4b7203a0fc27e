"""The one check of boxes, wherever they come from: label files, tables, predictions or Python.

A box that cannot be used never vanishes silently: without its box, an image with a lesion would
look like one without. Where a tenth of the boxes cannot be used, the file was misread: all other
forms and units are tried, and the error asks about those by which the boxes would fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_readings import (
    CUT_SHARE,
    FAR,
    MANY,
    STEPS,
    BoxForm,
    BoxReading,
    BoxUnit,
    box_faults,
    corners_of,
    doubt_about,
    fitting_readings,
    questions_about,
    values_of,
    with_sorted,
)
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted, counted_phrase


@dataclass(frozen=True)
class CheckedBoxes:
    """True boxes of a source after the check.

    Attributes:
        corners: Edges ``x1, y1, x2, y2`` in px, shape ``(N, 4)``.
        faults: Why each box cannot be used, shape ``(N,)``; empty texts for boxes that can.
        notes: What was changed, one sentence each.
    """

    corners: np.ndarray
    faults: np.ndarray
    notes: tuple[str, ...] = ()


def check_boxes(
    values: np.ndarray,
    reading: BoxReading,
    sizes: np.ndarray,
    images: Sequence[str],
    unread: Sequence[tuple[str, str]] = (),
) -> CheckedBoxes:
    """Convert the true boxes of a source to corners in px, and say which cannot be used.

    Corners in any order are sorted. Below a tenth, wrong boxes are single mistakes. The boxes of
    one image alone are no tenth, unless they are all boxes.

    Args:
        values: Four numbers of each box, shape ``(N, 4)``; NaN for what is no number.
        reading: How they are read.
        sizes: Width and height of the image of each box, px, shape ``(N, 2)``; NaN if unknown.
        images: Id of the image of each box.
        unread: Image and reason of each further box, of which not even numbers could be read.

    Raises:
        InputError: A tenth or more of the boxes cannot be used, or they are probably in another
            form or unit. The message asks about that one.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    written = corners_of(values, reading.form, reading.unit, sizes)
    table = pd.DataFrame({"image_id": list(images), "place": ""}, dtype=object)
    return _check(values, written, reading, sizes, table, unread)


def check_predictions(
    table: pd.DataFrame, reading: BoxReading, sizes: np.ndarray
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Check predicted boxes, which may pass the border of their image: they are clipped later.

    Args:
        table: Table of N boxes with ``image_id`` and the edges ``x1, y1, x2, y2`` (px) as they were
            read. An optional column ``place`` says where each row is in its file.
        reading: How the boxes were read. `reading.unit` says what they were before.
        sizes: Width and height in px of the image of each box, shape ``(N, 2)``; NaN if unknown.

    Returns:
        The table with sorted corners and without boxes of zero size, which detectors make by
        clipping; and notes on both.

    Raises:
        InputError: An edge is NaN or infinite, or a tenth of the boxes has no size, lies far
            outside the image, or seems to be in another form or unit.
    """
    _require_finite(table, reading.where)
    written = table[EDGES].to_numpy(np.float64)
    values = values_of(written, reading.form)
    if reading.unit != "px":
        values = values / np.hstack([sizes, sizes]) * STEPS[reading.unit]
    checked = _check(values, written, reading, sizes, table, slack=FAR)
    kept, note = without_empty_boxes(
        table.assign(**dict(zip(EDGES, checked.corners.T, strict=True)))
    )
    return kept, (*checked.notes, *([note] if note else []))


def _check(
    values: np.ndarray,
    written: np.ndarray,
    reading: BoxReading,
    sizes: np.ndarray,
    table: pd.DataFrame,
    unread: Sequence[tuple[str, str]] = (),
    slack: float = CUT_SHARE,
) -> CheckedBoxes:
    """Check boxes that may pass the border of their image by a share of its sides, the slack.

    They are refused if a tenth cannot be used, or if a tenth would pass the border by more than a
    true box does and nearly all fit by another reading.
    """
    where = reading.where
    is_predicted = slack > CUT_SHARE
    # A detector knows no border where nobody states the size of the image.
    known = np.nan_to_num(sizes, nan=np.inf) if is_predicted else sizes
    corners, n_sorted = with_sorted(written, reading.form, known, slack)
    faults = box_faults(corners, known, slack)
    misfits = box_faults(corners, known) if is_predicted else faults
    n_boxes = len(values) + len(unread)
    images = table["image_id"].to_numpy(dtype=object)

    def are_many(wrong: np.ndarray) -> bool:
        n_wrong = int(wrong.sum()) + len(unread)
        of = {*images[wrong], *(image for image, _ in unread)}
        are_single = len(of) < 2 and not is_predicted
        return n_wrong >= MANY * n_boxes and (n_wrong == n_boxes > 0 or not are_single)

    def counts(wrong: np.ndarray) -> str:
        n_wrong = int(wrong.sum()) + len(unread)
        return f"{counted(n_wrong, 'box')} of {n_boxes:,} cannot be used"

    if unread and len(unread) >= MANY * n_boxes and are_many(faults != ""):
        image, reason = unread[0]
        raise InputError(f"{where}: {image}: {reason} ({counts(faults != '')}); correct them")
    if not len(values):
        return CheckedBoxes(corners, faults)
    fitting: list[tuple[BoxForm, BoxUnit]] = []
    if are_many(misfits != "") and not reading.affirmed:
        fitting = fitting_readings(values, reading, sizes)
    if fitting or are_many(faults != ""):
        reasons = misfits if fitting else faults
        row = int((reasons != "").argmax())
        question = questions_about(reading, fitting) if fitting else _advice(written, sizes)
        if any(unit == "thousandth" for _, unit in fitting[:1]):  # px of a larger image fit as well
            question = f"{question}. Or {_advice(written, sizes)}"
        raise InputError(
            f"{row_text(table, row, where)}: {_as_read(values[row], reading)}: {reasons[row]} "
            f"({counts(reasons != '')}): {question}"
        )
    row, question = doubt_about(values, written, reading, sizes)
    if question:
        begin = f"{row_text(table, row, where)}: {_as_read(values[row], reading)}"
        raise InputError(f"{begin}: {question}")
    notes = []
    if n_sorted:
        text = "boxes were drawn from another corner than the upper left: corners are sorted"
        notes.append(counted_phrase(n_sorted, text))
    return CheckedBoxes(corners, faults, tuple(notes))


def _as_read(numbers: np.ndarray, reading: BoxReading) -> str:
    return f"box [{', '.join(f'{number:g}' for number in numbers)}], read as {reading.text}"


def _advice(written: np.ndarray, sizes: np.ndarray) -> str:
    """Return what to do with boxes that fit their images by no other reading."""
    if (box_faults(written, np.full_like(sizes, np.nan)) == "").mean() >= 1 - MANY:
        return "are these px of a larger image that was resized? Give px of the original"
    return "correct them; a box needs x1 < x2 and y1 < y2"


def without_empty_boxes(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Leave out predicted boxes of zero width or height, which detectors make by clipping.

    Returns:
        The boxes with an area, and a note on the others, empty if there are none. If a tenth of the
        boxes is empty, the columns were probably misread: all are returned.

    Example:
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
    """Check that all boxes of a table are corners in px with ``x1 < x2`` and ``y1 < y2``.

    Args:
        table: Table of N boxes with ``image_id`` and the edges ``x1, y1, x2, y2``. An optional
            column ``place`` says where each row is in its file.
        where: Name of the file or argument that holds the rows. The message starts with it.
        answers: What to do if the boxes have another form or unit, by its name.

    Example:
        >>> table = pd.DataFrame({"image_id": ["a"], "x1": [40], "y1": [5], "x2": [40], "y2": [9]})
        >>> require_corners(table, "boxes")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: boxes: row 0, image 'a': x1=40, y1=5, ...
    """
    _require_finite(table, where)
    corners = table[EDGES].to_numpy(np.float64)
    if not len(corners):
        return
    unknown = np.full((len(corners), 2), np.nan)
    reading = BoxReading(where=where, answers=answers or {})
    _, question = doubt_about(corners, corners, reading, unknown)
    is_wrong = ~(corners[:, :2] < corners[:, 2:]).all(axis=1)
    if question or is_wrong.any():
        row = int(is_wrong.argmax())
        end = f"; {question}" if question else ""
        raise InputError(
            f"{row_text(table, row, where)}: {_edges_text(corners[row])}; a box needs x1 < x2 and "
            f"y1 < y2 inside the image, in pixels of the original{end}"
        )


def _require_finite(table: pd.DataFrame, where: str) -> None:
    corners = table[EDGES].to_numpy(np.float64)
    is_odd = ~np.isfinite(corners).all(axis=1)
    if is_odd.any():
        row = int(is_odd.argmax())
        raise InputError(
            f"{row_text(table, row, where)}: {_edges_text(corners[row])}; a box needs x1 < x2 and "
            "y1 < y2 inside the image, in pixels of the original"
        )


def row_text(table: pd.DataFrame, row: int, where: str) -> str:
    """Return the start of a message: the names of the table, the row and the image."""
    place = table["place"].iloc[row] if "place" in table else f"row {table.index[row]}"
    image = f"image '{table['image_id'].iloc[row]}'"
    return f"{where}: {place}, {image}" if place else f"{where}: {image}"


def _edges_text(corners: np.ndarray) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in zip(EDGES, corners, strict=True))
