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
    FAR,
    MANY,
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
    where = reading.where
    values = np.where(np.isfinite(values), values, np.nan)
    written = corners_of(values, reading.form, reading.unit, sizes)
    corners, n_sorted = with_sorted(written, reading.form, sizes)
    faults = box_faults(corners, sizes)
    is_faulty = faults != ""
    n_boxes = len(values) + len(unread)
    n_faulty = int(is_faulty.sum()) + len(unread)
    wrong_images = {*np.asarray(images, dtype=object)[is_faulty], *(image for image, _ in unread)}
    is_many = n_faulty >= MANY * n_boxes and (len(wrong_images) > 1 or n_faulty == n_boxes > 0)
    counts = f"{counted(n_faulty, 'box')} of {n_boxes:,} cannot be used"
    if is_many and len(unread) >= MANY * n_boxes:
        image, reason = unread[0]
        raise InputError(f"{where}: {image}: {reason} ({counts}); correct them")
    if not len(values):
        return CheckedBoxes(corners, faults)
    if is_many:
        row = int(is_faulty.argmax())
        question = _other_reading(values, reading, sizes) or "correct them"
        raise InputError(
            f"{_row_text(values, reading, images, row)}: {faults[row]} ({counts}): {question}"
        )
    row, question = doubt_about(values, written, reading, sizes)
    if question:
        raise InputError(f"{_row_text(values, reading, images, row)}: {question}")
    notes = []
    if n_sorted:
        text = "boxes were drawn from another corner than the upper left: corners are sorted"
        notes.append(counted_phrase(n_sorted, text))
    return CheckedBoxes(corners, faults, tuple(notes))


def _row_text(values: np.ndarray, reading: BoxReading, images: Sequence[str], row: int) -> str:
    numbers = ", ".join(f"{value:g}" for value in values[row])
    return f"{reading.where}: image {images[row]!r}: box [{numbers}], read as {reading.text}"


def _other_reading(values: np.ndarray, reading: BoxReading, sizes: np.ndarray) -> str:
    """Ask about the readings by which nearly all boxes would lie in their images; "" without."""
    if reading.affirmed:
        return ""
    fitting = fitting_readings(values, reading, sizes)
    if fitting:
        return questions_about(reading, fitting)
    corners = corners_of(values, reading.form, reading.unit, sizes)
    if (box_faults(corners, np.full_like(sizes, np.nan)) == "").mean() >= 1 - MANY:
        return "are these px of a larger image? Give px of the original image"
    return ""


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
    where = reading.where
    written = table[EDGES].to_numpy(np.float64)
    _require_finite(table, where)
    if not len(table):
        return table, ()
    values = values_of(written, reading.form)
    if reading.unit == "px":
        row, question = doubt_about(values, written, reading, sizes)
        if question:
            edges = _edges_text(written[row])
            raise InputError(f"{row_text(table, row, where)}: {edges}: {question}")
    wide = sizes * (1 + FAR)
    corners, n_sorted = with_sorted(written, reading.form, wide)
    is_empty = np.asarray(~(corners[:, :2] < corners[:, 2:]).all(axis=1))
    is_far = (corners[:, 2:] > wide).any(axis=1) | (corners[:, :2] < -FAR * sizes).any(axis=1)
    is_out = ((corners[:, 2:] > sizes + 1) | (corners[:, :2] < -1)).any(axis=1)
    is_many = max(is_empty.mean(), is_far.mean()) >= MANY
    question = ""
    if (is_empty | is_far | is_out).mean() >= MANY:
        unscaled = values if reading.unit == "px" else _unscaled(values, sizes, reading.unit)
        fitting = [] if reading.affirmed else fitting_readings(unscaled, reading, sizes)
        if fitting:
            question = questions_about(reading, fitting)
        elif is_many and is_far.any():
            question = "are these px of a larger, resized image? Give px of the original image"
        elif is_many:
            question = "a box needs x1 < x2 and y1 < y2"
    if question:
        is_wrong: np.ndarray = np.logical_or(is_empty, is_far if is_many else is_out)  # (N,)
        row = int(is_wrong.argmax())
        fault = "has no area"
        if not is_empty[row]:
            width, height = sizes[row]
            fault = f"reaches beyond the image of {width:g} x {height:g} px"
        as_written = written if reading.unit == "px" else _unscaled(written, sizes, reading.unit)
        verb = "does" if is_wrong.sum() == 1 else "do"
        raise InputError(
            f"{row_text(table, row, where)}: {_edges_text(as_written[row])} {fault}, as "
            f"{counted(int(is_wrong.sum()), 'box')} of {len(table):,} {verb}: {question}"
        )
    notes = []
    if n_sorted:
        text = "corners were in another order, and are sorted"
        notes.append(f"of {counted(n_sorted, 'box')} {text}")
    checked = table.assign(**dict(zip(EDGES, corners.T, strict=True)))
    kept, note = without_empty_boxes(checked)
    return kept, (*notes, *([note] if note else []))


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


def _unscaled(values: np.ndarray, sizes: np.ndarray, unit: BoxUnit) -> np.ndarray:
    """Return values in px as the file states them, in shares or per cent of the image's sides."""
    return values / np.hstack([sizes, sizes]) * (100.0 if unit == "percent" else 1.0)


def row_text(table: pd.DataFrame, row: int, where: str) -> str:
    """Return the start of a message: the names of the table, the row and the image."""
    place = table["place"].iloc[row] if "place" in table else f"row {table.index[row]}"
    image = f"image '{table['image_id'].iloc[row]}'"
    return f"{where}: {place}, {image}" if place else f"{where}: {image}"


def _edges_text(corners: np.ndarray) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in zip(EDGES, corners, strict=True))
